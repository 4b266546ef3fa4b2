"""A pool: the published synthetic samples of one generator on one training set, prefix-stable in M.

The folder ``store/pools/<fingerprint>/`` follows the Hugging Face ``imagefolder`` convention (images beside a
``metadata.jsonl``), so other tools read it as it is. Its images are hard links into ``store/images``. Rejected images are not
part of it: they and their rows stand apart in ``.rejected/`` and ``rejected.jsonl``, and no tool takes them by accident.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.errors import GenaugError
from genaug.core.files import read_rows
from genaug.data.sample import Boxes, Dataset, SyntheticSample

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
    samples: tuple[SyntheticSample, ...]
    """Accepted images of the first M variants of each source."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of images that must not be trained on, by reason."""
    counts: dict[str, int] = field(default_factory=dict)
    """``images_generated``, ``images_reused``, ``network_evaluations`` of this call."""

    def by_source(self) -> dict[str, list[SyntheticSample]]:
        """Accepted variants of each real sample id, in order of their index."""
        groups: dict[str, list[SyntheticSample]] = {}
        for sample in sorted(self.samples, key=lambda s: s.index):
            groups.setdefault(sample.source_id, []).append(sample)
        return groups

    @property
    def sharpness(self) -> float | None:
        """Gradient outside the boxes as a share of the sources'; None without boxes. Below 1 the ground is blurrier than the
        objects that were put back, and a detector may learn that seam."""
        pairs = [(s.about.get("gradient_outside"), s.about.get("gradient_outside_source")) for s in self.samples]
        known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        total = sum(theirs for _, theirs in known)
        return sum(ours for ours, _ in known) / total if total > 0 else None


ACCEPTED, REJECTED = "metadata.jsonl", "rejected.jsonl"


def manifest_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of a pool's images, accepted and rejected; none if there is no pool. Damaged lines are left out and named."""
    rows = [*read_rows(folder / ACCEPTED, ROW), *read_rows(folder / REJECTED, ROW)]
    return sorted(rows, key=lambda row: (row["index"], row["source_id"]))


def read_pool(folder: Path, dataset: Dataset, num_variants: int, with_rejected: bool = False) -> Pool:
    """Read the first ``num_variants`` variants of every source from a published pool.

    Args:
        with_rejected: take the rejected images for samples too; ``about["rejected"]`` says why they are.

    Raises:
        GenaugError: if the manifest is absent or names a class that ``dataset`` does not have.
    """
    return pool_of(manifest_rows(folder), folder, dataset, num_variants, with_rejected)


def pool_of(
    rows: Iterable[dict[str, Any]], folder: Path, dataset: Dataset, num_variants: int, with_rejected: bool = False
) -> Pool:
    """``read_pool`` from the manifest's rows, sorted by index and source."""
    rows = [row for row in rows if row["index"] < num_variants]
    if not rows:
        raise GenaugError(f"{folder} holds no pool: there is no metadata.jsonl with images.")
    class_index = {name: i for i, name in enumerate(dataset.class_names)}
    rejected: dict[str, int] = {}
    samples = []
    for row in rows:
        if row["rejected"]:
            rejected[row["rejected"]] = rejected.get(row["rejected"], 0) + 1
            if not with_rejected:
                continue
        try:
            label = {class_index[name]: weight for name, weight in row["label"].items()}
            boxes = _boxes(row["objects"], class_index) if "objects" in row else None
        except KeyError as error:
            raise GenaugError(
                f"{folder / row['file_name']} is labelled {error}, which {dataset.name} does not have."
            ) from error
        samples.append(
            SyntheticSample(
                id=f"synthetic/{row['fingerprint']}",
                digest=row["fingerprint"],
                image=folder / row["file_name"],
                label=label,
                boxes=boxes,
                source_id=row["source_id"],
                index=row["index"],
                about=row,
            )
        )
    return Pool(fingerprint=folder.name, folder=folder, samples=tuple(samples), rejected=rejected)


def _boxes(objects: list[dict[str, Any]], class_index: dict[str, int]) -> Boxes:
    corners = [[x, y, x + w, y + h] for x, y, w, h in (item["bbox"] for item in objects)]
    return Boxes(
        xyxy=np.asarray(corners, dtype=np.float32).reshape(-1, 4),
        labels=np.asarray([class_index[item["category"]] for item in objects], dtype=np.int64),
        crowd=np.asarray([item["crowd"] for item in objects], dtype=bool),
    )
