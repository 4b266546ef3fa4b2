"""Versions, hardware and revision of a run, and the check that the installed libraries fit together."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from genaug.core.errors import boundary

PACKAGES = (
    "genaug",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "pytorch-lightning",
    "timm",
    "hydra-core",
    "numpy",
)


@functools.cache
def describe_environment() -> dict[str, Any]:
    """Versions, git revision and hardware, as they stand now."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": f"{_cpu_name()} ({os.cpu_count()} cores)",
        "gpu": gpu,
        "git_revision": _git_revision(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Commit of the code, with ``+changes`` when the tree differs from it; None where it is not in a checkout."""
    here = Path(__file__)
    try:
        run = functools.partial(subprocess.run, cwd=here.parent, capture_output=True, text=True, check=True, timeout=10)
        # an installed genaug may lie in a repository of the user's, which does not know its files
        run(["git", "ls-files", "--error-unmatch", here.name])
        commit = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        return commit + ("+changes" if run(["git", "status", "--porcelain"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def check_libraries() -> None:
    """A CPU-only torch beside a torchvision built for CUDA (or the reverse) fails later with an unclear operator error."""
    import torch

    with boundary(
        f"torch {torch.__version__} and the installed torchvision {_version('torchvision')} do not fit together",
        "Install a matching pair: `pip install --force-reinstall torch torchvision` for the default builds, or take both from "
        "the same index of pytorch.org (both CPU, or both of one CUDA version).",
    ):
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
