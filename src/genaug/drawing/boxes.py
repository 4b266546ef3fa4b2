"""Boxes drawn over pictures: contact sheets of detection data, and detections beside the truth."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from genaug.data.detections import Detections
from genaug.data.sample import Sample
from genaug.drawing.pen import pen_on

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#008080")
CROWD = "#808080"
CELL, MARGIN, CAPTION = 160, 4, 14


def draw_boxes(
    picture: Image.Image, boxes: Sequence[Sequence[float]], colours: Sequence[str], scale: float, dashed: bool = False
) -> None:
    """Outline boxes on a picture that shows an image ``scale`` times enlarged."""
    pen = ImageDraw.Draw(picture)
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        left, top, right, bottom = (round(value * scale) for value in (x1, y1, x2, y2))
        right, bottom = max(right - 1, left), max(bottom - 1, top)
        if not dashed:
            pen.rectangle((left, top, right, bottom), outline=colour)
            continue
        for x in range(left, right, 4):
            pen.line([(x, top), (min(x + 1, right), top)], fill=colour)
            pen.line([(x, bottom), (min(x + 1, right), bottom)], fill=colour)
        for y in range(top, bottom, 4):
            pen.line([(left, y), (left, min(y + 1, bottom))], fill=colour)
            pen.line([(right, y), (right, min(y + 1, bottom))], fill=colour)


def draw_annotation(picture: Image.Image, sample: Sample, scale: float) -> None:
    """Outline the boxes of a sample, one colour per class, crowd regions grey."""
    if sample.boxes is None:
        return
    crowd = sample.boxes.crowd
    colours = [CROWD if c else COLOURS[int(i) % len(COLOURS)] for i, c in zip(sample.boxes.labels, crowd, strict=True)]
    draw_boxes(picture, sample.boxes.xyxy.tolist(), colours, scale)


def detection_sheet(shown: Sequence[tuple[Sample, Detections]], class_names: Sequence[str]) -> Image.Image:
    """Pairs of pictures: the truth, and beside it what was detected (dashed, one colour per class)."""
    columns = 4
    rows = -(-len(shown) // columns)
    width, height = 2 * CELL + 3 * MARGIN, CELL + CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * width, CAPTION + rows * height), "white")
    pen = pen_on(sheet)
    left = MARGIN
    for i, name in enumerate(class_names[:12]):
        pen.text((left, 0), name, fill=COLOURS[i % len(COLOURS)])
        left += 8 + int(pen.textlength(name))
    for number, (sample, predicted) in enumerate(shown):
        x, y = (number % columns) * width + MARGIN, CAPTION + (number // columns) * height
        image = sample.open()
        scale = CELL / max(image.size)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
        truth, found = image.copy(), image
        draw_annotation(truth, sample, scale)
        colours = [COLOURS[label % len(COLOURS)] for label in predicted.labels.tolist()]
        draw_boxes(found, predicted.xyxy.tolist(), colours, scale, dashed=True)
        pen.text((x, y), f"{sample.id[-18:]}  |  {len(predicted.labels)} found", fill="black")
        sheet.paste(truth, (x, y + CAPTION))
        sheet.paste(found, (x + CELL + MARGIN, y + CAPTION))
    return sheet
