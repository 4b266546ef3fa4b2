"""Gaussian noise on the U-Net's bottleneck: the output of ``mid_block``, before the up blocks (DreamDA, arXiv 2403.12803).

diffusers' own argument ``mid_block_additional_residual`` is ignored unless residuals of the down blocks come with it, so
the noise enters through a forward hook. The hook sees every row of the batch; a boolean mask names those it may change.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Draw = Callable[[Sequence[int]], Tensor]
"""Standard normal noise for the masked rows: shape of one row's bottleneck, to float [num masked rows, *shape]."""


class BottleneckNoise:
    """h[rows] + sigma xi, xi ~ N(0, I), for one network call.

    Args:
        rows: bool [R], the rows of the batch that are perturbed.
        sigma: standard deviation of the noise, or with ``relative`` its ratio to the standard deviation of the row's h.
        relative: scale the noise by each row's own std(h).
        draw: gives xi once the shape of h is known.
    """

    def __init__(self, rows: Tensor, sigma: float, relative: bool, draw: Draw):
        self.rows, self.sigma, self.relative, self.draw = rows, sigma, relative, draw
        self.std: Tensor | None = None
        """float32 [num masked rows]: std(h) of each perturbed row, known after the call."""

    def __call__(self, h: Tensor) -> Tensor:
        """The bottleneck [R, ...] with noise on the masked rows; the other rows keep their bits."""
        if len(h) != len(self.rows):
            raise AssertionError(f"the row mask is for {len(self.rows)} rows, the bottleneck has {len(h)}")
        rows = self.rows.to(h.device)
        masked = h[rows]
        std = masked.float().flatten(1).std(dim=1)
        self.std = std
        noise = self.draw(h.shape[1:]).to(h.device)
        scale = torch.full_like(std, self.sigma) * (std if self.relative else 1.0)
        changed = h.clone()
        changed[rows] = (masked + scale.to(noise.dtype).view(-1, *[1] * (h.ndim - 1)) * noise).to(h.dtype)
        return changed


@contextlib.contextmanager
def hooked(module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """``change`` replaces the output of ``module`` inside; the hook is gone afterwards, also after an exception.

    Raises:
        AssertionError: if the module was not called inside, e.g. because a compiled graph left the hook out.
    """
    calls = 0

    def hook(_module: torch.nn.Module, _args: object, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if calls == 0:
        raise AssertionError(f"the hook on {type(module).__name__} did not fire")
