"""Real and generated images as a folder for any other trainer: COCO, YOLO, Pascal VOC, ``imagefolder`` or WebDataset.

Training images are the trial's real ones and the pool's; validation and test images are real. Files whose pixels are stored as
they are seen are copied, all others are written as PNG. Whatever a format cannot say is counted and reported.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from PIL import Image

from genaug.core.errors import GenaugError, check_choice
from genaug.core.names import safe_name
from genaug.core.shards import Packed
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample

SHARD = 1000  # images of one tar file
PLAIN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""Files that every trainer reads, by their ending."""


@dataclass(kw_only=True, slots=True)
class Written:
    """What an export wrote."""

    folder: Path
    form: str
    counts: dict[str, int]
    """Images by split, and generated ones."""
    notes: list[str]
    """What the format could not hold."""
    opens_as: list[str]
    """Overrides of ``train.py`` that read it; none where genaug does not."""


@dataclass(kw_only=True, slots=True)
class Entry:
    """One image with the name that it gets."""

    split: str
    name: str
    """Unique, without an ending."""
    sample: Sample


@dataclass(slots=True)
class _Export:
    folder: Path
    dataset: Dataset
    notes: Counter[str] = field(default_factory=Counter)


def export(dataset: Dataset, pool: Pool, form: str, folder: Path, real: bool = True) -> Written:
    """Write the images into an empty or new folder.

    Args:
        dataset: the real data of the trial that used the pool.
        pool: its samples are written, so rejected images are not unless it was read with them.
        form: a key of ``FORMATS``.
        real: whether real images are written too.

    Raises:
        GenaugError: if the folder holds something, or the format cannot hold such annotations.
    """
    check_choice("--format", form, tuple(FORMATS))
    if form in ("coco", "yolo", "voc") and dataset.task != "detection":
        raise GenaugError(f"--format {form} holds boxes, and {dataset.name} has none: write imagefolder or webdataset.")
    if folder.exists() and any(folder.iterdir()):
        raise GenaugError(f"{folder} is not empty: name a new folder.")
    entries = list(_entries(dataset, pool, real))
    if not entries:
        raise GenaugError("There is no image to write.")
    folder.mkdir(parents=True, exist_ok=True)
    work = _Export(folder, dataset)
    work.notes["object masks left out"] += sum(entry.sample.mask is not None for entry in entries)
    opens_as = FORMATS[form](work, entries)
    counts: Counter[str] = Counter(entry.split for entry in entries)
    counts["generated"] = sum(isinstance(entry.sample, SyntheticSample) for entry in entries)
    return Written(
        folder=folder,
        form=form,
        counts=dict(counts),
        notes=[f"{count} {text}" for text, count in work.notes.items() if count],
        opens_as=opens_as,
    )


def _entries(dataset: Dataset, pool: Pool, real: bool) -> Iterator[Entry]:
    """Every image in order of its split, under a name of its own."""
    splits: list[tuple[str, Sequence[Sample]]] = [("train", [*(dataset.train if real else ()), *pool.samples])]
    splits += [("validation", dataset.val), ("test", dataset.test)] if real else []
    taken: set[str] = set()
    for split, samples in splits:
        for sample in samples:
            if isinstance(sample, SyntheticSample):
                stem = f"generated_{sample.index:03d}_{sample.digest}"
            else:
                stem = safe_name(Path(sample.id).with_suffix("").as_posix().replace("/", "_"), "folder").replace(
                    " ", "_"
                )
            name, number = stem, 1
            while name.lower() in taken:
                number += 1
                name = f"{stem}_{number}"
            taken.add(name.lower())
            yield Entry(split=split, name=name, sample=sample)


def _image(sample: Sample) -> tuple[bytes, str]:
    """The bytes of an image file that every trainer shows alike, and their ending."""
    if isinstance(sample.image, Path) and (kind := PLAIN.get(sample.image.suffix.lower())):
        with Image.open(sample.image) as image:
            if image.format == kind and image.mode in ("RGB", "L") and image.getexif().get(0x0112, 1) == 1:
                return sample.image.read_bytes(), sample.image.suffix.lower()
    if isinstance(sample.image, Packed):
        return sample.image.read(), ".png"
    data = io.BytesIO()
    sample.open().save(data, format="PNG")
    return data.getvalue(), ".png"


def _write_image(folder: Path, entry: Entry) -> tuple[str, int, int]:
    """Write one image into ``folder``; its file name, width and height."""
    folder.mkdir(parents=True, exist_ok=True)
    data, ending = _image(entry.sample)
    (folder / f"{entry.name}{ending}").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        return f"{entry.name}{ending}", *image.size


def _boxes(sample: Sample) -> list[tuple[list[float], int, bool, float]]:
    """(left, top, right, bottom; class; crowd; area) of each object; the area is the stated one, else the box's."""
    boxes = sample.boxes
    if boxes is None:
        return []
    corners = [[round(float(value), 2) for value in box] for box in boxes.xyxy.tolist()]
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in corners] if boxes.area is None else boxes.area.tolist()
    return list(
        zip(corners, boxes.labels.tolist(), boxes.crowd.tolist(), [round(area, 2) for area in areas], strict=True)
    )


def _leave_out_areas(work: _Export, entries: Sequence[Entry]) -> None:
    boxes = [entry.sample.boxes for entry in entries]
    count = sum(len(found.labels) for found in boxes if found is not None and found.area is not None)
    work.notes["stated areas left out, so that an object is as large as its box"] += count


def _coco(work: _Export, entries: Sequence[Entry]) -> list[str]:
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(work.dataset.class_names)]
    for split in dict.fromkeys(entry.split for entry in entries):
        short = {"validation": "val"}.get(split, split)
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for entry in (entry for entry in entries if entry.split == split):
            name, width, height = _write_image(work.folder / "images" / short, entry)
            images.append(
                {"id": len(images) + 1, "file_name": name, "width": width, "height": height, **_origin(entry)}
            )
            for (x1, y1, x2, y2), label, crowd, area in _boxes(entry.sample):
                w, h = round(x2 - x1, 2), round(y2 - y1, 2)
                objects.append({
                    "id": len(objects) + 1, "image_id": len(images), "category_id": label + 1, "bbox": [x1, y1, w, h],
                    "area": area, "iscrowd": int(crowd),
                })  # fmt: skip
        path = work.folder / "annotations" / f"instances_{short}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return ["dataset=coco", f"dataset.root={work.folder}"]


def _yolo(work: _Export, entries: Sequence[Entry]) -> list[str]:
    description: dict[str, Any] = {"path": "."}
    _leave_out_areas(work, entries)
    for entry in entries:
        short = {"validation": "val"}.get(entry.split, entry.split)
        description[short] = f"images/{short}"
        _, width, height = _write_image(work.folder / "images" / short, entry)
        lines = []
        for (x1, y1, x2, y2), label, crowd, _ in _boxes(entry.sample):
            if crowd:
                work.notes["crowd regions left out, which YOLO has not"] += 1
                continue
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in values))
        labels = work.folder / "labels" / short / f"{entry.name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("".join(line + "\n" for line in lines))
    description.setdefault("val", description.get("train"))
    description["names"] = dict(enumerate(work.dataset.class_names))
    (work.folder / "data.yaml").write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
    return ["dataset=yolo", f"dataset.root={work.folder}"]


def _voc(work: _Export, entries: Sequence[Entry]) -> list[str]:
    lists: dict[str, list[str]] = {}
    _leave_out_areas(work, entries)
    for folder in ("Annotations", "ImageSets/Main"):
        (work.folder / folder).mkdir(parents=True)
    for entry in entries:
        name, width, height = _write_image(work.folder / "JPEGImages", entry)
        root = ElementTree.Element("annotation")
        _add(root, {"folder": "JPEGImages", "filename": name, "size": {"width": width, "height": height, "depth": 3}})
        for (x1, y1, x2, y2), label, crowd, _ in _boxes(entry.sample):
            # 1-based with the last pixel included
            box = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
            box = {key: int(value) if float(value).is_integer() else value for key, value in box.items()}
            category = work.dataset.class_names[label]
            _add(root, {"object": {"name": category, "difficult": int(crowd), "bndbox": box}})
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(work.folder / "Annotations" / f"{entry.name}.xml", encoding="utf-8")
        lists.setdefault({"validation": "val"}.get(entry.split, entry.split), []).append(entry.name)
    for split, names in lists.items():
        (work.folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(name + "\n" for name in names))
    return ["dataset=voc", f"dataset.root={work.folder}"]


def _add(parent: ElementTree.Element, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        child = ElementTree.SubElement(parent, key)
        if isinstance(value, Mapping):
            _add(child, value)
        else:
            child.text = str(value)


def _imagefolder(work: _Export, entries: Sequence[Entry]) -> list[str]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        place = safe_name(_class_name(work, entry.sample), "folder") if entry.sample.label else ""
        name, _, _ = _write_image(work.folder / entry.split / place, entry)
        row = {"file_name": f"{place}/{name}" if place else name, **_annotation(work, entry), **_origin(entry)}
        rows.setdefault(entry.split, []).append(row)
    for split, items in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in items)
        (work.folder / split / "metadata.jsonl").write_text(text)
    if work.dataset.task == "detection":
        splits = [f"dataset.{short}_split={_or_null(name, rows)}" for short, name in NAMES.items()]
        return ["dataset=hf_detection", f"dataset.path={work.folder}", *splits]
    return ["dataset=image_folder", f"dataset.root={work.folder}"]


NAMES = {"val": "validation", "test": "test"}


def _or_null(name: str, rows: Mapping[str, Any]) -> str:
    return name if name in rows else "null"


def _class_name(work: _Export, sample: Sample) -> str:
    return work.dataset.class_names[sample.class_index]


def _annotation(work: _Export, entry: Entry) -> dict[str, Any]:
    """Label or boxes as columns that every row has alike."""
    sample, names = entry.sample, work.dataset.class_names
    if work.dataset.task == "detection":
        boxes = _boxes(sample)
        return {
            "objects": {
                "bbox": [[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)] for (x1, y1, x2, y2), *_ in boxes],
                "category": [names[label] for _, label, _, _ in boxes],
                "crowd": [crowd for _, _, crowd, _ in boxes],
                "area": [area for *_, area in boxes],
            }
        }
    if len(sample.label) > 1:
        work.notes["labels shared by several classes: label names the largest, label_weights holds all"] += 1
    weights = json.dumps({names[i]: round(weight, 6) for i, weight in sample.label.items()})
    return {"label": _class_name(work, sample), "label_weights": weights}


def _origin(entry: Entry) -> dict[str, Any]:
    """Whether an image was generated, from which real one and how."""
    sample = entry.sample
    if not isinstance(sample, SyntheticSample):
        return {"generated": False, "source": sample.id, "generator": "", "rejected": ""}
    about = sample.about
    return {
        "generated": True,
        "source": sample.source_id,
        "generator": about.get("generator", ""),
        "rejected": about.get("rejected") or "",
    }


def _webdataset(work: _Export, entries: Sequence[Entry]) -> list[str]:
    shards: Counter[str] = Counter()
    for split in dict.fromkeys(entry.split for entry in entries):
        members = [entry for entry in entries if entry.split == split]
        for first in range(0, len(members), SHARD):
            with tarfile.open(work.folder / f"{split}-{shards[split]:06d}.tar", "w") as shard:
                for entry in members[first : first + SHARD]:
                    data, ending = _image(entry.sample)
                    about = {**_annotation(work, entry), **_origin(entry)}
                    parts = {ending: data, ".json": json.dumps(about).encode()}
                    if entry.sample.label:
                        parts[".cls"] = _class_name(work, entry.sample).encode()
                    for part, content in parts.items():
                        info = tarfile.TarInfo(f"{entry.name.replace('.', '_')}{part}")
                        info.size = len(content)
                        shard.addfile(info, io.BytesIO(content))
                shards[split] += 1
    named = {"train": "train", **NAMES}
    words = [
        f"dataset.{short}={work.folder}/{name}-{{000000..{shards[name] - 1:06d}}}.tar"
        for short, name in named.items()
        if name in shards
    ]
    return ["dataset=webdataset", *words] if all(entry.sample.label for entry in entries) else []


FORMATS: dict[str, Callable[[_Export, Sequence[Entry]], list[str]]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
    "imagefolder": _imagefolder,
    "webdataset": _webdataset,
}
