"""Starts Python programs without the CPU seconds of their imports: one process imports what they do, and forks for each.

Each is a process of its own, with its own environment, streams and exit code, as ``python train.py`` would be, and what it
starts by ``sys.executable`` is started in the same way.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = (
    "wandb.sdk.launch",  # which each run imports, and which reads sources the longer the more modules there are
    "torch", "torchvision.transforms.v2", "torchvision.models.detection", "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl", "diffusers.schedulers.scheduling_ddim", "transformers.models.clip",
    "pytorch_lightning", "torchmetrics.detection", "timm", "sklearn.datasets", "scipy.stats", "matplotlib.figure",
    "genaug.app", "genaug.cli", "genaug.run", "genaug.tables.terminal",
)  # fmt: skip
FOLDER = "GENAUG_TESTS_STARTER"
"""Environment variable with the folder of a starter that serves this process and those below it."""
HERE = Path(__file__).parent
CONSOLE = HERE / "console.py"


class Started:
    """A process that was started: what ``subprocess.Popen`` says of one."""

    returncode: int | None = None

    def __init__(self, connection: socket.socket, logs: tempfile.TemporaryDirectory) -> None:
        self.connection, self.answers, self.logs = connection, connection.makefile(), logs
        pid = self.answers.readline()
        assert pid, "the process that starts programs has ended"
        self.pid = int(pid)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            self.returncode = int(self.answers.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = 590) -> str:
        """What it wrote, once it has ended; one that does not in ``timeout`` seconds is killed."""
        if self.returncode is None and not select.select([self.connection], [], [], timeout)[0]:
            self.send_signal(signal.SIGKILL)
            raise TimeoutError(self.said)
        self.poll()
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
    """Starts as late as it is needed, or serves from another process of these tests; ends with the tests."""

    process: subprocess.Popen | None = None

    @property
    def folder(self) -> Path:
        """Holds ``python`` and ``genaug`` as commands that start quickly."""
        if FOLDER not in os.environ:
            self.begin()
        return Path(os.environ[FOLDER])

    def begin(self) -> None:
        """Start the process that has imported all, for this process and those below it."""
        os.environ[FOLDER] = tempfile.mkdtemp()
        folder = self.folder
        for name, words in (("python", ""), ("genaug", CONSOLE)):
            file = folder / name
            quick = f'"{sys.executable}" -IS "{HERE}/quick_python.py" "{folder}/socket" "{sys.executable}"'
            file.write_text(f'#!/bin/sh\nexec {quick} {words} "$@"\n')
            file.chmod(0o755)
        words = [sys.executable, str(HERE / "preloaded.py"), str(folder / "socket"), *IMPORTED]
        # of the checkout, whatever folder with presets of its own a test stands in
        itself = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(words, cwd=HERE.parent, stdin=subprocess.PIPE, env=itself)
        while not (folder / "socket").exists():
            assert self.process.poll() is None, "the process that starts programs has ended"
            time.sleep(0.01)

    def start(self, words: list[str], folder: Path, environment: dict[str, str]) -> Started:
        """``python WORDS``, started in ``folder``."""
        logs = tempfile.TemporaryDirectory()
        order = {
            "words": words, "environment": environment, "folder": str(folder), "descriptors": [0, 1, 2], "stands_for_it": None
        }  # fmt: skip
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.folder / "socket"))
        with contextlib.ExitStack() as files:
            read = files.enter_context(open(os.devnull))
            out, err = (files.enter_context((Path(logs.name) / name).open("wb")) for name in ("out", "err"))
            socket.send_fds(connection, [b"\n"], [read.fileno(), out.fileno(), err.fileno()])
        connection.sendall(json.dumps(order).encode() + b"\n")
        return Started(connection, logs)

    def run(self, words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Exit code and output of ``python WORDS``, started in ``folder``."""
        started = self.start(words, folder, environment)
        said = started.wait()
        assert started.returncode is not None
        return started.returncode, said

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
            shutil.rmtree(os.environ.pop(FOLDER))
            self.process = None
