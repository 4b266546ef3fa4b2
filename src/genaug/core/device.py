"""Which device torch computes on."""

from genaug.core.errors import GenaugError

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


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
    if accelerator == "mps":
        return "mps"
    if accelerator in ("gpu", "cuda"):
        raise GenaugError(
            f"trainer.accelerator={accelerator}, but torch sees no GPU. Write trainer.accelerator=cpu or install the driver."
        )
    return "cpu"
