"""Starts ``train.py`` and ``genaug`` without four CPU seconds of imports: one process imports what they do, and forks for each.

Each run is a process of its own, with its own environment, streams and exit code, as ``python train.py`` would be.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = (
    "torch", "torchvision.transforms.v2", "torchvision.models.detection", "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl", "diffusers.schedulers.scheduling_ddim", "transformers.models.clip",
    "pytorch_lightning", "torchmetrics.detection", "timm", "sklearn.datasets", "scipy.stats", "matplotlib.figure",
    "genaug.app", "genaug.cli", "genaug.run", "genaug.tables.terminal",
)  # fmt: skip

PROGRAM = """
import importlib, json, os, runpy, sys
sys.modules["wandb"] = None  # timm would import it, and its temporary folder would go with the first child
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
del sys.modules["wandb"]
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        sys.argv = order["words"]
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Starter:
    """Starts as late as it is needed, and ends with the tests."""

    process: subprocess.Popen | None = None

    def run(self, words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Exit code and output of a Python program, started in ``folder``."""
        if self.process is None:
            start = [sys.executable, "-c", PROGRAM, json.dumps(IMPORTED)]
            self.process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as logs:
            out, err = Path(logs) / "out.txt", Path(logs) / "err.txt"
            for path in (out, err):
                path.write_text("")
            order = {"words": words, "folder": str(folder), "environment": environment}
            self.process.stdin.write(json.dumps({**order, "out": str(out), "err": str(err)}) + "\n")
            self.process.stdin.flush()
            code = self.process.stdout.readline()
            assert code, "the process that starts runs has ended"
            return int(code), out.read_text() + err.read_text()

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
