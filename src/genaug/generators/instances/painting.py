"""Painting objects again, for one object after the other, from the largest to the smallest (arXiv 2406.08249, section 3):

crop        x_k = x[box grown by its context], m_k = the object's mask in it
inpaint     g_k = pipeline(x_k, grown m_k, "a photo of the class")
blend       x <- b_k g_k + (1 - b_k) x,   b_k = G5 * dilate(m_k)

G5 is the binomial filter of 5 pixels, dilate the 5 x 5 ellipse. Where b_k is 0 the image stays the source's, bit for bit.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy
from PIL import Image

from genaug.core.identity import fingerprint
from genaug.data.masks import object_masks
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.instances.config import InstanceAugmentation
from genaug.generators.labelling.finish import Finish, scaled
from genaug.generators.pipeline import images

BINOMIAL = np.asarray([1, 4, 6, 4, 1]) / 16
"""What OpenCV takes for a Gaussian of 5 pixels."""
ELLIPSE = np.asarray([[0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], dtype=bool)
"""OpenCV's ellipse of 5 pixels."""


def painted(
    config: InstanceAugmentation,
    variants: Sequence[Variant],
    dataset: Dataset,
    finish: Finish,
    device: str,
    fitted: Path | None = None,
) -> Iterator[Generated]:
    """The image of every variant, at its source's size; ``fitted`` is the folder that ``fit`` wrote."""
    wanted = [variant for variant in variants if variant.draws["objects"]]
    for variant in variants:
        if not variant.draws["objects"]:
            yield Generated(
                variant=variant, image=variant.source.open(), boxes=variant.source.boxes, rejected="no_object"
            )
    pipe = images.load(config, device, fitted) if wanted else None
    for variant in wanted:
        picture = np.asarray(variant.source.open())
        changed = np.zeros(picture.shape[:2], dtype=bool)
        masks = object_masks(variant.source)
        for number, place in enumerate(variant.draws["objects"]):
            part = crop_of(variant.source, place, masks[place], picture, config.context)
            if part is None:
                continue
            (x1, y1, x2, y2), sample = part
            own = _variant(variant, number, place, sample)
            drawn = variant.draws["guidances"]
            settings = dataclasses.replace(config, guidance=drawn[number]) if drawn else config
            (found,) = images.call(pipe, settings, [own], dataset)
            edited = np.asarray(scaled(found.convert("RGB"), (x2 - x1, y2 - y1)))
            weights = blend_weights(masks[place])[y1:y2, x1:x2]
            picture = picture.copy()
            picture[y1:y2, x1:x2] = blend(picture[y1:y2, x1:x2], edited, weights)
            changed[y1:y2, x1:x2] |= weights > 0
        about = {"pipeline": type(pipe).__name__, "dtype": config.dtype}
        yield finish.image(variant, Image.fromarray(picture), changed, about)


def crop_of(
    source: Sample, place: int, mask: np.ndarray, picture: np.ndarray, context: float
) -> tuple[tuple[int, int, int, int], Sample] | None:
    """Where the crop of an object lies (x1, y1, x2, y2), and the crop as an image with its mask; None for a box of no pixel.

    Args:
        place: of the object among the boxes.
        mask: its pixels, bool [h, w].
        picture: what the image is so far, uint8 [h, w, 3].
        context: as ``InstanceAugmentation.context``.
    """
    assert source.boxes is not None
    x1, y1, x2, y2 = (float(value) for value in source.boxes.xyxy[place])
    w, h = x2 - x1, y2 - y1
    left, top = max(int(x1 - context * w), 0), max(int(y1 - context * h), 0)
    right, bottom = min(int(x2 + context * w), picture.shape[1]), min(int(y2 + context * h), picture.shape[0])
    if right <= left or bottom <= top or not mask[top:bottom, left:right].any():
        return None
    nothing = Boxes(xyxy=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), crowd=np.zeros(0, bool))
    sample = Sample(
        id=f"{source.id}/{place}",
        digest=fingerprint(source.digest, place),
        image=np.ascontiguousarray(picture[top:bottom, left:right]),
        label={int(source.boxes.labels[place]): 1.0},
        boxes=nothing,  # a crop keeps its aspect ratio, and its mask alone says what is painted
        mask=mask[top:bottom, left:right],
    )
    return (left, top, right, bottom), sample


def blend_weights(mask: np.ndarray) -> np.ndarray:
    """b: float [h, w] of a mask bool [h, w]."""
    weights = scipy.ndimage.binary_dilation(mask, ELLIPSE).astype(np.float64)
    for axis in (0, 1):
        weights = scipy.ndimage.convolve1d(weights, BINOMIAL, axis=axis, mode="mirror")
    return weights


def blend(picture: np.ndarray, edited: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """b g + (1 - b) x in uint8 [h, w, 3], rounded to the nearest grey level; x itself where b is 0."""
    share = weights[..., None]
    return np.rint(share * edited + (1 - share) * picture).astype(np.uint8)


def _variant(variant: Variant, number: int, place: int, sample: Sample) -> Variant:
    """The crop as an image of its own, whose noise comes from the image's identity and the object's place."""
    own = {"prompt": variant.draws["prompts"][number]}
    if "strength" in variant.draws:
        own["strength"] = variant.draws["strength"]
    return Variant(source=sample, index=variant.index, draws=own, fingerprint=fingerprint(variant.fingerprint, place))
