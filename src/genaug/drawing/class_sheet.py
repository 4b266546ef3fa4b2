"""Real images of each class, a row per class, with their labels or boxes: for a look at a data set."""

from collections.abc import Sequence

from PIL import Image

from genaug.data.sample import Dataset, Sample
from genaug.data.summary import short
from genaug.drawing.boxes import COLOURS, draw_annotation
from genaug.drawing.pen import pen_on

CELL, CAPTION, GAP = 96, 14, 4
PER_CLASS, MOST_CLASSES = 8, 40


def class_sheet(dataset: Dataset) -> Image.Image:
    """The first training images of each of the first classes; boxes in the colour of their class, crowd regions grey."""
    groups = dataset.train_by_class()
    rows = [(i, group[:PER_CLASS]) for i, group in enumerate(groups) if group][:MOST_CLASSES]
    size = (PER_CLASS * (CELL + GAP) + GAP, len(rows) * (CELL + CAPTION + GAP) + GAP)
    sheet = Image.new("RGB", (size[0], max(size[1], 1)), "white")
    pen = pen_on(sheet)
    for row, (index, samples) in enumerate(rows):
        top = GAP + row * (CELL + CAPTION + GAP)
        colour = COLOURS[index % len(COLOURS)] if dataset.task == "detection" else "black"
        images = "1 image" if len(groups[index]) == 1 else f"{len(groups[index])} images"
        pen.text((GAP, top), f"{short(dataset.class_names[index])} ({images})", fill=colour)
        _row(sheet, samples, top + CAPTION)
    return sheet


def _row(sheet: Image.Image, samples: Sequence[Sample], top: int) -> None:
    for column, sample in enumerate(samples):
        picture = sample.open()
        scale = CELL / max(picture.size)
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
        draw_annotation(picture, sample, scale)
        sheet.paste(picture, (GAP + column * (CELL + GAP), top))
