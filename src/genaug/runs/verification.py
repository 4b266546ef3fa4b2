"""``genaug verify``: the whole store compared with its hashes, and what is damaged removed, so that a run makes it again."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.core.files import read_json
from genaug.core.shards import Catalogue, Packed, mend, packed, read_index
from genaug.core.store import ABOUT, Store, about_picture, artefact, damage_of
from genaug.data.packed import SHARDED, TABLE, numbers_of, read_table, shards_of
from genaug.data.pool import ACCEPTED, manifest_rows, unlisted
from genaug.generators.forms import damage as why_damaged
from genaug.runs.collection import STATUS, read_result


@dataclass(kw_only=True, slots=True)
class Damage:
    """A file or folder that is not what was published."""

    path: Path
    why: str


def verify(outputs: Path, on_item: Callable[[int, int], None] = lambda done, total: None) -> tuple[int, list[Damage]]:
    """Look at every artefact, image, pool and state file below ``outputs``, in threads.

    Args:
        on_item: called with the number of items looked at and their total.

    Returns:
        the number of items, and what is damaged.
    """
    items = list(_items(outputs))
    found: list[Damage] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as workers:
        for done, (path, why) in enumerate(workers.map(look, items), start=1):
            found += [Damage(path=path, why=why)] if why is not None else []
            on_item(done, len(items))
    return len(items), found


def repair(damages: list[Damage]) -> None:
    """Remove what is damaged: the next run that needs it makes it again, and writes the manifests as the images are."""
    for damage in damages:
        if damage.path.suffix == ".tar":
            mend(damage.path, lambda image: _image(image) or why_damaged(image))
        elif damage.path.is_dir():
            shutil.rmtree(damage.path)
        else:
            damage.path.unlink(missing_ok=True)


def _items(outputs: Path) -> Iterator[tuple[str, Path]]:
    store = Store(outputs / "store")
    yield from (
        ("artefact", path.parent) for path in sorted(store.root.glob(f"*/*/{ABOUT}")) if path.parent.name[0] != "."
    )
    yield from (("image", path) for path in sorted(store.root.glob("images/*/*.png")))
    yield from (("shard", tar) for pool in store.pools() for tar in shards_of(pool))
    yield from (("pool", path) for path in sorted(store.root.glob("pools/*")) if path.is_dir())
    for name in ("result", "status"):
        yield from ((name, path) for path in sorted((outputs / "runs").glob(f"*/{name}.json")))


def look(item: tuple[str, Path]) -> tuple[Path, str | None]:
    """What is damaged of an ``artefact``, ``image``, ``pool``, ``result`` or ``status``, and why; None if nothing is."""
    kind, path = item
    if kind == "artefact":
        about = artefact(path)
        return path, f"{ABOUT} is damaged" if about is None else damage_of(path, about)
    if kind == "image":
        return path, _image(path)
    if kind == "shard":
        return path, _shard(path)
    if kind == "pool":
        return _pool(path) if not (path / SHARDED).exists() else _packed(path)
    found = read_result(path.parent) if kind == "result" else read_json(path, STATUS)
    return path, None if found is not None else "it cannot be read, or has changed"


def _image(path: Path | Packed) -> str | None:
    try:
        about_picture(path)
    except GenaugError as error:
        return str(error)
    return None


def _shard(tar: Path) -> str | None:
    """What is wrong with the first damaged image of a shard."""
    images = (packed(tar, record) for record in read_index(tar)[0])
    return next((why for image in images if (why := _image(image) or why_damaged(image)) is not None), None)


def _packed(folder: Path) -> tuple[Path, str | None]:
    """A packed pool's manifest against its hash and its shards."""
    try:
        table = read_table(folder)
    except GenaugError:
        return folder / SHARDED, f"{TABLE} is not as it was written"
    places = Catalogue(lambda: [folder]).refresh().places(numbers_of(table))
    return folder / SHARDED, "images of its manifest are in no shard" if (places < 0).any() else None


def _pool(folder: Path) -> tuple[Path, str | None]:
    """A pool's rows against the images that they name. Its manifest is what a run writes again."""
    lines = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))
    rows = manifest_rows(folder)
    names = [(row["fingerprint"], row["source_id"]) for row in rows]
    if len(rows) != lines or len(set(names)) != len(names):
        return folder / ACCEPTED, "lines are damaged, have changed or stand twice"
    for row in rows:
        try:
            about = about_picture(folder / row["file_name"])
        except GenaugError as error:
            return folder / row["file_name"], str(error)
        if any(row.get(key) != value for key, value in about.items() if key != "source_id"):
            return folder / ACCEPTED, f"the line of {row['file_name']} is not that of its image"
    manifest = folder / ACCEPTED
    if manifest.exists():
        written = manifest.stat().st_mtime_ns  # what is linked after that waits for its line
        if any(image.stat().st_ctime_ns < written for image in unlisted(folder, rows)):
            return manifest, "lines of its images are missing"
    return folder, None
