"""Starts ``train.py`` and ``genaug`` without four CPU seconds of imports: one process imports what they do, and forks for each.

Each run is a process of its own, with its own environment, streams and exit code, as ``python train.py`` would be.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = (
    "torch", "torchvision.transforms.v2", "torchvision.models.detection", "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl", "diffusers.schedulers.scheduling_ddim", "transformers.models.clip",
    "pytorch_lightning", "torchmetrics.detection", "timm", "sklearn.datasets", "scipy.stats", "matplotlib.figure",
    "genaug.app", "genaug.cli", "genaug.run", "genaug.tables.terminal",
)  # fmt: skip

PROGRAM = """
import contextlib, gc, importlib, json, os, runpy, sys
sys.modules["wandb"] = None  # timm would import it, and its temporary folder would go with the first child
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
del sys.modules["wandb"]
if "genaug.app" in sys.modules:  # plug-ins are found, components loaded and files of presets parsed, too
    from genaug.composition import compose_typed
    compose_typed([])
gc.freeze()  # else the first collection of each child would write to, and so copy, every page that it shares
here = os.environ.get("PYTHONPATH", "")
for line in sys.stdin:
    order = json.loads(line)
    if os.fork() == 0:  # the child's parent, which keeps its exit code
        child = os.fork()
        if child:
            print(child, flush=True)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with open(order["code"] + ".part", "w") as file:
                file.write(str(code))
            os.rename(order["code"] + ".part", order["code"])
            os._exit(0)
        for stream, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
        os.environ.clear()
        os.environ.update(order["environment"])
        if (path := os.environ.get("PYTHONPATH", "")) != here:  # another checkout, whose genaug is to be imported
            sys.path[1:1] = path.split(os.pathsep)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("genaug", "hydra", "hydra_plugins")]:
                del sys.modules[name]
        os.chdir(order["folder"])
        sys.argv = order["words"]
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
"""


class Started:
    """A process that was started: what ``subprocess.Popen`` says of one."""

    returncode: int | None = None

    def __init__(self, pid: int, logs: tempfile.TemporaryDirectory) -> None:
        self.pid = pid
        self.logs = logs

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        with contextlib.suppress(FileNotFoundError):
            self.returncode = int((Path(self.logs.name) / "code").read_text())
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = 590) -> str:
        """What it wrote, once it has ended; one that does not in ``timeout`` seconds is killed."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(self.said)
            time.sleep(0.01)
        return self.said

    @property
    def printed(self) -> str:
        """What it wrote to standard output so far."""
        return (Path(self.logs.name) / "out").read_text()

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return "".join((Path(self.logs.name) / name).read_text() for name in ("out", "err"))


class Starter:
    """Starts as late as it is needed, and ends with the tests."""

    process: subprocess.Popen | None = None

    def start(self, words: list[str], folder: Path, environment: dict[str, str]) -> Started:
        """A Python program, started in ``folder``."""
        if self.process is None:
            start = [sys.executable, "-c", PROGRAM, json.dumps(IMPORTED)]
            root = Path(__file__).parents[1]  # whatever folder a test stands in, with presets of its own
            self.process = subprocess.Popen(start, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        logs = tempfile.TemporaryDirectory()
        order: dict[str, object] = {"words": words, "folder": str(folder), "environment": environment}
        for name in ("out", "err", "code"):
            order[name] = str(Path(logs.name) / name)
        for name in ("out", "err"):
            (Path(logs.name) / name).touch()
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = self.process.stdout.readline()
        assert pid, "the process that starts runs has ended"
        return Started(int(pid), logs)

    def run(self, words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Exit code and output of a Python program, started in ``folder``."""
        started = self.start(words, folder, environment)
        said = started.wait()
        assert started.returncode is not None
        return started.returncode, said

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
