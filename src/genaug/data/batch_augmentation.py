"""Per-image augmentation of whole batches: what ``Augment.image_transform`` draws image by image, drawn for all at once.

Every image's numbers come from its own seed by a counter-based function, so batch size, workers and resumption change nothing.
Parameters are drawn as torchvision's v2 transforms draw them, and applied in the same order.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from genaug.core.seeding import uniforms
from genaug.data.augmentation import IMAGENET_MEAN_COLOUR, seeded

if TYPE_CHECKING:
    from genaug.data.augmentation import Augment

TRIES = 10  # rectangles that a random crop or erasing draws before it gives up
CROP, FLIPS, AFFINE, ERASING, NUM_UNIFORMS = 0, 22, 24, 28, 50  # where each part's numbers begin among an image's


class BatchAugment:
    """``transform(images, seeds)``: uint8 [b, 3, size, size] to the same on their device, each image by its own seed."""

    def __init__(self, config: "Augment"):
        self.config = config
        policies: dict[str, v2.Transform] = {
            "randaugment": v2.RandAugment(config.randaugment_num_ops, config.randaugment_magnitude),
            "trivialaugment": v2.TrivialAugmentWide(),
        }
        self.policy = policies.get(config.policy)

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        config, u = self.config, uniforms(seeds, NUM_UNIFORMS)
        if config.crop_min_area < 1:
            images = resized_crops(images, *crop_boxes(u[:, CROP:], images.shape[-1], config.crop_min_area))
        for column, (prob, axis) in enumerate(((config.horizontal_flip_prob, -1), (config.vertical_flip_prob, -2))):
            if prob > 0:
                flipped = torch.from_numpy(u[:, FLIPS + column] < prob)[:, None, None, None].to(images.device)
                images = torch.where(flipped, images.flip(axis), images)
        if config.rotation > 0 or config.shift > 0 or config.zoom > 0:
            side = images.shape[-1]
            angle, x, y, zoom = (2 * u[:, AFFINE : AFFINE + 4] - 1).T
            shifts = np.round(np.stack([x, y], 1) * config.shift * side)
            images = affine(images, angle * config.rotation, shifts, 1 + zoom * config.zoom, config.interpolation)
        if self.policy is not None:
            images = torch.stack([self._by_policy(image, seed) for image, seed in zip(images, seeds, strict=True)])
        if config.erasing_prob > 0:
            images = erased(images, *erasing_boxes(u[:, ERASING:], images.shape[-1], config.erasing_prob))
        return images

    def _by_policy(self, image: Tensor, seed: int) -> Tensor:
        assert self.policy is not None
        with seeded(seed):
            return self.policy(image)


def crop_boxes(u: np.ndarray, side: int, min_area: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (left, top) and sizes (width, height), int64 [b, 2] each, as ``RandomResizedCrop`` draws them.

    The first of ten rectangles that fits is taken: area uniform in [``min_area``, 1] of the image's, logarithm of the aspect
    uniform between 3/4 and 4/3; the whole image where none fits.

    Args:
        u: float [b, 22 or more] in [0, 1).
    """
    tries = u[:, : 2 * TRIES].reshape(len(u), TRIES, 2)
    area = side**2 * (min_area + (1 - min_area) * tries[:, :, 0])
    aspect = np.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * tries[:, :, 1])
    sizes = np.stack([np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))], axis=2).astype(np.int64)
    fits = np.all((sizes > 0) & (sizes <= side), axis=2)
    size = np.where(np.any(fits, axis=1)[:, None], sizes[np.arange(len(u)), fits.argmax(1)], side)
    corners = np.floor(u[:, 2 * TRIES : 2 * TRIES + 2] * (side - size + 1)).astype(np.int64)
    return corners, size


def resized_crops(images: Tensor, corners: np.ndarray, sizes: np.ndarray) -> Tensor:
    """Each image's rectangle at the full size again, bilinear; pixels beyond the rectangle are not read."""
    side = images.shape[-1]
    places = (np.arange(side) + 0.5) / side
    inside = places * sizes[:, :, None] - 0.5  # [b, 2, side]: in the rectangle's pixels
    pixels = corners[:, :, None] + inside.clip(0, sizes[:, :, None] - 1)
    x, y = torch.from_numpy((2 * pixels + 1) / side - 1).float().to(images.device).unbind(1)
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=3)
    return _sampled(images, grid, "bilinear")


def affine(images: Tensor, angles: np.ndarray, shifts: np.ndarray, zooms: np.ndarray, interpolation: str) -> Tensor:
    """Each image turned clockwise about its centre, scaled and shifted, black where nothing is left.

    Args:
        angles: degrees [b].
        shifts: pixels to the right and down [b, 2].
        zooms: factors [b].
        interpolation: ``nearest`` or ``bilinear``.
    """
    side = images.shape[-1]
    cosine, sine = np.cos(np.radians(angles)) / zooms, np.sin(np.radians(angles)) / zooms
    x, y = (-2 * shifts / side).T
    backwards = np.stack([cosine, sine, cosine * x + sine * y, -sine, cosine, cosine * y - sine * x], axis=1)
    theta = torch.from_numpy(backwards.reshape(-1, 2, 3)).float().to(images.device)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return _sampled(images, grid, interpolation)


def erasing_boxes(u: np.ndarray, side: int, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners and sizes as ``crop_boxes``, of rectangles that are erased, as ``RandomErasing`` draws them; size 0 for none.

    Args:
        u: float [b, 22 or more] in [0, 1).
    """
    tries = u[:, 1 : 2 * TRIES - 1].reshape(len(u), TRIES - 1, 2)
    area = side**2 * (0.02 + (0.33 - 0.02) * tries[:, :, 0])
    aspect = np.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * tries[:, :, 1])
    sizes = np.stack([np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))], axis=2).astype(np.int64)
    fits = np.all(sizes < side, axis=2)
    chosen = np.any(fits, axis=1) & (u[:, 0] < prob)
    size = np.where(chosen[:, None], sizes[np.arange(len(u)), fits.argmax(1)], 0)
    corners = np.floor(u[:, 2 * TRIES : 2 * TRIES + 2] * (side - size + 1)).astype(np.int64)
    return corners, size


def erased(images: Tensor, corners: np.ndarray, sizes: np.ndarray) -> Tensor:
    """Each image with its rectangle in ImageNet's mean colour."""
    places = np.arange(images.shape[-1])
    x, y = ((places >= corners[:, :, None]) & (places < (corners + sizes)[:, :, None])).transpose(1, 0, 2)
    inside = torch.from_numpy(y[:, :, None] & x[:, None, :])[:, None].to(images.device)
    colour = torch.tensor(IMAGENET_MEAN_COLOUR, dtype=torch.uint8, device=images.device)
    return torch.where(inside, colour[:, None, None], images)


def _sampled(images: Tensor, grid: Tensor, interpolation: str) -> Tensor:
    values = functional.grid_sample(images.float(), grid, mode=interpolation, padding_mode="zeros", align_corners=False)
    return values.round_().to(torch.uint8)
