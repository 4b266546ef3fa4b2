"""Checkpoints of training: the previous one is kept until the next is whole, and one that cannot be read counts as absent."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from genaug.core.errors import first_line
from genaug.core.files import whole

INTERVAL = 60.0
"""Seconds of work that an interruption may cost, whatever the steps between checkpoints."""


class Pace:
    """When a checkpoint is due: every so many steps, and after ``INTERVAL`` seconds without one."""

    def __init__(self, every: int):
        self.every, self.last = every, time.monotonic()

    def due(self, step: int) -> bool:
        if step % self.every and time.monotonic() - self.last < INTERVAL:
            return False
        self.last = time.monotonic()
        return True


class WholeCheckpoints(TorchCheckpointIO):
    """How Lightning writes: beside the place, flushed to disk, renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_checkpoint(checkpoint, Path(path))


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values; a kill or a full disk leaves the previous file."""
    with whole(path) as partial, partial.open("wb") as file:  # by Python, whose error says that the disk is full
        torch.save(state, file)


def read_checkpoint(path: Path, say: Callable[[str], None]) -> Any:
    """What ``torch.save`` wrote, its tensors on the CPU and mapped from the file; None where there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as file:
            if (bad := file.testzip()) is not None:  # torch compares no checksums
                raise ValueError(f"{bad} has changed")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file fails in many ways
        say(f"{path} cannot be read ({first_line(error)}) and counts as absent")
        return None
