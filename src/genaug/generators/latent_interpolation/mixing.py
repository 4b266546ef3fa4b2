"""Interpolation of pairs: choice of partners, codes and class weights, and one online training step.

z = lambda E(x_i) + (1 - lambda) E(x_j), image G(z), loss lambda CE(y_i) + (1 - lambda) CE(y_j) (Liu et al., ICPR 2018).
That loss is the cross-entropy with class weights lambda e_i + (1 - lambda) e_j. The paper's two-hot label (1, 1) for
lambda = .5 gives exactly twice as much, which would double the learning rate; here it is normalised to (.5, .5).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genaug.core.errors import GenaugError
from genaug.core.seeding import derive
from genaug.generators.latent_interpolation.sections import Mixing


def _spread(lam: Tensor, like: Tensor) -> Tensor:
    """lambda [b] in a shape that multiplies ``like`` [b, …]."""
    return lam.to(like).reshape(-1, *[1] * (like.ndim - 1))


def mix(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    """lambda * first + (1 - lambda) * second, row by row.

    Args:
        first, second: [b, …], of one shape.
        lam: [b] in [0, 1].
    """
    if first.shape != second.shape:
        raise GenaugError(
            f"Images of sizes {tuple(first.shape[1:])} and {tuple(second.shape[1:])} cannot be interpolated: resize them "
            "to one size (dataset.image_size)."
        )
    if bool(((lam < 0) | (lam > 1)).any()):
        raise GenaugError(
            f"lambda={float(lam.min()):g} … {float(lam.max()):g} leaves [0, 1]: that would be extrapolation."
        )
    weight = _spread(lam, first)
    return weight * first + (1 - weight) * second


def midpoint_cdf(s: Tensor, lam: Tensor) -> Tensor:
    """F(s): distribution function of lambda U + (1 - lambda) V for independent U, V uniform on [-1, 1].

    F = [r(s+1) - r(s+1-2a) - r(s+1-2b) + r(s+1-2a-2b)] / (8ab), r(t) = max(t, 0)^2, a = min(lambda, 1-lambda), b = 1 - a.
    """
    a = torch.minimum(lam, 1 - lam)
    b = 1 - a

    def r(t: Tensor) -> Tensor:
        return t.clamp(min=0).square()

    return (r(s + 1) - r(s + 1 - 2 * a) - r(s + 1 - 2 * b) + r(s + 1 - 2 * a - 2 * b)) / (8 * a * b)


def mix_uniform(first: Tensor, second: Tensor, lam: Tensor, code_range: float = 1.0) -> Tensor:
    """As ``mix``, then each dimension mapped back to the uniform distribution on [-code_range, code_range]: 2 F(z) - 1.

    The uniform prior's analogue of spherical interpolation; our ablation, not in the paper.
    """
    mixed = mix(first, second, lam)
    weight = _spread(lam, mixed).double().expand_as(mixed)
    inside = (weight > 0) & (weight < 1)
    safe = torch.where(inside, weight, 0.5)
    uniform = (2 * midpoint_cdf(mixed.double() / code_range, safe) - 1) * code_range
    return torch.where(inside, uniform.to(mixed), mixed)


def mix_labels(first: dict[int, float], second: dict[int, float], lam: float) -> dict[int, float]:
    """Class weights of a mixed image, summing to 1; two images of one class give a single class."""
    weights: dict[int, float] = {}
    for label, share in ((first, lam), (second, 1 - lam)):
        for index, weight in label.items():
            if share * weight > 0:
                weights[index] = weights.get(index, 0.0) + share * weight
    return dict(sorted(weights.items()))


def draw_partners(classes: np.ndarray, seed: int, pairing: str = "permutation", kinds: str = "any") -> np.ndarray:
    """A partner for each row of one minibatch.

    A permutation of the batch (paper); ``derangement`` has no fixed point. Rows whose pair is of the wrong kind (``inter``:
    two classes, ``intra``: one class) draw again among all rows of the right kind; a row for which there is none is paired
    with itself.

    Args:
        classes: int [b].
        seed: decides everything.

    Returns:
        int [b].
    """
    size = len(classes)
    if size < 2:
        raise GenaugError(
            "Latent interpolation mixes the images of one batch with each other: a batch of one has no pair."
        )
    rng = np.random.default_rng(seed)
    rows = np.arange(size)
    partners = rng.permutation(size)
    while pairing == "derangement" and (partners == rows).any():
        partners = rng.permutation(size)
    if kinds != "any":
        want_equal = kinds == "intra"
        for row in rows[(classes[partners] == classes) != want_equal]:
            fitting = (classes == classes[row]) == want_equal
            if pairing == "derangement":
                fitting[row] = False
            options = rows[fitting]
            partners[row] = rng.choice(options) if len(options) else row
    return partners


@dataclass(kw_only=True, slots=True)
class Interpolation:
    """Online interpolation: mixes each minibatch with itself inside training. Nothing here is trained."""

    encode: Callable[[Tensor], Tensor]
    """Images [b, 3, h, w] in [0, 1] to codes."""
    decode: Callable[[Tensor], Tensor]
    """Codes to images in [0, 1]."""
    mixing: Mixing
    seed: int
    image_size: int
    code_range: float | None = None
    """With a number, codes are mixed by ``mix_uniform``."""

    def draw(self, classes: np.ndarray, step: int, k: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Partners int [b] and lambda [b] of a step's ``k``-th interpolation: functions of (seed, step, k, classes)."""
        # the interpolations of a grid lie on one line between the same two images
        place = 0 if self.mixing.lam == "grid" else k
        seed = derive(self.seed, "partners", step, place)
        partners = draw_partners(classes, seed, self.mixing.pairing, self.mixing.classes)
        count = len(classes) if self.mixing.lam_per == "sample" else 1
        u = np.random.default_rng(derive(self.seed, "lambda", step, k)).random(count)
        return partners, np.broadcast_to(self.mixing.weight(u, k), classes.shape)

    def combine(self, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Images of mixed codes."""
        mixed = mix(first, second, lam) if self.code_range is None else mix_uniform(first, second, lam, self.code_range)
        return self.decode(mixed)

    @torch.no_grad()
    def __call__(self, images: Tensor, weights: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mixed images and their class weights, ``num_interp`` per row, followed by the real ones if ``keep_real``.

        Args:
            images: [b, 3, h, w] in [0, 1].
            weights: class weights [b, classes].
            step: the optimiser step.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise GenaugError(
                f"The autoencoder was fitted at {self.image_size} px, the batch has images of "
                f"{images.shape[-1]}x{images.shape[-2]} px. Set downstream.image_size and generator.image_size to one value."
            )
        classes = weights.argmax(dim=1).cpu().numpy()
        batches: list[Tensor] = []
        labels: list[Tensor] = []
        with torch.autocast(images.device.type, enabled=False):
            codes = self.encode(images.float())
            for k in range(self.mixing.num_interp):
                partners, lam = self.draw(classes, step, k)
                rows = torch.from_numpy(partners).to(images.device)
                share = torch.from_numpy(lam.copy()).to(codes)
                batches.append(self.combine(codes, codes[rows], share).to(images))
                labels.append(mix(weights, weights[rows], share.to(weights)))
        if self.mixing.keep_real:
            batches.append(images)
            labels.append(weights)
        return torch.cat(batches), torch.cat(labels)
