"""A pool: the published synthetic samples of one generator on one training set, prefix-stable in M.

The folder ``store/pools/<fingerprint>/`` follows the Hugging Face ``imagefolder`` convention (images beside a
``metadata.jsonl``), so other tools read it as it is. Its images are hard links into ``store/images``. Rejected images are not
part of it: they and their rows stand apart in ``.rejected/`` and ``rejected.jsonl``, and no tool takes them by accident.

A pool of many images is packed: tar shards in WebDataset's layout (``core.shards``) and an Arrow table (``data.packed``).
"""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.errors import GenaugError
from genaug.core.files import SEAL, has_changed, read_rows, say_damaged
from genaug.core.shards import Catalogue, Packed
from genaug.data.packed import TABLE, Opened, PackedSamples, numbers_of, read_table
from genaug.data.sample import Boxes, Dataset, SyntheticSample

ALL_VARIANTS = 10**9
"""More variants of one source than any pool has."""
ROW = {
    "file_name": str,
    "fingerprint": str,
    "source_id": str,
    "index": int,
    "label": dict,
    "rejected": str | None,
}
"""Keys of a manifest's line that are read here and the types of their values."""


@dataclass(kw_only=True, slots=True)
class Pool:
    """Synthetic samples of one generator, readable without it."""

    fingerprint: str
    folder: Path
    samples: Sequence[SyntheticSample]
    """Accepted images of the first M variants of each source, by index and source. Those of a packed pool are made when they
    are asked for."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of images that must not be trained on, by reason."""
    counts: dict[str, int] = field(default_factory=dict)
    """``images_generated``, ``images_reused``, ``network_evaluations`` of this call."""

    def by_source(self) -> "dict[str, Sequence[SyntheticSample]]":
        """Accepted variants of each real sample id, in order of their index."""
        if isinstance(self.samples, PackedSamples):
            return dict(self.samples.by_source())
        groups: dict[str, list[SyntheticSample]] = {}
        for sample in self.samples:
            groups.setdefault(sample.source_id, []).append(sample)
        return dict(groups)

    def at(self, places: Sequence[int]) -> Sequence[SyntheticSample]:
        """The samples at some places."""
        if isinstance(self.samples, PackedSamples):
            return self.samples.at(places)
        return tuple(self.samples[place] for place in places)

    @property
    def sharpness(self) -> float | None:
        """Gradient outside the boxes as a share of the sources'; None without boxes. Below 1 the ground is blurrier than the
        objects that were put back, and a detector may learn that seam."""
        if not self.samples or self.samples[0].boxes is None:
            return None
        pairs = [(s.about.get("gradient_outside"), s.about.get("gradient_outside_source")) for s in self.samples]
        known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        total = sum(theirs for _, theirs in known)
        return sum(ours for ours, _ in known) / total if total > 0 else None


ACCEPTED, REJECTED_ROWS = "metadata.jsonl", "rejected.jsonl"


def manifest_rows(folder: Path, most: int | None = None) -> list[dict[str, Any]]:
    """Rows of a pool's images, accepted and rejected; none if there is no pool. Damaged lines are left out and named.

    Args:
        most: read no more than the first ones; None reads all.
    """
    if (folder / TABLE).exists():
        return [json.loads(text) for text in read_table(folder)["row"].slice(0, most).to_pylist()]
    rows = [*_rows_of(folder / ACCEPTED), *_rows_of(folder / REJECTED_ROWS)]
    return sorted(rows, key=lambda row: (row["index"], row["source_id"]))[:most]


def _rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a manifest without their seals."""
    for row in read_rows(file, ROW):
        if has_changed(row):
            say_damaged(file, f"the line of {row['file_name']} has changed")
        else:
            row.pop(SEAL, None)
            yield row


def unlisted(folder: Path, rows: Iterable[dict[str, Any]]) -> list[Path]:
    """Image files in a pool's folder that none of these rows names."""
    listed = {row["file_name"] for row in rows}
    return [path for path in folder.glob("*/*.png") if path.relative_to(folder).as_posix() not in listed]


def images_of(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Path | Packed]:
    """The images that rows of a pool's manifest name."""
    if not (folder / TABLE).exists():
        return [folder / row["file_name"] for row in rows]
    catalogue = Catalogue(lambda: [folder]).refresh()
    return [catalogue.image(row["fingerprint"]) or folder / row["file_name"] for row in rows]


def read_pool(folder: Path, dataset: Dataset, num_variants: int = ALL_VARIANTS, with_rejected: bool = False) -> Pool:
    """Read the first ``num_variants`` variants of every source from a published pool.

    Args:
        with_rejected: take the rejected images for samples too; ``about["rejected"]`` says why they are.

    Raises:
        GenaugError: if the manifest is absent or names a class that ``dataset`` does not have.
    """
    if (folder / TABLE).exists():
        return open_packed(folder, dataset, num_variants, with_rejected)
    return pool_of(manifest_rows(folder), folder, dataset, num_variants, with_rejected)


def open_packed(folder: Path, dataset: Dataset, num_variants: int, with_rejected: bool = False) -> Pool:
    """``read_pool`` of a packed pool: of a million rows, those are read that are asked for."""
    table, catalogue = read_table(folder), Catalogue(lambda: [folder]).refresh()
    reasons = table["rejected"].combine_chunks()
    chosen = table["index"].to_numpy() < num_variants
    accepted = reasons.is_null().to_numpy(zero_copy_only=False)
    places = catalogue.places(numbers_of(table))
    wanted = np.flatnonzero(chosen if with_rejected else chosen & accepted)
    if not chosen.any():
        raise GenaugError(f"{folder} holds no pool: there is no {TABLE} with images.")
    if absent := int((places[wanted] < 0).sum()):
        raise GenaugError(
            f"{absent} images of {folder} are in none of its shards. Run its command again: they are made again."
        )
    rejected = {
        item["values"]: item["counts"] for item in reasons.filter(chosen & ~accepted).value_counts().to_pylist()
    }
    sampled = functools.partial(_sample, folder, dataset, {name: i for i, name in enumerate(dataset.class_names)})
    samples = PackedSamples(Opened(table=table, catalogue=catalogue, places=places, sampled=sampled), wanted)
    if samples:
        samples[0]  # one of other classes is refused now
    return Pool(fingerprint=folder.name, folder=folder, samples=samples, rejected=rejected)


def pool_of(
    rows: Iterable[dict[str, Any]], folder: Path, dataset: Dataset, num_variants: int, with_rejected: bool = False
) -> Pool:
    """``read_pool`` from the rows of ``metadata.jsonl``, sorted by index and source."""
    rows = [row for row in rows if row["index"] < num_variants]
    if not rows:
        raise GenaugError(f"{folder} holds no pool: there is no {ACCEPTED} with images.")
    class_index = {name: i for i, name in enumerate(dataset.class_names)}
    rejected: dict[str, int] = {}
    samples = []
    for row in rows:
        if row["rejected"]:
            rejected[row["rejected"]] = rejected.get(row["rejected"], 0) + 1
            if not with_rejected:
                continue
        samples.append(_sample(folder, dataset, class_index, row, folder / row["file_name"]))
    return Pool(fingerprint=folder.name, folder=folder, samples=tuple(samples), rejected=rejected)


def _sample(
    folder: Path, dataset: Dataset, class_index: dict[str, int], row: dict[str, Any], image: Path | Packed
) -> SyntheticSample:
    """The sample of one row of a manifest."""
    try:
        label = {class_index[name]: weight for name, weight in row["label"].items()}
        boxes = _boxes(row["objects"], class_index) if "objects" in row else None
    except KeyError as error:
        raise GenaugError(
            f"{folder / row['file_name']} is labelled {error}, which {dataset.name} does not have."
        ) from error
    return SyntheticSample(
        id=f"synthetic/{row['fingerprint']}",
        digest=row["fingerprint"],
        image=image,
        label=label,
        boxes=boxes,
        source_id=row["source_id"],
        index=row["index"],
        about=row,
    )


def _boxes(objects: list[dict[str, Any]], class_index: dict[str, int]) -> Boxes:
    corners = [[x, y, x + w, y + h] for x, y, w, h in (item["bbox"] for item in objects)]
    return Boxes(
        xyxy=np.asarray(corners, dtype=np.float32).reshape(-1, 4),
        labels=np.asarray([class_index[item["category"]] for item in objects], dtype=np.int64),
        crowd=np.asarray([item["crowd"] for item in objects], dtype=bool),
    )
