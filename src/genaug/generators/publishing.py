"""Make and publish a pool: the images that no earlier run has made, and the manifest that names them all.

The store keeps each image once, under ``store/images``; a pool's folder holds hard links into it.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genaug.core.files import as_json, write_text
from genaug.core.identity import fingerprint
from genaug.core.store import Store
from genaug.data.pool import ACCEPTED, REJECTED, Pool, manifest_rows, pool_of
from genaug.data.sample import Boxes, Dataset
from genaug.generators.base import Generated, Generator, Variant

NUM_WRITERS = 2  # threads that compress and write PNG files beside the sampler


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
    folder = store.pool(pool_fingerprint)
    with store.lock(pool_fingerprint, say):
        variants = generator.variants(dataset, num_variants, fitted_fingerprint)
        left_out = generator.left_out(dataset, num_variants)
        for reason, count in left_out.items():
            say(f"{generator.name}: {count} image(s) {reason} are left out")
        # images of equal content share a variant: it is made once
        wanted = {variant.fingerprint: variant for variant in variants}
        missing = [variant for variant in wanted.values() if not store.has_image(variant.fingerprint)]
        evaluations = 0
        made: dict[str, dict[str, Any]] = {}
        if missing:
            prior = load_prior() if generator.uses_prior else None
            before = prior.num_evaluations if prior is not None else 0
            images = generator.generate(missing, dataset, prior, fitted)
            made = publish(store, images, len(missing), generator, dataset, say)
            evaluations = prior.num_evaluations - before if prior is not None else 0
        rows = _write_manifest(store, folder, variants, made)
    pool = pool_of(rows, folder, dataset, num_variants)
    pool.counts = {
        "images_generated": len(missing),
        "images_reused": len(variants) - len(missing),
        "network_evaluations": evaluations,
        **({"images_left_out": sum(left_out.values())} if left_out else {}),
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
) -> dict[str, dict[str, Any]]:
    """Write images as they come, from threads; a killed run loses at most those in flight.

    Returns:
        what was published with each image, by fingerprint.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.perf_counter()
    pending: dict[str, Future[dict[str, Any]]] = {}
    made: dict[str, dict[str, Any]] = {}
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
            name = item.variant.fingerprint
            pending[name] = writers.submit(store.put_image, name, item.image, row)
            done, last = done + 1, now
            progress.update(task, completed=done, rate=done / (now - started))
            if len(pending) > 64:
                first = next(iter(pending))
                made[first] = pending.pop(first).result()  # raises here what failed in a thread, e.g. a full disk
        made |= {name: future.result() for name, future in pending.items()}
    seconds = time.perf_counter() - started
    say(f"{done} images by {generator.name} in {seconds:.1f} s ({done / max(seconds, 1e-9):.1f} images/s)")
    if done != total:
        raise AssertionError(f"{type(generator).__name__} made {done} of {total} images")
    return made


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


def _write_manifest(
    store: Store, folder: Path, variants: list[Variant], made: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add the rows of ``variants`` to the manifest; rows of a larger earlier M stay.

    Args:
        made: what this call published with each image; of the others it is read from their files.

    Returns:
        all rows.
    """
    rows = manifest_rows(folder)
    known = {(row["fingerprint"], row["source_id"]): row for row in rows}
    missing = [variant for variant in variants if (variant.fingerprint, variant.source.id) not in known]
    if not missing:
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    found = list(dict.fromkeys(v.fingerprint for v in missing if v.fingerprint not in made))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:  # every pixel is decoded, to be verified
        made = made | dict(zip(found, readers.map(store.about_image, found), strict=True))
    for variant in missing:
        about = made[variant.fingerprint]
        place = ".rejected" if about["rejected"] else f"{variant.index:03d}"
        row = {
            "file_name": f"{place}/{variant.fingerprint}.png",
            "fingerprint": variant.fingerprint,
            **about,
            # the image may have been made for the same picture under another name
            "source_id": variant.source.id,
        }
        target = folder / row["file_name"]
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            _link(store.image_path(variant.fingerprint), target)
        known[variant.fingerprint, variant.source.id] = row
    rows = sorted(known.values(), key=lambda row: (row["index"], row["source_id"]))
    for name, chosen in ((REJECTED, True), (ACCEPTED, False)):
        lines = [as_json(row, str(folder / name)) + "\n" for row in rows if bool(row["rejected"]) == chosen]
        if lines or not chosen:
            write_text(folder / name, "".join(lines))
    return rows


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
