"""What an installation of genaug puts on the disk, by what asks for it.

Read from the environment that runs it; sizes are those of the installed files, in MB of 10^6 bytes.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")


def ours() -> list[str]:
    """genaug's own requirements, as this checkout states them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].items()
    return [*project["dependencies"], *(f"{need}; extra == '{extra}'" for extra, needs in extras for need in needs)]


def closure(wanted: Iterable[Requirement]) -> dict[str, Distribution]:
    """Installed packages that requirements bring, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    stack = [(need, extra) for need in wanted for extra in ("", *need.extras)]
    while stack:
        need, extra = stack.pop()
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another system
        for text in ours() if name == "genaug" else requires(name) or []:
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                stack += [(inner, part) for part in ("", *inner.extras)]
    return found


def megabytes(packages: Iterable[Distribution]) -> float:
    """Of all files that the packages list."""
    files = {Path(str(one.locate_file(path))) for one in packages for path in one.files or []}
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc") / 1e6


def main() -> None:
    core, everything = closure([Requirement("genaug")]), closure([Requirement("genaug[dev]")])
    parts = {
        "CUDA libraries and Triton, which PyTorch brings on Linux": {
            n: d for n, d in core.items() if CUDA.fullmatch(n)
        },
        "PyTorch and torchvision": {n: core[n] for n in ("torch", "torchvision") if n in core},
        "the other packages that genaug needs": {
            n: d for n, d in core.items() if not CUDA.fullmatch(n) and n not in ("torch", "torchvision", "genaug")
        },
        "what [dev] adds: tests, linters, documentation, notebooks, extras": {
            n: d for n, d in everything.items() if n not in core
        },
    }
    for what, packages in parts.items():
        print(f"{megabytes(packages.values()):8.0f} MB  {len(packages):3d} packages  {what}")
        largest = sorted(packages, key=lambda name: -megabytes([packages[name]]))[:6]
        print(" " * 26 + ", ".join(f"{name} {megabytes([packages[name]]):.0f}" for name in largest))


if __name__ == "__main__":
    main()
