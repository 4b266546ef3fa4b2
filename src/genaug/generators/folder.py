"""Images that were made elsewhere, by any other method, as a pool: the same mixes, statistics, audits, filters and tables.

Layouts below ``generator.root``:

* ``<class>/<image>``: the class is the folder's name, and each image counts as a variant of a training image of its class,
  all of them in turn;
* a manifest, ``metadata.jsonl`` or ``metadata.csv`` (the Hugging Face ``imagefolder`` convention, which published pools
  follow): ``file_name``, and any of ``source`` (or ``source_id``: the training image it was made from), ``label`` (a class,
  or class weights), ``objects`` (boxes), ``rejected`` (a reason; such images are left out) and ``generated`` (false for the
  real images of ``genaug export``, which are left out, too). Without ``label`` or ``objects`` an image keeps its source's;
  boxes are scaled to an image of another size and the same shape.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from omegaconf import II, MISSING

from genaug.core.errors import GenaugError, boundary
from genaug.core.identity import NOT_IDENTITY, content_by, content_digest, fingerprint
from genaug.core.registry import component
from genaug.data.annotations import BoxRules, LabelledObject, same_shape
from genaug.data.images import inspect
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.sources.hub import objects_of
from genaug.data.sources.tree import image_files
from genaug.generators.base import Generated, Generator, Variant

if TYPE_CHECKING:
    from genaug.priors.model import Prior

MANIFESTS = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("file_name", "source", "source_id", "label", "objects", "rejected", "generated")


@dataclass(kw_only=True, frozen=True, slots=True)
class Item:
    """One image of the folder with what is said of it."""

    path: Path
    where: str
    """File and line, for messages."""
    source: str | None
    """Id of a training image, or the end of one."""
    label: dict[str, float] | None
    objects: tuple[LabelledObject, ...] | None

    def identity(self) -> str:
        """What the image is and says: content and annotation, not its file's name."""
        boxes = None if self.objects is None else [[o.category, *o.xyxy, o.crowd] for o in self.objects]
        return fingerprint(content_digest(self.path), self.source, self.label, boxes)


@component("generator", "folder")
@dataclass(kw_only=True, slots=True)
class ImagesFromFolder(Generator):
    """Takes its images from a folder instead of making them. At most ``mix.m`` of them per training image are used."""

    seed: int = field(default=II("seed"), metadata=NOT_IDENTITY)
    """Not used: the images are there already."""
    root: str = field(default=MISSING, metadata=content_by("images"))
    """The folder. Its content counts for the identity, not its place."""
    manifest: str | None = field(default=None, metadata=NOT_IDENTITY)
    """The manifest (.jsonl or .csv), relative to the root; null takes metadata.jsonl or metadata.csv where there is one, and
    class folders otherwise."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")
    uses_prior: ClassVar[bool] = False

    def images(self) -> str:
        """What the folder is to an identity: its images with what is said of them, whatever their names."""
        return fingerprint(sorted(item.identity() for item in self._items()))

    def check_dataset(self, dataset: Dataset) -> None:
        items = self._items()
        known = {s.digest: s for split in (dataset.val, dataset.test) for s in split}
        copies = [item for item in items if content_digest(item.path) in known]
        if copies:
            raise GenaugError(
                f"{len(copies)} image(s) of generator.root={self.root} are validation or test images of {dataset.name}, e.g. "
                f"{copies[0].path.name} is {known[content_digest(copies[0].path)].id}. Remove them: results would not count."
            )
        assigned, left_out = self._assign(dataset)
        for source, items in assigned:
            for item in items:
                scale_of(item, source)
        if not assigned:
            raise GenaugError(
                f"No image of generator.root={self.root} belongs to a training image of {dataset.name}: "
                + "; ".join(f"{count} {reason}" for reason, count in left_out.items())
                + f". Sources are named as in the data set, e.g. {dataset.train[0].id}."
            )

    def variants(self, dataset: Dataset, num_variants: int, fitted_fingerprint: str) -> list[Variant]:
        """The images at hand, at most ``num_variants`` per training image."""
        return [
            Variant(
                source=source,
                index=j,
                draws={"made_elsewhere": item.path.relative_to(self._root()).as_posix()},
                fingerprint=fingerprint(
                    fitted_fingerprint,
                    source.identity(),
                    list(dataset.class_names),
                    item.identity(),
                    *([scale] if (scale := scale_of(item, source)) else []),
                ),
            )
            for source, items in self._assign(dataset)[0]
            for j, item in enumerate(items[:num_variants])
        ]

    def left_out(self, dataset: Dataset, num_variants: int) -> dict[str, int]:
        assigned, counts = self._assign(dataset)
        beyond = sum(max(len(items) - num_variants, 0) for _, items in assigned)
        return counts | ({f"beyond mix.m={num_variants} per training image": beyond} if beyond else {})

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        items = {item.path.relative_to(self._root()).as_posix(): item for item in self._items()}
        classes = class_indices(dataset)
        for variant in variants:
            item = items[variant.draws["made_elsewhere"]]
            image = Sample(id=item.where, digest="", image=item.path).open()
            label = None if item.label is None else {classes[name]: weight for name, weight in item.label.items()}
            yield Generated(variant=variant, image=image, label=label, boxes=self._boxes(item, classes, variant.source))

    def _boxes(self, item: Item, classes: dict[str, int], source: Sample) -> Boxes | None:
        if item.objects is not None:
            return BoxRules(classes).apply(item.objects, *inspect(item.path).size)
        scale = scale_of(item, source)
        if scale is None or source.boxes is None:
            return None
        xyxy = source.boxes.xyxy * np.tile(np.asarray(scale, dtype=np.float32), 2)
        return Boxes(xyxy=xyxy, labels=source.boxes.labels, crowd=source.boxes.crowd)

    def _root(self) -> Path:
        root = Path(self.root).expanduser().absolute()
        if not root.is_dir():
            raise GenaugError(f"generator.root={self.root} is not a folder.")
        return root

    def _items(self) -> list[Item]:
        """Every image that may be used, in an order that names and places do not change."""
        root = self._root()
        names = (self.manifest,) if self.manifest is not None else MANIFESTS
        manifest = next((root / name for name in names if (root / name).is_file()), None)
        if self.manifest is not None and manifest is None:
            raise GenaugError(f"generator.manifest={self.manifest} is not a file below generator.root={self.root}.")
        items = list(_listed(root, manifest) if manifest is not None else _in_class_folders(root))
        if not items:
            raise GenaugError(
                f"generator.root={self.root} holds no image in a class folder and no {' or '.join(names)} with images. Write "
                "<root>/<class>/<image>, or a manifest with file_name, source, and label or objects."
            )
        return sorted(items, key=Item.identity)

    def _assign(self, dataset: Dataset) -> tuple[list[tuple[Sample, list[Item]]], dict[str, int]]:
        """Images by training image, and the number of those that belong to none, by reason."""
        sources = _Sources(dataset)
        found: dict[str, list[Item]] = {sample.id: [] for sample in dataset.train}
        left_out: Counter[str] = Counter()
        for item in self._items():
            source = sources.of(item)
            if source is None:
                left_out["whose source or class is not among the training images"] += 1
            else:
                found[source.id].append(item)
        assigned = [(sample, found[sample.id]) for sample in dataset.train if found[sample.id]]
        return assigned, dict(left_out)


class _Sources:
    """Finds the training image that an image counts as a variant of."""

    def __init__(self, dataset: Dataset):
        self.dataset, self.classes = dataset, class_indices(dataset)
        self.by_name: dict[str, Sample | None] = {}
        ordered = sorted(dataset.train, key=lambda sample: sample.id)
        for sample in ordered:
            for name in {Path(sample.id).name, Path(sample.id).stem}:  # None: a name that several have
                self.by_name[name] = sample if name not in self.by_name else None
        self.by_name |= {sample.id: sample for sample in ordered}
        self.turns: dict[int | None, list[Sample]] = {}
        for sample in ordered:
            self.turns.setdefault(sample.class_index if sample.label else None, []).append(sample)
        self.taken: Counter[int | None] = Counter()

    def of(self, item: Item) -> Sample | None:
        """The named source, or the next one of the image's class; None where it is not a training image."""
        for name in (item.label or {}, (o.category for o in item.objects or ())):
            for category in name:
                if category not in self.classes:
                    raise GenaugError(
                        f"{item.where}: the class {category!r} is not among those of {self.dataset.name}: "
                        f"{', '.join(self.dataset.class_names[:12])}."
                    )
        if item.source is not None:
            return self.by_name.get(item.source)
        if item.label is None and item.objects is None:
            raise GenaugError(f"{item.where}: an image needs a source, a label or objects.")
        key = None if item.label is None else self.classes[max(item.label, key=lambda name: (item.label or {})[name])]
        turns = self.turns.get(key)
        if not turns:
            return None
        self.taken[key] += 1
        return turns[(self.taken[key] - 1) % len(turns)]


def scale_of(item: Item, source: Sample) -> tuple[float, float] | None:
    """By how much the source's boxes grow with an image that keeps them; None where they stay as they are.

    Raises:
        GenaugError: if the image has another shape, so that nobody knows where the objects are.
    """
    if source.boxes is None or item.objects is not None or (size := inspect(item.path).size) == source.size:
        return None
    if not same_shape(source.size, size):
        sizes = " x ".join(map(str, size)), " x ".join(map(str, source.size))
        raise GenaugError(
            f"{item.where}: the image has {sizes[0]} pixels and its source {source.id} {sizes[1]}, which is another shape, so "
            "that the source's boxes do not fit. Write its own: objects in a manifest."
        )
    return size[0] / source.size[0], size[1] / source.size[1]


def class_indices(dataset: Dataset) -> dict[str, int]:
    """Index by class name; a name with blanks is also known with underscores."""
    index = {name.replace(" ", "_"): i for i, name in enumerate(dataset.class_names)}
    return index | {name: i for i, name in enumerate(dataset.class_names)}


def _in_class_folders(root: Path) -> Iterator[Item]:
    for name, path in image_files(root):
        if "/" in name:
            yield Item(path=path, where=str(path), source=None, label={name.split("/")[0]: 1.0}, objects=None)


def _listed(root: Path, manifest: Path) -> Iterator[Item]:
    """The images that a manifest lists, without those that it calls rejected or real."""
    for line, row in _rows(manifest):
        where = f"{manifest}:{line}"
        if not row.keys() & {"source", "source_id", "label", "objects"}:
            raise GenaugError(
                f"{where}: a row has file_name and any of {', '.join(COLUMNS[1:])}, not {', '.join(row)}."
            )
        if row.get("rejected") or str(row.get("generated", "")).lower() == "false":
            continue
        path = root / str(row.get("file_name", ""))
        if not path.is_file():
            raise GenaugError(f"{where}: file_name={row.get('file_name')} is not a file below {root}.")
        source = row.get("source") or row.get("source_id") or None
        with boundary(f"{where} cannot be read", "Write e.g. " + EXAMPLE):
            yield Item(
                path=path,
                where=where,
                source=None if source is None else str(source),
                label=_weights(row.get("label")),
                objects=_objects(row.get("objects"), where),
            )


EXAMPLE = '{"file_name": "a.png", "source": "train/cat/1.png", "objects": [{"bbox": [x, y, w, h], "category": "cat"}]}.'


def _rows(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, row) of a manifest."""
    with boundary(
        f"{manifest} cannot be read", "Write one JSON object per line, or comma-separated values with a head."
    ):
        if manifest.suffix == ".csv":
            with manifest.open(newline="", encoding="utf-8-sig") as file:
                rows = [(i, row) for i, row in enumerate(csv.DictReader(file), start=2)]
        else:
            lines = enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1)
            rows = [(i, json.loads(line)) for i, line in lines if line.strip()]
    yield from rows


def _weights(label: Any) -> dict[str, float] | None:
    """Class weights that sum to 1 from a class name or a mapping."""
    if label is None or label == "" or label == {}:
        return None
    if not isinstance(label, Mapping):
        return {str(label): 1.0}
    total = sum(label.values())
    return {str(name): weight / total for name, weight in label.items()}


def _objects(objects: Any, where: str) -> tuple[LabelledObject, ...] | None:
    """Boxes as ``objects_of`` reads them; ``bbox`` is left, top, width, height in pixels."""
    if objects is None or objects == "":
        return None
    if isinstance(objects, str):
        objects = json.loads(objects)
    boxes = objects_of(objects, "bbox", "category", "xywh", where)
    return tuple(box.labelled(box.category) for box in boxes)
