"""What a U-Net makes of its prompt is the same at every denoising step: keys and values of cross-attention, computed once.

With 77 words beside a latent of a few pixels they are a quarter of the work; the numbers are the very ones that each step
would compute again.
"""

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn


@contextlib.contextmanager
def kept_projections(unet: nn.Module) -> Iterator[None]:
    """Inside, the keys and values of a text that is the same tensor as in the last call are taken from there.

    The weights must stay as they are inside.
    """
    layers = [layer for name, layer in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    for layer in layers:
        layer.forward = _kept(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # absent where two samplings took turns and the other has ended first


def _kept(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    last: list[Tensor] = []

    def forward(text: Tensor) -> Tensor:
        if text.requires_grad:  # tokens are learned: another text at every step
            return project(text)
        if not last or last[0] is not text:
            last[:] = text, project(text)
        return last[1]

    return forward
