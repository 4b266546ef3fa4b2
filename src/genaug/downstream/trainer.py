"""How a downstream model is trained on this machine: what goes to Lightning's Trainer."""

from dataclasses import dataclass, field
from typing import Any

from genaug.core.device import best_device
from genaug.core.errors import GenaugError, check_choice
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


@component("trainer", "default")
@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Hardware and numerics. Only ``precision`` can change a result."""

    accelerator: str = field(default="auto", metadata=NOT_IDENTITY)
    """``auto``, ``cpu``, ``gpu`` (or ``cuda``) or ``mps``; the generators' device follows it. Which GPU:
    ``CUDA_VISIBLE_DEVICES``."""
    devices: int = field(default=1, metadata=NOT_IDENTITY)
    """Number of devices inside one cell (Lightning DDP when above 1)."""
    precision: str = "32-true"
    """Lightning's names: ``32-true``, ``bf16-mixed``, ``16-mixed``, ``bf16-true``, ``16-true`` or ``64-true``."""
    num_workers: int = field(default=0, metadata=NOT_IDENTITY)
    """Processes that decode and augment; 0 does it in the main one."""
    num_threads: int | None = field(default=None, metadata=NOT_IDENTITY)
    """Threads of torch on CPU; null leaves torch's choice."""
    checkpoint_every: int = field(default=1000, metadata=NOT_IDENTITY)
    """Optimiser steps between checkpoints from which an interrupted cell resumes."""

    def __post_init__(self) -> None:
        check_choice("trainer.accelerator", self.accelerator, ACCELERATORS)
        check_choice("trainer.precision", self.precision, PRECISIONS)
        for key in ("devices", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise GenaugError(f"trainer.{key}={getattr(self, key)} must be at least 1.")

    def device(self) -> str:
        """The torch device of generators and priors."""
        import torch

        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        return best_device(self.accelerator)

    def lightning(self) -> dict[str, Any]:
        """Keyword arguments for ``pytorch_lightning.Trainer``."""
        return {"accelerator": self.accelerator, "devices": self.devices, "precision": self.precision}
