"""Which device torch computes on."""

from genaug.core.errors import GenaugError


def best_device(accelerator: str = "auto") -> str:
    """``cuda``, ``mps`` or ``cpu``.

    Args:
        accelerator: ``auto`` (a CUDA GPU if torch sees one), ``cpu``, ``gpu`` or ``cuda``, ``mps``.

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
