"""What of the store no run uses any more, and its removal."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genaug.core.claims import GARBAGE, REMOVES, workers
from genaug.core.errors import GenaugError
from genaug.core.files import PARTIAL
from genaug.core.store import Store
from genaug.data.packed import shards_of
from genaug.runs.collection import cell_states

YOUNG = 24 * 3600  # seconds: what a run may just have made is kept


@dataclass(kw_only=True, slots=True)
class Garbage:
    """Files and folders that no run refers to."""

    paths: list[Path]
    num_bytes: int
    cached_bytes: int = 0
    """Room on disk of decoded images (``store/decoded``) that are not listed: a cache, which any run fills again."""


def find_garbage(outputs: Path, now: float | None = None, decoded: bool = False) -> Garbage:
    """Pools that no run needs and images that no pool holds, older than a day; fitted artefacts are small and stay.

    A run states what it needs (``artefacts``) as soon as it has read its data, so an unfinished one keeps its pool, too.
    Partial files and folders that nobody has touched for a day are listed with them. While somebody works on the store
    they alone are: its images may be in no pool yet.

    Args:
        outputs: the outputs folder.
        now: seconds since 1970, for tests.
        decoded: list the cache of decoded images as well, of any age.

    Raises:
        GenaugError: if there are pools and no runs below ``outputs``, where every pool would seem unused.
    """
    store = Store(outputs / "store")
    oldest = (time.time() if now is None else now) - YOUNG
    partial = [p for top in (store.root, outputs / "runs") for p in top.rglob(f".*{PARTIAL}") if _age(p) < oldest]
    cache = sorted((store.root / "decoded").glob("*"))
    if workers(store):
        return Garbage(paths=partial, num_bytes=_size(partial), cached_bytes=_size(cache))
    states = cell_states(outputs / "runs")
    if store.has_pools and not states:
        raise GenaugError(
            f"There are pools below {store.root} and no runs below {outputs / 'runs'}, so every pool would seem unused. "
            "Name the outputs folder that has both with --outputs."
        )
    needed: set[Path] = set()
    for state in states:
        needed |= {outputs / path for path in state.artefacts}
        if state.result is not None and state.result["pool"]:
            needed.add(store.pool(state.result["pool"]))
    pools = [p for p in store.pools() if p not in needed and _age(p) < oldest]
    kept = {image.stem for pool in store.pools() if pool not in pools for image in pool.glob("*/*.png")}
    images = sorted(p for p in store.images() if p.stem not in kept and _age(p) < oldest)
    # an image and its hard link in a pool are one file on disk; shards are their pool's own
    shards = [tar for pool in pools for tar in shards_of(pool)]
    own = [*partial, *images, *shards, *(cache if decoded else [])]
    listed = [*partial, *pools, *images, *(cache if decoded else [])]
    return Garbage(paths=listed, num_bytes=_size(own), cached_bytes=0 if decoded else _size(cache))


@contextlib.contextmanager
def alone(outputs: Path) -> Iterator[None]:
    """Keep runs from starting to work on the store (``run.run`` waits here) while garbage is listed and removed."""
    with Store(outputs / "store").lock(GARBAGE, work=REMOVES):
        yield


def _age(path: Path) -> float:
    """When a file or folder last changed; now if it is gone by now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(paths: list[Path]) -> int:
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
    return sum(_room(file) for file in files if file.is_file())


def _room(file: Path) -> int:
    """Bytes on disk where that is less than the length: decoded images have holes."""
    stat = file.stat()
    return min(stat.st_size, stat.st_blocks * 512)


def remove(garbage: Garbage) -> None:
    """Delete what ``find_garbage`` listed."""
    for path in garbage.paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
