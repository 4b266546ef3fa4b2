"""What need not be computed at every denoising step: what a U-Net makes of its prompt, which is the same at each, and, where
it is asked for, its deep features, which are nearly the same at steps that follow one another (DeepCache, arXiv 2312.00858).

With 77 words beside a latent of a few pixels the prompt's keys and values are a quarter of the work; the numbers are the very
ones that each step would compute again. Deep features are not: used again they change the image a little
(``python -m benchmarks step_savers``).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def kept_projections(unet: nn.Module) -> Iterator[None]:
    """Inside, the keys and values of a text that is the same tensor as in the last call are taken from there.

    The weights must stay as they are inside.
    """
    layers = [layer for name, layer in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    with _forwards(layers, _kept):
        yield


def _kept(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    last: list[Tensor] = []

    def forward(text: Tensor) -> Tensor:
        if text.requires_grad:  # tokens are learned: another text at every step
            return project(text)
        if not last or last[0] is not text:
            last[:] = text, project(text)
        return last[1]

    return forward


class Depths:
    """Which evaluations use deep features again: all but the first of every ``interval`` with the same text."""

    def __init__(self, interval: int):
        self.interval = interval
        self.used_again = False
        self._count, self._text = 0, None

    def next(self, text: Any) -> None:
        """Say which text the next evaluation has; another one begins anew."""
        if text is not self._text:
            self._count, self._text = 0, text
        self.used_again = self._count % self.interval > 0
        self._count += 1


@contextlib.contextmanager
def kept_depths(unet: Any, interval: int) -> Iterator[Depths]:
    """Inside, where the yielded ``used_again`` holds, all of a ``UNet2DConditionModel`` but its first and last convolutions and
    the last layer of its last block returns what it returned last: a twelfth of the operations remains in Stable
    Diffusion 1.5's shape at 512 px.

    Weights and shapes must stay as they are from one evaluation of the whole U-Net to the next.
    """
    depths, last = Depths(interval), unet.up_blocks[-1]
    layers = [*unet.down_blocks, unet.mid_block, *unet.up_blocks[:-1], *last.resnets[:-1]]
    layers += getattr(last, "attentions", [])[:-1]

    def used_again(compute: Callable[..., Any]) -> Callable[..., Any]:
        made: list[Any] = []

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not depths.used_again:
                made[:] = [compute(*args, **kwargs)]
            return made[0]

        return forward

    with _forwards(layers, used_again):
        yield depths


@contextlib.contextmanager
def _forwards(layers: list[nn.Module], other: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, each layer's ``forward`` is what ``other`` makes of it."""
    for layer in layers:
        layer.forward = other(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # absent where two samplings took turns and the other has ended first
