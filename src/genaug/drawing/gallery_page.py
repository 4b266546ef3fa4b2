"""A gallery as one HTML page that needs no network: every variant beside its sources, with zoom, filters and keys."""

import base64
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample
from genaug.drawing.boxes import draw_annotation
from genaug.drawing.contact_sheet import drawn, label_text

SIDE = 256
"""Longer side of a picture in the page, at most, in pixels; smaller ones stay as they are and are enlarged by the page."""


def gallery_page(pools: Sequence[tuple[str, Pool, Dataset]], num_sources: int = 20, num_variants: int = 8) -> str:
    """The page.

    Args:
        pools: title, pool (with its rejected images, if they are to be seen) and real data of each.
        num_sources: real images, spread over the classes.
    """
    from jinja2 import Environment

    text = (files("genaug.drawing") / "gallery.html.j2").read_text(encoding="utf-8")
    sections = [
        {"title": title, "rows": _rows(pool, dataset, num_sources, num_variants)} for title, pool, dataset in pools
    ]
    classes = sorted({name for section in sections for row in section["rows"] for name in row["classes"]})
    return Environment(autoescape=True, trim_blocks=True).from_string(text).render(sections=sections, classes=classes)


def _rows(pool: Pool, dataset: Dataset, num_sources: int, num_variants: int) -> list[dict[str, Any]]:
    groups, by_id = pool.by_source(), {sample.id: sample for sample in dataset.train}
    spread = [[s for s in group if s.id in groups] for group in dataset.train_by_class()]
    depth = max((len(group) for group in spread), default=0)
    sources = [group[i] for i in range(depth) for group in spread if i < len(group)][:num_sources]
    rows = []
    for source in sources:
        variants = groups[source.id][:num_variants]
        pictures = [_picture(source, dataset, "real image")]
        for variant in variants:
            partner = by_id.get(variant.about.get("partner_id", ""))
            if partner is not None:
                pictures.append(_picture(partner, dataset, "second source"))
            pictures.append(_picture(variant, dataset, f"variant {variant.index}"))
        names = {dataset.class_names[i] for sample in (source, *variants) for i in _classes(sample)}
        rows.append({"classes": sorted(names), "names": json.dumps(sorted(names)), "pictures": pictures})
    return rows


def _classes(sample: Sample) -> list[int]:
    if sample.boxes is None:
        return list(sample.label)
    return sorted(set(sample.boxes.labels[~sample.boxes.crowd].tolist()))


def _picture(sample: Sample, dataset: Dataset, kind: str) -> dict[str, Any]:
    rejected = sample.about.get("rejected") if isinstance(sample, SyntheticSample) else None
    image = sample.open()
    before = max(image.size)
    image.thumbnail((SIDE, SIDE))
    draw_annotation(image, sample, max(image.size) / before)
    data = io.BytesIO()
    image.convert("RGB").save(data, format="PNG", optimize=True)
    return {
        "uri": "data:image/png;base64," + base64.b64encode(data.getvalue()).decode(),
        "kind": kind,
        "label": label_text(sample, dataset.class_names),
        "how": drawn(sample) if isinstance(sample, SyntheticSample) else sample.id,
        "rejected": rejected or "",
        "real": not isinstance(sample, SyntheticSample),
    }
