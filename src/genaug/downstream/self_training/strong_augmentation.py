"""The strong view of self-training: RandAugment as FixMatch draws it, then Cutout (arXiv 2001.07685, appendix D).

Unlike torchvision's RandAugment, every operation draws its own magnitude uniformly from its range.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2 import functional as F

CUTOUT_COLOUR = (125, 123, 114)
FILL = [0.0]  # what rotations, shears and shifts bring in

Operation = Callable[[Tensor, float], Tensor]


def _affine(image: Tensor, **changed: Any) -> Tensor:
    neutral: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return F.affine(image, **(neutral | changed), fill=FILL)


def _degrees(slope: float) -> float:
    return float(torch.atan(torch.tensor(slope)).rad2deg())


OPERATIONS: dict[str, tuple[float, float, Operation]] = {
    "autocontrast": (0, 0, lambda image, _: F.autocontrast(image)),
    "brightness": (0.05, 0.95, F.adjust_brightness),
    "colour": (0.05, 0.95, F.adjust_saturation),
    "contrast": (0.05, 0.95, F.adjust_contrast),
    "equalize": (0, 0, lambda image, _: F.equalize(image)),
    "identity": (0, 0, lambda image, _: image),
    "posterize": (4, 8, lambda image, bits: F.posterize(image, round(bits))),
    "rotate": (-30, 30, lambda image, angle: _affine(image, angle=angle)),
    "sharpness": (0.05, 0.95, F.adjust_sharpness),
    "shear_x": (-0.3, 0.3, lambda image, slope: _affine(image, shear=[_degrees(slope), 0.0])),
    "shear_y": (-0.3, 0.3, lambda image, slope: _affine(image, shear=[0.0, _degrees(slope)])),
    "solarize": (0, 256, lambda image, threshold: F.solarize(image, min(threshold, 255.0))),
    "translate_x": (-0.3, 0.3, lambda image, share: _affine(image, translate=[round(share * image.shape[-1]), 0])),
    "translate_y": (-0.3, 0.3, lambda image, share: _affine(image, translate=[0, round(share * image.shape[-2])])),
}
"""Name: smallest and largest magnitude, and what it does to uint8 [3, h, w]."""


class StrongView(Transform):
    """``num_ops`` operations drawn with replacement, then a square of up to half the width is painted over.

    Draws from torch's random numbers alone.
    """

    def __init__(self, num_ops: int):
        super().__init__()
        self.num_ops = num_ops

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """uint8 [3, h, w] to uint8 [3, h, w]."""
        names = list(OPERATIONS)
        for _ in range(self.num_ops):
            low, high, operation = OPERATIONS[names[int(torch.randint(len(names), ()))]]
            image = operation(image, low + (high - low) * float(torch.rand(())))
        return cutout(image)


def cutout(image: Tensor) -> Tensor:
    """A square of side U(0, 0.5) times the width around a uniform point, cut at the border, in FixMatch's grey."""
    height, width = image.shape[-2:]
    share, y, x = torch.rand(3).tolist()
    half = 0.5 * share * width / 2
    top, bottom = max(round(y * height - half), 0), min(round(y * height + half), height)
    left, right = max(round(x * width - half), 0), min(round(x * width + half), width)
    image = image.clone()
    image[:, top:bottom, left:right] = torch.tensor(CUTOUT_COLOUR, dtype=image.dtype)[:, None, None]
    return image
