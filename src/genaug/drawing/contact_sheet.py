"""Contact sheets: real sources on the left, their variants in a row, boxes drawn where there are some."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, by_class
from genaug.drawing.boxes import draw_annotation
from genaug.drawing.pen import pen_on

MARGIN, CAPTION, LINE = 4, 26, 12


def contact_sheet(
    pool: Pool, dataset: Dataset, num_sources: int = 10, num_variants: int = 8, cell: int = 80
) -> Image.Image:
    """A PNG-ready sheet of ``num_sources`` training images, spread over the classes, and their first variants.

    Args:
        cell: side of each picture in pixels.
    """
    groups = pool.by_source()
    with_variants = [sample for sample in dataset.train if sample.id in groups]
    if with_variants and with_variants[0].label:
        spread = [group for group in by_class(with_variants, len(dataset.class_names)) if group]
        depth = max((len(group) for group in spread), default=0)
        with_variants = [group[i] for i in range(depth) for group in spread if i < len(group)]
    rows: list[tuple[str, Sequence[Sample]]] = [
        (_title(source, dataset), [source, *groups[source.id][:num_variants]]) for source in with_variants[:num_sources]
    ]
    columns = max((len(samples) for _, samples in rows), default=1)
    width = MARGIN + columns * (cell + MARGIN) + MARGIN
    height = MARGIN + len(rows) * (cell + CAPTION + MARGIN)
    sheet = Image.new("RGB", (width, max(height, 1)), "white")
    pen = pen_on(sheet)
    for row, (title, samples) in enumerate(rows):
        top = MARGIN + row * (cell + CAPTION + MARGIN)
        for column, sample in enumerate(samples):
            left = MARGIN + column * (cell + MARGIN) + (MARGIN if column else 0)
            picture = sample.open()
            enlarged = cell / max(picture.size)
            picture.thumbnail((cell, cell)) if max(picture.size) > cell else None
            scale = cell / max(picture.size)
            picture = picture.resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.NEAREST
            )
            draw_annotation(picture, sample, enlarged)
            sheet.paste(picture, (left, top + CAPTION))
            lines = (title, "real") if column == 0 else (label_text(sample, dataset.class_names), caption(sample))
            colour = "#a00000" if getattr(sample, "about", {}).get("rejected") else "black"
            for line, text in enumerate(lines):
                pen.text((left, top + line * LINE), _fitting(pen, text, cell), fill=colour)
    return sheet


def _fitting(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, its end cut off where it is wider than ``width`` pixels."""
    while text and pen.textlength(text) > width:
        text = text[:-1]
    return text


def _title(sample: Sample, dataset: Dataset) -> str:
    return dataset.class_names[sample.class_index] if sample.label else Path(sample.id).name


def caption(sample: Sample) -> str:
    """What was drawn for a variant, and why it is rejected where it is."""
    rejected = getattr(sample, "about", {}).get("rejected")
    return ", ".join(filter(None, (drawn(sample), rejected and f"rejected: {rejected}")))


def drawn(sample: Sample) -> str:
    """What was drawn for a variant (level, noise, mask, weight), and its second source."""
    about = getattr(sample, "about", {})
    parts = []
    for key, text in (("sigma", "sigma {}"), ("t0", "t0 {}"), ("mask", "{}"), ("lam", "lambda {}")):
        if key in about:
            value = about[key]
            parts.append(text.format(f"{value:g}" if isinstance(value, float | int) else value))
    if "partner_id" in about:
        parts.append(f"with {Path(about['partner_id']).name}")
    return ", ".join(parts)


def label_text(sample: Sample, class_names: Sequence[str]) -> str:
    """The class of an image, its classes with their weights where there are several, or how many boxes of each, crowd
    regions left out."""
    if sample.boxes is not None:
        counts = Counter(class_names[i] for i in sample.boxes.labels[~sample.boxes.crowd].tolist())
        return ", ".join(f"{number} {name}" for name, number in counts.items()) or "no box"
    if len(sample.label) == 1:
        return class_names[next(iter(sample.label))]
    return " + ".join(
        f"{weight:.2f} {class_names[i]}" for i, weight in sorted(sample.label.items(), key=lambda x: -x[1])
    )


def side_by_side(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets in one row, tops aligned."""
    whole = Image.new("RGB", (sum(sheet.width for sheet in sheets), max(sheet.height for sheet in sheets)), "white")
    left = 0
    for sheet in sheets:
        whole.paste(sheet, (left, 0))
        left += sheet.width
    return whole
