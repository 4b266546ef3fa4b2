"""A variant's frame: the scaled source, its boxes, and the mask that says what is regenerated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from PIL import Image
from torch import Tensor

from genaug.core.seeding import derive
from genaug.data.geometry import Letterbox, bucket
from genaug.data.sample import Boxes, Sample
from genaug.generators.base import Variant
from genaug.generators.labelling.pixel_boxes import PixelBox, grow, union
from genaug.generators.psld import masks
from genaug.generators.psld.config import Masking, Psld


@dataclass(slots=True, eq=False)
class Frame:
    """One variant, ready to be sampled."""

    variant: Variant
    geometry: Letterbox
    source: np.ndarray
    """uint8 [h, w, 3]: the scaled source without padding."""
    boxes: Boxes | None
    """In pixels of ``source``."""
    inside: np.ndarray
    """K, bool [h, w]."""
    kept: np.ndarray
    """The boxes themselves, bool [h, w]."""
    mask: np.ndarray
    """M, float32 [h, w], 1 = known."""
    mask_type: str
    mask_seed: int
    rejected: str | None
    """Why there is nothing to sample."""


def make_frame(config: Psld, variant: Variant, size: int, multiple: int) -> Frame:
    """Scale the source into its frame and draw its mask.

    Args:
        size: the prior's image size in pixels.
        multiple: what frame sides must be multiples of.
    """
    framing, masking = config.frame, config.masking
    picture = variant.source.open()
    if framing.resize == "square":
        picture = picture.resize((size, size), Image.Resampling.NEAREST)
        scale = np.asarray([size / n for n in variant.source.open().size] * 2)
    else:
        scale = np.ones(4)
    frame_size = bucket(*picture.size, size, multiple) if framing.resize == "bucket" else (size, size)
    geometry = Letterbox(*picture.size, *frame_size)
    source = np.asarray(geometry.scale_image(picture))
    if framing.minmax_stretch:
        low, high = int(source.min()), int(source.max())
        source = ((source.astype(np.float64) - low) / max(high - low, 1) * 255).round().astype(np.uint8)
    boxes = _scaled_boxes(variant.source, geometry, scale)
    height, width = source.shape[:2]
    of_source = variant.fingerprint if masking.per_copy else f"{variant.source.digest} {config.seed}"
    seed = derive(of_source, "mask")
    pixel_boxes = (
        []
        if boxes is None
        else [grow(box, width, height, masking.margin, masking.reference_edge) for box in boxes.xyxy]
    )
    kept = union([] if boxes is None else [grow(box, width, height, 0) for box in boxes.xyxy], width, height)
    inside = union(pixel_boxes, width, height)
    mask_type = config.mask
    rejected = None
    if (
        mask_type in masks.BOX_AWARE
        and not inside.any()
        and not (mask_type == "keep_object" and variant.source.mask is not None)
    ):
        if masking.without_boxes == "reject":
            rejected = "no_boxes"
        mask_type = "center_box" if masking.without_boxes == "reject" else masking.without_boxes
    mask = draw_mask(masking, mask_type, variant.source, inside, pixel_boxes, geometry, np.random.default_rng(seed))
    if mask_type == "keep_object":
        inside = inside | (mask > 0.5)
    if rejected is None and float((mask < 0.5).mean()) < masking.min_editable:
        rejected = "no_editable_area"
    return Frame(variant, geometry, source, boxes, inside, kept, mask, mask_type, seed, rejected)


def _scaled_boxes(sample: Sample, geometry: Letterbox, scale: np.ndarray) -> Boxes | None:
    if sample.boxes is None:
        return None
    xyxy = geometry.scale_boxes(sample.boxes.xyxy * scale).astype(np.float32)
    return Boxes(xyxy=xyxy, labels=sample.boxes.labels, crowd=sample.boxes.crowd)


def draw_mask(
    masking: Masking,
    mask_type: str,
    sample: Sample,
    inside: np.ndarray,
    boxes: Sequence[PixelBox],
    geometry: Letterbox,
    rng: np.random.Generator,
) -> np.ndarray:
    """M of one image: float32 [h, w]."""
    height, width = inside.shape
    if mask_type == "outpainting":
        return masks.outpainting(inside)
    if mask_type == "random_outpainting":
        return masks.random_outpainting(inside, rng, masking.mu, masking.sigma)
    if mask_type == "random_entirepainting":
        return masks.random_entirepainting(inside, rng, masking.mu, masking.sigma)
    if mask_type == "random_erasing_ore":
        return masks.random_erasing_ore(boxes, width, height, rng, (masking.erase_range[0], masking.erase_range[1]))
    if mask_type == "keep_object":
        return masks.outpainting(object_pixels(sample, geometry, masking.margin) if sample.mask is not None else inside)
    if mask_type == "box":
        return masks.box(width, height, rng, masking.hole_share)
    if mask_type == "extreme":
        return masks.extreme(width, height, rng, masking.hole_share)
    if mask_type == "center_box":
        return masks.center_box(width, height, masking.hole_share)
    if mask_type == "random":
        return masks.random(width, height, rng, masking.random_range[0], masking.random_range[1])
    return masks.free_form(width, height, rng)


def object_pixels(sample: Sample, geometry: Letterbox, margin: int) -> np.ndarray:
    """The object's pixels and ``margin`` around them in the scaled image: bool [h, w]."""
    pixels = sample.read_mask()
    assert pixels is not None
    picture = Image.fromarray(pixels.astype(np.uint8))
    small = np.asarray(picture.resize(geometry.inner, Image.Resampling.NEAREST)) > 0
    away = scipy.ndimage.distance_transform_edt(~small)
    assert isinstance(away, np.ndarray)
    return away <= margin if small.any() else small


def image_tensor(pixels: np.ndarray, geometry: Letterbox) -> Tensor:
    """float32 [3, H, W] in [-1, 1]; padding is mid-grey."""
    values = pixels.astype(np.float32) / 127.5 - 1
    return torch.from_numpy(geometry.into_frame(values)).permute(2, 0, 1)


def mask_tensor(frame: Frame) -> Tensor:
    """float32 [1, H, W]; padding counts as known."""
    return torch.from_numpy(frame.geometry.into_frame(frame.mask, fill=1.0))[None]


def fill_hole(image: Tensor, mask: Tensor, how: str) -> Tensor:
    """The hole filled with the mean of the known pixels, or with the nearest one."""
    known = mask[0] > 0.5
    if not known.any():
        return torch.zeros_like(image)
    if how == "mean":
        return torch.where(known, image, image[:, known].mean(1)[:, None, None])
    _, places = scipy.ndimage.distance_transform_edt(~known.numpy(), return_indices=True)  # type: ignore[misc]
    return image[:, torch.from_numpy(places[0]).long(), torch.from_numpy(places[1]).long()]
