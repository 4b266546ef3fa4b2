"""A pool: the published synthetic samples of one generator on one training set, prefix-stable in M.

The folder ``store/pools/<fingerprint>/`` follows the Hugging Face ``imagefolder`` convention (images beside a
``metadata.jsonl``), so other tools read it as it is. Its images are hard links into ``store/images``.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.errors import GenaugError
from genaug.core.identity import fingerprint
from genaug.core.store import Store, write_text
from genaug.data.sample import Boxes, Dataset, SyntheticSample
from genaug.generators.base import Generated, Generator, Variant

NUM_WRITERS = 2  # threads that compress and write PNG files beside the sampler


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


def make_pool(
    store: Store,
    generator: Generator,
    dataset: Dataset,
    fitted: Path | None,
    fitted_fingerprint: str,
    load_prior: Callable[[], Any],
    num_variants: int,
    say: Callable[[str], None] = print,
) -> Pool:
    """The pool of ``generator`` on ``dataset.train`` with ``num_variants`` (M) images per source.

    Only images that no earlier run has published are made; ``load_prior`` is called only if there are some.
    """
    pool_fingerprint = pool_identity(generator, dataset, fitted_fingerprint)
    folder = store.root / "pools" / pool_fingerprint
    with store.lock(pool_fingerprint, say):
        variants = [
            generator.variant(source, j, dataset, fitted_fingerprint)
            for j in range(num_variants)
            for source in dataset.train
        ]
        # images of equal content share a variant: it is made once
        wanted = {variant.fingerprint: variant for variant in variants}
        missing = [variant for variant in wanted.values() if not store.has_image(variant.fingerprint)]
        evaluations = 0
        if missing:
            prior = load_prior() if generator.uses_prior else None
            before = prior.num_evaluations if prior is not None else 0
            publish(store, generator.generate(missing, dataset, prior, fitted), len(missing), generator, dataset, say)
            evaluations = prior.num_evaluations - before if prior is not None else 0
        _write_manifest(store, folder, variants)
    pool = read_pool(folder, dataset, num_variants)
    pool.counts = {
        "images_generated": len(missing),
        "images_reused": len(variants) - len(missing),
        "network_evaluations": evaluations,
    }
    return pool


def pool_identity(generator: Generator, dataset: Dataset, fitted_fingerprint: str) -> str:
    """Fingerprint of a pool. Its manifest names the sources, so their ids count, unlike for the images themselves."""
    ids = [sample.id for sample in dataset.train]
    return fingerprint(fitted_fingerprint, generator, dataset.train_identity(), ids)


def publish(
    store: Store,
    images: Iterable[Generated],
    total: int,
    generator: Generator,
    dataset: Dataset,
    say: Callable[[str], None],
) -> None:
    """Write images as they come, from threads; a killed run loses at most those in flight."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.perf_counter()
    pending: list[Future[Path]] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TimeRemainingColumn(),
    )
    with ThreadPoolExecutor(NUM_WRITERS) as writers, Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"generating ({generator.name})", total=total, rate=0.0)
        done, last = 0, started
        for item in images:
            now = time.perf_counter()
            row = _row(item, generator, dataset, seconds=now - last)
            pending.append(writers.submit(store.put_image, item.variant.fingerprint, item.image, row))
            done, last = done + 1, now
            progress.update(task, completed=done, rate=done / (now - started))
            if len(pending) > 64:
                pending.pop(0).result()  # raises here what failed in a thread, e.g. a full disk
        for future in pending:
            future.result()
    seconds = time.perf_counter() - started
    say(f"{done} images by {generator.name} in {seconds:.1f} s ({done / max(seconds, 1e-9):.1f} images/s)")
    if done != total:
        raise AssertionError(f"{type(generator).__name__} made {done} of {total} images")


def _row(item: Generated, generator: Generator, dataset: Dataset, seconds: float) -> dict[str, Any]:
    """One line of the manifest, without the file name."""
    variant = item.variant
    label = variant.source.label if item.label is None else item.label
    row: dict[str, Any] = {
        "source_id": variant.source.id,
        "index": variant.index,
        "generator": generator.name,
        "label": {dataset.class_names[i]: weight for i, weight in label.items()},
        **variant.draws,
        **item.about,
        "rejected": item.rejected,
        "seconds": round(seconds, 4),
    }
    boxes = variant.source.boxes if item.boxes is None else item.boxes
    if boxes is not None:
        row["objects"] = _box_rows(boxes, dataset)
    return row


def _box_rows(boxes: Boxes, dataset: Dataset) -> list[dict[str, Any]]:
    """Boxes as manifest rows: COCO order x, y, width, height in pixels, and the class name."""
    return [
        {"bbox": [x1, y1, x2 - x1, y2 - y1], "category": dataset.class_names[label], "crowd": bool(crowd)}
        for (x1, y1, x2, y2), label, crowd in zip(boxes.xyxy.tolist(), boxes.labels, boxes.crowd, strict=True)
    ]


def _write_manifest(store: Store, folder: Path, variants: list[Variant]) -> None:
    """Add the rows of ``variants`` to the manifest; rows of a larger earlier M stay."""
    manifest = folder / "metadata.jsonl"
    known = {(row["fingerprint"], row["source_id"]): row for row in _rows(manifest)}
    missing = [variant for variant in variants if (variant.fingerprint, variant.source.id) not in known]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for variant in missing:
        row = {
            "file_name": f"{variant.index:03d}/{variant.fingerprint}.png",
            "fingerprint": variant.fingerprint,
            **store.about_image(variant.fingerprint),
            # the image may have been made for the same picture under another name
            "source_id": variant.source.id,
        }
        target = folder / row["file_name"]
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            _link(store.image_path(variant.fingerprint), target)
        known[variant.fingerprint, variant.source.id] = row
    lines = sorted(known.values(), key=lambda row: (row["index"], row["source_id"]))
    write_text(manifest, "".join(json.dumps(row) + "\n" for row in lines))


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)


def _rows(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.exists() else []


def read_pool(folder: Path, dataset: Dataset, num_variants: int) -> Pool:
    """Read the first ``num_variants`` variants of every source from a published pool.

    Raises:
        GenaugError: if the manifest is absent or names a class that ``dataset`` does not have.
    """
    rows = [row for row in _rows(folder / "metadata.jsonl") if row["index"] < num_variants]
    if not rows:
        raise GenaugError(f"{folder} holds no pool: there is no metadata.jsonl with images.")
    class_index = {name: i for i, name in enumerate(dataset.class_names)}
    rejected: dict[str, int] = {}
    samples = []
    for row in rows:
        if row["rejected"]:
            rejected[row["rejected"]] = rejected.get(row["rejected"], 0) + 1
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
