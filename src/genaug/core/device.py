"""Which device torch computes on."""

from genaug.core.errors import GenaugError

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")

_chosen_by_torch: int | None = None
"""Threads that torch chose when this process first used it."""


def use_threads(count: int | None) -> None:
    """Let torch compute on CPU with so many threads from now on; None for as many as it chose itself."""
    global _chosen_by_torch
    import torch

    _chosen_by_torch = _chosen_by_torch or torch.get_num_threads()
    torch.set_num_threads(count or _chosen_by_torch)


def num_threads() -> int:
    """Threads with which torch computes on CPU now."""
    import torch

    return torch.get_num_threads()


def best_device(accelerator: str = "auto") -> str:
    """``cuda``, ``mps`` or ``cpu``.

    Args:
        accelerator: one of ``ACCELERATORS``; ``auto`` is a CUDA GPU if torch sees one, and the CPU otherwise.

    Raises:
        GenaugError: for a GPU that torch does not see.
    """
    import torch

    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "cuda"
    if accelerator == "mps" and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("gpu", "cuda", "mps"):
        raise GenaugError(
            f"trainer.accelerator={accelerator}, but torch sees no GPU. Write trainer.accelerator=cpu or install the driver."
        )
    return "cpu"
