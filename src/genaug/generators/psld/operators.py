"""Linear measurement operators A of inverse problems y = A x, on images [b, 3, h, w].

Each gives ``apply`` (A), ``adjoint`` (A^T, exact) and ``pseudo_inverse`` (A^+) where one exists that is stable.
``merge(x, y) = A^+ y + x - A^+ A x`` is the nearest image to x that explains y: the gluing term and the hard projection
of PSLD need it. The reference takes A^T in its place; that is a projection for a mask alone (0/1, so A = A^T = A^+).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.core.errors import GenaugError
from genaug.generators.psld.config import Measurement


class Operator:
    """A linear map of images; the adjoint comes from automatic differentiation, so it is exact for every A."""

    name = "operator"

    def apply(self, x: Tensor) -> Tensor:
        """A x."""
        raise AssertionError(f"{type(self).__name__} has no A")

    def adjoint(self, y: Tensor, shape: torch.Size) -> Tensor:
        """A^T y for images of ``shape``: the gradient of <A x, y> with respect to x."""
        with torch.enable_grad():
            x = torch.zeros(shape, dtype=y.dtype, device=y.device, requires_grad=True)
            return torch.autograd.grad((self.apply(x) * y).sum(), x)[0]

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A^+ y, with A A^+ A = A.

        Raises:
            GenaugError: if there is none that is stable.
        """
        raise GenaugError(
            f"The operator {self.name} has no stable pseudo-inverse: PSLD's gluing term and projection are not defined for it. "
            "Write generator.solver.gamma=0 (the measurement term alone), or generator.measurement.heuristic_gluing=true for "
            "the released code's A^T = identity."
        )

    def merge(self, x: Tensor, y: Tensor) -> Tensor:
        """x* = A^+ y + x - A^+ A x, which explains y whatever x is."""
        return self.pseudo_inverse(y) + x - self.pseudo_inverse(self.apply(x))

    def num_measured(self, y: Tensor) -> Tensor:
        """Number of measured values per sample, float [b]."""
        return torch.full((len(y),), float(y[0].numel()), dtype=y.dtype, device=y.device)


class Inpainting(Operator):
    """A = A^T = A^+ = M: box, free-form and random-dropout inpainting alike.

    Args:
        mask: M, 0/1, [b, 1, h, w] or [1, 1, h, w]; 1 = known.
        identity_adjoint: take A^T = identity in ``merge``, as the released code does: x* = y + x - M x. The same where y is
            masked; with noise everywhere on y, x* then has its grain in the hole.
    """

    name = "inpainting"

    def __init__(self, mask: Tensor, identity_adjoint: bool = False):
        self.mask, self.identity_adjoint = mask, identity_adjoint

    def apply(self, x: Tensor) -> Tensor:
        return self.mask * x

    def adjoint(self, y: Tensor, shape: torch.Size) -> Tensor:
        return self.mask * y

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.mask * y

    def merge(self, x: Tensor, y: Tensor) -> Tensor:
        known = y if self.identity_adjoint else self.mask * y
        return known + (1 - self.mask) * x

    def num_measured(self, y: Tensor) -> Tensor:
        return y.shape[1] * self.mask.expand(len(y), *self.mask.shape[1:]).flatten(1).sum(1)


class SuperResolution(Operator):
    """Anti-aliased bicubic reduction by ``factor``: small matrices for rows and columns, and so is the pseudo-inverse.

    Args:
        heuristic_gluing: take the nearest-neighbour enlargement for A^T in ``merge``, as the released code does; no projection.
    """

    name = "super_resolution"

    def __init__(
        self,
        height: int,
        width: int,
        factor: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        heuristic_gluing: bool = False,
    ):
        self.factor, self.heuristic_gluing = factor, heuristic_gluing
        if height < 2 * factor or width < 2 * factor:
            raise GenaugError(f"An image of {width} x {height} pixels is too small for super-resolution by {factor}.")
        if height % factor or width % factor:
            raise GenaugError(f"{width} x {height} pixels are not multiples of the super-resolution factor {factor}.")
        reduce = [_reduction(size, factor) for size in (height, width)]
        self.rows, self.columns = (matrix.to(dtype=dtype, device=device) for matrix in reduce)
        self.rows_inverse, self.columns_inverse = (torch.linalg.pinv(m).to(dtype=dtype, device=device) for m in reduce)

    def apply(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.T

    def adjoint(self, y: Tensor, shape: torch.Size) -> Tensor:
        return self.rows.T @ y @ self.columns

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.rows_inverse @ y @ self.columns_inverse.T

    def merge(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.heuristic_gluing:
            return Operator.merge(self, x, y)
        enlarged = lambda small: F.interpolate(small, scale_factor=self.factor, mode="nearest")
        return enlarged(y) + x - enlarged(self.apply(x))


def _reduction(size: int, factor: int) -> Tensor:
    """float64 [size / factor, size]: what bicubic reduction does to a line."""
    lines = torch.eye(size, dtype=torch.float64).view(1, size, size, 1).expand(1, size, size, 8)
    small = F.interpolate(lines, size=(size // factor, 8), mode="bicubic", antialias=True, align_corners=False)
    return small[0, :, :, 0].T.contiguous()


class Blur(Operator):
    """Convolution with a kernel over mirrored borders.

    Args:
        kernel: [k, k], odd k, summing to 1.
        heuristic_gluing: take A^T = identity in ``merge``, as the reference does: x* = y + x - A x, no projection.
    """

    def __init__(self, kernel: Tensor, name: str, heuristic_gluing: bool = False):
        self.kernel, self.name, self.heuristic_gluing = kernel, name, heuristic_gluing

    def apply(self, x: Tensor) -> Tensor:
        pad = len(self.kernel) // 2
        if min(x.shape[-2:]) <= pad:
            raise GenaugError(
                f"An image of {x.shape[-1]} x {x.shape[-2]} pixels is too small for a kernel of {len(self.kernel)}."
            )
        weight = self.kernel.to(x).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(F.pad(x, [pad] * 4, mode="reflect"), weight, groups=x.shape[1])

    def merge(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.heuristic_gluing:
            return Operator.merge(self, x, y)
        return y + x - self.apply(x)


def gaussian_blur(sigma: float = 3.0, heuristic_gluing: bool = False) -> Blur:
    """Gaussian blur; the reference has sigma 3 and a kernel of 121 at 512 px. This kernel reaches 3 sigma."""
    size = 2 * math.ceil(3 * sigma) + 1
    line = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / sigma) ** 2)
    line = line / line.sum()
    return Blur(torch.outer(line, line), "gaussian_blur", heuristic_gluing)


def motion_blur(length: int = 9, angle: float = 0.0, heuristic_gluing: bool = False) -> Blur:
    """Blur along a straight line of ``length`` pixels (odd) at ``angle`` degrees."""
    size = length | 1
    kernel = torch.zeros(size, size, dtype=torch.float64)
    for step in torch.linspace(-(size // 2), size // 2, 8 * size, dtype=torch.float64).tolist():
        x = size // 2 + step * math.cos(math.radians(angle))
        y = size // 2 - step * math.sin(math.radians(angle))
        kernel[round(y), round(x)] += 1
    return Blur(kernel / kernel.sum(), "motion_blur", heuristic_gluing)


def make_operator(measurement: Measurement, mask: Tensor) -> Operator:
    """A of the task; ``mask`` is M [b, 1, h, w]."""
    height, width = mask.shape[-2:]
    if measurement.operator == "super_resolution":
        return SuperResolution(height, width, measurement.factor, mask.dtype, mask.device, measurement.heuristic_gluing)
    if measurement.operator == "gaussian_blur":
        return gaussian_blur(measurement.blur_sigma, heuristic_gluing=measurement.heuristic_gluing)
    if measurement.operator == "motion_blur":
        return motion_blur(measurement.blur_length, measurement.blur_angle, measurement.heuristic_gluing)
    return Inpainting(mask, identity_adjoint=measurement.noise_everywhere)
