"""From samples with boxes to batches: aspect ratio kept, boxes moved along, each step a pure function of its number."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform

from genaug.core.seeding import choice, uniform
from genaug.core.store import Store
from genaug.data.augmentation import CopyPaste, seeded
from genaug.data.geometry import Letterbox
from genaug.data.mixing import Draw, Stream
from genaug.data.sample import Sample
from genaug.downstream.decoded import Rows, distinct
from genaug.downstream.detection.copy_paste import Example, copy_paste

MEMORY_LIMIT = 2**30  # bytes of decoded masks that are kept in memory; others are decoded when they are drawn
HEAD = 8  # bytes: width and height of a picture in front of its scaled pixels
MIN_SIDE = 2.0  # pixels at training size: smaller boxes are not learned from, whether augmentation made them so or not
MOSAIC_DRAWS = 2**31


class BoxedImages:
    """Pictures at training size: scaled so that the longer side is ``size``.

    Args:
        size: in pixels.
        samples: those whose pictures are decoded once, for all runs that share ``store``; any other is each time.
        store: where they are kept; None keeps none.
    """

    def __init__(self, size: int, samples: Sequence[Sample] = (), store: Store | None = None):
        self.size = size
        once, self.numbers = distinct(samples)
        self.rows = Rows(once, f"{size}-boxes", HEAD + 3 * size * size, self._row, store) if store is not None else None
        self.masks: dict[str, np.ndarray] = {}
        self.bytes = 0

    def geometry(self, width: int, height: int) -> Letterbox:
        return Letterbox(width, height, self.size, self.size)

    def _row(self, sample: Sample) -> np.ndarray:
        """uint8: width and height of the picture, then its scaled pixels, [h, w, 3]."""
        image = sample.open()
        scaled = self.geometry(*image.size).scale_image(image, Image.Resampling.BILINEAR)
        return np.concatenate([np.array(image.size, "<u4").view(np.uint8), np.asarray(scaled).ravel()])

    def pixels(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [h, w, 3] of the scaled image, and its scales x and y."""
        number = self.numbers.get(sample.id)
        row = self._row(sample) if self.rows is None or number is None else self.rows.read(np.array([number]))[0]
        geometry = self.geometry(*row[:HEAD].view("<u4").tolist())
        width, height = geometry.inner
        return row[HEAD : HEAD + 3 * width * height].reshape(height, width, 3), geometry.scales

    def mask(self, sample: Sample) -> Tensor | None:
        """The object mask of a sample at the size of its pixels, bool [h, w]; None where it has none."""
        if sample.id in self.masks:
            return torch.from_numpy(self.masks[sample.id].copy())
        mask = sample.read_mask()
        if mask is None:
            return None
        height, width = self.pixels(sample)[0].shape[:2]
        scaled = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        self.bytes += scaled.nbytes
        if self.bytes <= MEMORY_LIMIT:
            self.masks[sample.id] = scaled
        return torch.from_numpy(scaled.copy())

    def example(self, sample: Sample) -> Example:
        """Image, boxes (float32 [n, 4]: left, top, right, bottom) and labels of a sample; crowd regions are not in it."""
        pixels, scales = self.pixels(sample)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        if sample.boxes is None:
            return image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        kept = ~sample.boxes.crowd
        boxes = torch.from_numpy(sample.boxes.xyxy[kept] * np.tile(scales, 2).astype(np.float32))
        return image, boxes, torch.from_numpy(sample.boxes.labels[kept])


def transformed(example: Example, transform: Transform | None, seed: int) -> Example:
    """The example after box-aware augmentation, if any; boxes below ``MIN_SIDE`` are dropped."""
    image, boxes, labels = example
    if transform is not None:
        wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(image.shape[-2:]))  # type: ignore[arg-type]
        with seeded(seed):
            image, boxes = transform(tv_tensors.Image(image), wrapped)
        image, boxes = torch.as_tensor(image), torch.as_tensor(boxes)
        height, width = image.shape[-2:]
        limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limit)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
    return image, boxes[kept], labels[kept]


def mosaic(examples: Sequence[Example], size: int, centre: tuple[float, float]) -> Example:
    """Four examples around a point of a [3, size, size] canvas: each keeps the corner that touches the point.

    Args:
        centre: the point as shares of the side, x and y.
    """
    canvas = torch.full((3, size, size), 114, dtype=torch.uint8)  # the grey of the reference implementations
    cx, cy = round(centre[0] * size), round(centre[1] * size)
    all_boxes, all_labels = [], []
    for place, (image, boxes, labels) in enumerate(examples):
        height, width = image.shape[-2:]
        left = cx - width if place % 2 == 0 else cx
        top = cy - height if place < 2 else cy
        low_x, high_x = (0, cx) if place % 2 == 0 else (cx, size)
        low_y, high_y = (0, cy) if place < 2 else (cy, size)
        x1, y1, x2, y2 = max(left, low_x), max(top, low_y), min(left + width, high_x), min(top + height, high_y)
        if x2 > x1 and y2 > y1:
            canvas[:, y1:y2, x1:x2] = image[:, y1 - top : y2 - top, x1 - left : x2 - left]
            moved = boxes + torch.tensor([left, top, left, top])
            lower, upper = torch.tensor([x1, y1, x1, y1]), torch.tensor([x2, y2, x2, y2])
            all_boxes.append(torch.minimum(torch.maximum(moved, lower), upper).float())
            all_labels.append(labels)
    if not all_boxes:
        return canvas, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    return canvas, torch.cat(all_boxes), torch.cat(all_labels)


class BoxedBatches(Dataset):
    """Batch number ``step`` of a stream: a list of images and a list of targets ``{"boxes", "labels"}``.

    Training with a global batch of B makes step s of the draws B·s … B·(s+1) - 1; each of several devices takes its share.
    """

    def __init__(
        self,
        stream: Stream,
        images: BoxedImages,
        batch_size: int,
        first_label: int,
        transform: Transform | None = None,
        mosaic_prob: float = 0.0,
        paste: CopyPaste | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.stream, self.images, self.transform, self.mosaic_prob = stream, images, transform, mosaic_prob
        self.paste = paste
        self.batch_size, self.first_label, self.rank, self.num_ranks = batch_size, first_label, rank, num_ranks

    def example(self, draw: Draw) -> Example:
        """One augmented training example; the mosaic's other three are further draws of the same mix."""
        example = self.images.example(draw.sample)
        seed = draw.augment_seed
        if self.paste is not None and uniform(seed, "copy-paste") < self.paste.paste_prob:
            source = self.stream.mix.lender(self.stream, seed)
            mask, source_mask = self.images.mask(draw.sample), self.images.mask(source)
            pasted = self.images.example(source)
            example = copy_paste(example, mask, pasted, source_mask, self.paste.min_visible, seed)
        if self.mosaic_prob > 0 and uniform(seed, "mosaic") < self.mosaic_prob:
            others = [self.stream[choice(MOSAIC_DRAWS, seed, "mosaic", i)].sample for i in range(3)]
            parts = [example, *(self.images.example(sample) for sample in others)]
            centre = (0.25 + 0.5 * uniform(seed, "mosaic x"), 0.25 + 0.5 * uniform(seed, "mosaic y"))
            example = mosaic(parts, self.images.size, centre)
        return transformed(example, self.transform, seed)

    def __getitem__(self, step: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        first = step * self.batch_size
        draws = [self.stream[d] for d in range(first + self.rank, first + self.batch_size, self.num_ranks)]
        examples = [self.example(draw) for draw in draws]
        targets = [{"boxes": boxes, "labels": labels + self.first_label} for _, boxes, labels in examples]
        return [image for image, _, _ in examples], targets
