"""How a downstream model is trained on this machine: what goes to Lightning's Trainer."""

import os
from dataclasses import dataclass, field
from typing import Any

from genaug.core.device import ACCELERATORS, best_device
from genaug.core.errors import GenaugError
from genaug.core.fields import choice, count
from genaug.core.identity import NOT_IDENTITY, OPTIONAL
from genaug.core.registry import component

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
MOST_PROCESSES = 1024
"""No machine of today runs more devices, workers or threads for one training."""


@component("trainer", "default")
@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Hardware and numerics. Only ``precision`` and ``channels_last`` can change a result."""

    accelerator: str = choice("auto", ACCELERATORS, metadata=NOT_IDENTITY)
    """``auto``, ``cpu``, ``gpu`` (or ``cuda``) or ``mps``; the generators' device follows it. Which GPU:
    ``CUDA_VISIBLE_DEVICES``."""
    devices: int = count(1, most=MOST_PROCESSES, metadata=NOT_IDENTITY)
    """Devices of this machine that train one model together (Lightning's DDP), each on its share of every batch:
    ``downstream.batch_size`` is a multiple of it. Batch normalisation looks at the shares of all GPUs; on CPU, where torch
    cannot, at each process's own."""
    precision: str = choice("32-true", PRECISIONS)
    """Lightning's names: ``32-true``, ``bf16-mixed``, ``16-mixed``, ``bf16-true``, ``16-true`` or ``64-true``."""
    num_workers: int | None = count(None, 0, MOST_PROCESSES, metadata=NOT_IDENTITY)
    """Processes that decode and augment; 0 does it in the main one. Null: on a GPU one per core but one, at most 8 per device;
    0 on a CPU."""
    num_threads: int | None = count(None, most=MOST_PROCESSES, metadata=NOT_IDENTITY)
    """Threads of torch on CPU; null takes one for small networks, whose numbers are then the same on every machine, and torch's
    choice for others. A result says how many it had."""
    tf32: bool = field(default=True, metadata=NOT_IDENTITY)
    """On a GPU: products of float32 numbers by TF32, several times as fast, with mantissas of 10 bits."""
    cudnn_benchmark: bool = field(default=True, metadata=NOT_IDENTITY)
    """On a GPU: try several convolutions for each shape first. Write false where nearly every batch has a shape of its own."""
    channels_last: bool | None = field(default=None, metadata=OPTIONAL)
    """Train with channels innermost in memory, as tensor cores read them; null does so on a GPU alone. On a CPU true makes
    small convolutional networks 1.2 to 1.4 times as fast. It rounds differently, which decides ties of pooling windows and
    moves probabilities of a short training by some hundredths: where it is written, it counts for the identity."""
    checkpoint_every: int = count(1000, metadata=NOT_IDENTITY)
    """Optimiser steps between checkpoints from which an interrupted run resumes."""

    def device(self) -> str:
        """The torch device of generators and priors; also sets torch's number of threads, and how a GPU multiplies."""
        import torch

        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        device = best_device(self.accelerator)
        if device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
            torch.backends.cudnn.benchmark = self.cudnn_benchmark
        return device

    def memory_format(self) -> Any:
        """Torch's name for how the weights of a downstream model lie in memory."""
        import torch

        on_gpu = best_device(self.accelerator) == "cuda"
        innermost = on_gpu if self.channels_last is None else self.channels_last
        return torch.channels_last if innermost else torch.preserve_format

    def workers(self) -> int:
        """Processes that prepare batches."""
        if self.num_workers is not None:
            return self.num_workers
        if best_device(self.accelerator) != "cuda":
            return 0
        return max(0, min(8, (os.cpu_count() or 1) // self.devices - 1))

    def check(self, batch_size: int) -> None:
        """Raise ``GenaugError`` where several devices cannot share the work."""
        if self.devices == 1:
            return
        if batch_size % self.devices:
            raise GenaugError(
                f"trainer.devices={self.devices} cannot share downstream.batch_size={batch_size} evenly: write a multiple, "
                f"e.g. downstream.batch_size={-(-batch_size // self.devices) * self.devices}."
            )
        import torch

        device = best_device(self.accelerator)
        present = torch.cuda.device_count() if device == "cuda" else 1 if device == "mps" else MOST_PROCESSES
        if self.devices > present:
            raise GenaugError(
                f"trainer.devices={self.devices}, but torch sees {present} of {device}: write trainer.devices={present}."
            )

    def lightning(self) -> dict[str, Any]:
        """Keyword arguments for ``pytorch_lightning.Trainer``."""
        return {"accelerator": self.accelerator, "devices": self.devices, "precision": self.precision}
