"""Make and publish a pool: the images that no earlier run has made, and the manifest that names them all.

The store keeps each image once, under ``store/images``; a pool's folder holds hard links into it.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genaug.core.claims import claim
from genaug.core.errors import GenaugError, boundary, first_line, out_of_memory, release_memory
from genaug.core.files import as_json, say_damaged, whole, write_text
from genaug.core.identity import fingerprint
from genaug.core.progress import Progress
from genaug.core.store import Store, about_picture, file_hash
from genaug.data.pool import ACCEPTED, REJECTED, Pool, manifest_rows, pool_of
from genaug.data.sample import Boxes, Dataset
from genaug.generators.base import Generated, Generator, Variant

NUM_WRITERS = 2  # threads that compress and write PNG files beside the sampler
Make = Callable[[list[Variant]], Iterable[Generated]]
WAIT = 0.5  # seconds between looks at what other processes have made

_seen: set[tuple[Path, str, int, int]] = set()
"""Images that this process has verified: pool, fingerprint, size and time of change of the file."""


def make_pool(
    store: Store,
    generator: Generator,
    dataset: Dataset,
    fitted: Path | None,
    fitted_fingerprint: str,
    load_prior: Callable[[], Any],
    num_variants: int,
    say: Callable[[str], None] = print,
    device: Callable[[], str] = lambda: "cpu",
) -> Pool:
    """The pool of ``generator`` on ``dataset.train`` with ``num_variants`` (M) images per source.

    Only images that no earlier run has published are made, and those that are damaged; ``load_prior`` and ``device`` (where
    torch computes) are called only if there are some. Several processes share the work, each image is made by one of them.
    """
    pool_fingerprint = pool_identity(generator, dataset, fitted_fingerprint)
    folder = store.pool(pool_fingerprint)
    variants = generator.variants(dataset, num_variants, fitted_fingerprint)
    left_out = generator.left_out(dataset, num_variants)
    for reason, count in left_out.items():
        say(f"{generator.name}: {count} image(s) {reason} are left out")
    # images of equal content share a variant: it is made once
    wanted = {variant.fingerprint: variant for variant in variants}
    abouts = verified(store, folder, list(wanted))
    missing = [variant for variant in wanted.values() if not store.has_image(variant.fingerprint)]
    made: dict[str, dict[str, Any]] = {}
    evaluations = 0
    if missing:
        prior = load_prior() if generator.uses_prior else None
        before = prior.num_evaluations if prior is not None else 0
        make = lambda share: generator.generate(share, dataset, prior, fitted, device())
        made = fill(store, generator, dataset, make, missing, say)
        evaluations = prior.num_evaluations - before if prior is not None else 0
    with store.lock(pool_fingerprint, say):
        rows = _write_manifest(store, folder, variants, num_variants, abouts | made, say)
    _seen.update(_state(store, folder, name) for name in made)
    pool = pool_of(rows, folder, dataset, num_variants)
    pool.counts = {
        "images_generated": len(made),
        "images_reused": len(variants) - len(made),
        "network_evaluations": evaluations,
        **({"images_left_out": sum(left_out.values())} if left_out else {}),
    }
    return pool


def fill(
    store: Store,
    generator: Generator,
    dataset: Dataset,
    make: Make,
    missing: list[Variant],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Make what is missing, share by share, together with whoever else makes some of it.

    Returns:
        what was published with each image that was made here, by fingerprint.
    """
    todo = in_order(missing, dataset)
    made: dict[str, dict[str, Any]] = {}
    started, progressed, waiting = time.perf_counter(), time.monotonic(), False
    while todo:
        with claim(store, list(todo)) as (share, owners):
            if share:
                made |= _publish_share(store, generator, dataset, make, [todo[name] for name in share], say)
        left = {name: variant for name, variant in todo.items() if not store.has_image(name)}
        if len(left) < len(todo):
            progressed = time.monotonic()
        elif not share:
            if not waiting:
                say(f"waiting for {len(left)} images that others make: {'; '.join(owners)}")
                waiting = True
            if store.lock_timeout is not None and time.monotonic() - progressed > store.lock_timeout:
                raise GenaugError(
                    f"{len(left)} images have not come for {store.lock_timeout:g} s from {'; '.join(owners)}. End it if it "
                    "hangs, or write paths.lock_timeout=null to wait for as long as it takes."
                )
            time.sleep(WAIT)
        todo = left
    seconds = time.perf_counter() - started
    say(f"{len(made)} images by {generator.name} in {seconds:.1f} s ({len(made) / max(seconds, 1e-9):.1f} images/s)")
    return made


def in_order(missing: list[Variant], dataset: Dataset) -> dict[str, Variant]:
    """Variants by fingerprint, so that images of equal draws fill whole batches and those of one source share its encoding."""
    places = {sample.id: place for place, sample in enumerate(dataset.train)}
    ordered = sorted(missing, key=lambda v: (as_json(v.draws, "draws"), places[v.source.id], v.index))
    return {variant.fingerprint: variant for variant in ordered}


def _publish_share(
    store: Store,
    generator: Generator,
    dataset: Dataset,
    make: Make,
    share: list[Variant],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Make and publish these images; without memory for a batch, halve it and go on. Returns as ``fill``."""
    wanted, made = share, dict[str, dict[str, Any]]()
    while wanted:
        size = None
        try:
            made |= publish(store, make(wanted), len(wanted), generator, dataset)
        except Exception as error:
            size = generator.halve_batch() if out_of_memory(error) else None
            if size is None:
                raise
            say(f"there is not enough memory ({first_line(error)}): going on with batches of {size}")
        if size is not None:  # by now nothing holds what the failed batch has left
            release_memory()
        wanted = [variant for variant in wanted if not store.has_image(variant.fingerprint)]
    return {
        variant.fingerprint: made.get(variant.fingerprint) or store.about_image(variant.fingerprint)
        for variant in share
    }


def verified(store: Store, folder: Path, fingerprints: list[str]) -> dict[str, dict[str, Any]]:
    """What is known of those images that are in the store; a damaged one is named and removed, so that it is made again.

    Each is decoded and compared with the hash of its pixels once per process and pool.
    """

    def look(fingerprint: str) -> tuple[str, dict[str, Any] | None]:
        path = store.image_path(fingerprint)
        try:
            return fingerprint, store.about_image(fingerprint)
        except GenaugError as error:
            say_damaged(path, str(error))
            path.unlink(missing_ok=True)
            return fingerprint, None

    there = [name for name in fingerprints if store.image_path(name).exists()]
    fresh = [name for name in there if _state(store, folder, name) not in _seen]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:
        found = {name: about for name, about in readers.map(look, fresh) if about is not None}
    _seen.update(_state(store, folder, name) for name in found)
    return found


def _state(store: Store, folder: Path, fingerprint: str) -> tuple[Path, str, int, int]:
    stat = store.image_path(fingerprint).stat()
    return folder, fingerprint, stat.st_size, stat.st_mtime_ns


def pool_identity(generator: Generator, dataset: Dataset, fitted_fingerprint: str) -> str:
    """Fingerprint of a pool. Its manifest names the sources, so their ids count, unlike for the images themselves."""
    ids = [sample.id for sample in dataset.train]
    return fingerprint(fitted_fingerprint, generator, dataset.train_identity(), ids)


def publish(
    store: Store, images: Iterable[Generated], total: int, generator: Generator, dataset: Dataset
) -> dict[str, dict[str, Any]]:
    """Write images as they come, from threads; a killed run loses at most those in flight.

    Returns:
        what was published with each image, by fingerprint.
    """
    started = time.perf_counter()
    pending: dict[str, Future[dict[str, Any]]] = {}
    made: dict[str, dict[str, Any]] = {}
    title = f"generating ({generator.name})"
    with ThreadPoolExecutor(NUM_WRITERS) as writers, Progress(title, total, unit="images") as progress:
        done, last = 0, started
        for item in images:
            now = time.perf_counter()
            row = _row(item, generator, dataset, seconds=now - last)
            name = item.variant.fingerprint
            pending[name] = writers.submit(store.put_image, name, item.image, row)
            done, last = done + 1, now
            progress.update(done)
            if len(pending) > 64:
                first = next(iter(pending))
                made[first] = pending.pop(first).result()  # raises here what failed in a thread, e.g. a full disk
        made |= {name: future.result() for name, future in pending.items()}
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
    store: Store,
    folder: Path,
    variants: list[Variant],
    num_variants: int,
    abouts: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Name the images of ``variants`` in the manifest as they are; rows of a larger earlier M stay.

    Args:
        abouts: of images that were made or looked at now. The row of any other is kept if there is one, else read from
            the image.

    Returns:
        all rows.
    """
    known = {(row["fingerprint"], row["source_id"]): row for row in manifest_rows(folder)}
    others = {v.fingerprint for v in variants if (v.fingerprint, v.source.id) not in known} - abouts.keys()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:  # every pixel is decoded, to be verified
        abouts = abouts | dict(zip(others, readers.map(store.about_image, others), strict=True))
    rows = {key: row for key, row in known.items() if row["index"] >= num_variants}
    for variant in variants:
        key = variant.fingerprint, variant.source.id
        about = abouts.get(variant.fingerprint)
        if about is None:
            rows[key] = known[key]
        else:
            place = ".rejected" if about["rejected"] else f"{variant.index:03d}"
            rows[key] = {
                "file_name": f"{place}/{variant.fingerprint}.png",
                "fingerprint": variant.fingerprint,
                **about,
                # the image may have been made for the same picture under another name
                "source_id": variant.source.id,
            }
        _link(store.image_path(variant.fingerprint), folder / rows[key]["file_name"])
    return _write_rows(folder, rows.values(), say)


def _write_rows(folder: Path, rows: Iterable[dict[str, Any]], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Write both manifests of a pool as these rows say; returns them in order."""
    ordered = sorted(rows, key=lambda row: (row["index"], row["source_id"]))
    for name, chosen in ((REJECTED, True), (ACCEPTED, False)):
        path = folder / name
        lines = [as_json(row, str(path)) for row in ordered if bool(row["rejected"]) == chosen]
        former = path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []
        if lines == former and path.exists():
            continue
        if wrong := (Counter(former) - Counter(lines)).total():
            say(f"{path}: {wrong} line(s) were not those of its images and are replaced")
        if lines or former or not chosen:
            write_text(path, "".join(f"{line}\n" for line in lines))
    return ordered


def adopt(store: Store, folder: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Take rows of the same pool from another machine into its manifest; its folder holds their images, or the store does.

    The caller holds the lock of the pool.

    Returns:
        the number of rows that were not known.

    Raises:
        GenaugError: if a row is not one of a manifest, or its image is damaged.
    """
    known = {(row["fingerprint"], row["source_id"]): row for row in manifest_rows(folder)}
    fresh = {}
    for row in rows:
        with boundary(f"{folder.name} has a line that is none of a pool", "Push the pool again."):
            place = ".rejected" if row["rejected"] else f"{int(row['index']):03d}"
            if row["file_name"] != f"{place}/{int(row['fingerprint'], 16):016x}.png":
                raise ValueError(f"{row['file_name']!r}")
            key = row["fingerprint"], str(row["source_id"])
        if key in known:
            continue
        path, ours = folder / row["file_name"], store.image_path(row["fingerprint"])
        if not ours.exists():
            about_picture(path)
            _link(path, ours)
        fresh[key] = {**row, **store.about_image(row["fingerprint"]), "source_id": row["source_id"]}
        _link(ours, path)
    if fresh:
        _write_rows(folder, [*known.values(), *fresh.values()], lambda text: None)
    return len(fresh)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the file ``source``: a hard link, or a whole copy on another file system or one without links."""
    if target.exists() and (target.samefile(source) or file_hash(target) == file_hash(source)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with whole(target) as partial:
            shutil.copyfile(source, partial)
