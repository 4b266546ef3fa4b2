"""What of the store no run uses any more, and its removal."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from genaug.core.claims import GARBAGE, REMOVES, workers
from genaug.core.errors import GenaugError
from genaug.core.files import PARTIAL
from genaug.core.store import Store
from genaug.data.packed import shards_of
from genaug.runs.collection import cell_states

YOUNG = 24 * 3600  # seconds: what a run may just have made is kept
AFTER = ("filter", "interpolate", "train")  # stages of a run whose images are all in its pool


@dataclass(kw_only=True, slots=True)
class Garbage:
    """Files and folders that no run refers to."""

    paths: list[Path]
    num_bytes: int
    cached_bytes: int = 0
    """Room on disk of decoded images (``store/decoded``) that are not listed: a cache, which any run fills again."""
    kept: str | None = None
    """Why pools, or images, are not listed: a run may need them."""


def find_garbage(outputs: Path, now: float | None = None, decoded: bool = False) -> Garbage:
    """Pools that no run needs and images that no pool holds, older than a day; fitted artefacts are small and stay.

    A run states what it needs (``artefacts``) as soon as it has read its data, so an unfinished one keeps its pool, too, and
    all images while its own may be in no pool yet. Partial files and folders that nobody has touched for a day are listed with
    them, unless somebody holds their lock. While somebody works on the store they alone are.

    Args:
        outputs: the outputs folder.
        now: seconds since 1970, for tests.
        decoded: list the cache of decoded images as well, of any age.

    Raises:
        GenaugError: if there are pools and no runs below ``outputs``, where every pool would seem unused.
    """
    store = Store(outputs / "store")
    oldest = (time.time() if now is None else now) - YOUNG
    at_work = workers(store)
    held = [path.stem.rpartition("-")[2] for path in (store.root / "locks").glob("*.owner")]
    stale = [path for top in (store.root, outputs / "runs") for path in _partial(top) if _age(path) < oldest]
    partial = [path for path in stale if not any(name in path.name for name in held)]
    cache = sorted((store.root / "decoded").glob("*"))
    nothing = Garbage(paths=partial, num_bytes=_size(partial), cached_bytes=_size(cache))
    if at_work:
        return replace(
            nothing, kept=f"{at_work[0]}: somebody works on the store, so pools and images are not looked at"
        )
    states = cell_states(outputs / "runs")
    if store.has_pools and not states:
        raise GenaugError(
            f"There are pools below {store.root} and no runs below {outputs / 'runs'}, so every pool would seem unused. "
            "Name the outputs folder that has both with --outputs."
        )
    needed, kept = set[Path](), None
    for state in states:
        if state.artefacts is None:
            return replace(
                nothing, kept=f"{state.folder} cannot say any more what it needs, so pools and images are kept"
            )
        needed |= {outputs / path for path in state.artefacts}
        if state.result is not None and state.result["pool"]:
            needed.add(store.pool(state.result["pool"]))
        if state.state != "complete" and state.artefacts and state.stage not in AFTER:
            kept = f"{state.folder} has not finished its images, which may be in no pool yet, so images are kept"
    pools = [p for p in store.pools() if p not in needed and _age(p) < oldest]
    pooled = {image.stem for pool in store.pools() if pool not in pools for image in pool.glob("*/*.png")}
    loose = [] if kept else sorted(p for p in store.images() if p.stem not in pooled and _age(p) < oldest)
    # an image and its hard link in a pool are one file on disk; shards are their pool's own
    shards = [tar for pool in pools for tar in shards_of(pool)]
    own = [*partial, *loose, *shards, *(cache if decoded else [])]
    return Garbage(
        paths=[*partial, *pools, *loose, *(cache if decoded else [])],
        num_bytes=_size(own),
        cached_bytes=0 if decoded else _size(cache),
        kept=kept,
    )


@contextlib.contextmanager
def alone(outputs: Path) -> Iterator[None]:
    """Keep runs from starting to work on the store (``run.run`` waits here) while garbage is listed and removed."""
    with Store(outputs / "store").lock(GARBAGE, work=REMOVES):
        yield


def _partial(top: Path) -> Iterator[Path]:
    """Files and folders that are not finished; what comes and goes meanwhile is passed over."""
    for folder, folders, files in os.walk(top):
        found = [name for name in (*folders, *files) if name.startswith(".") and name.endswith(PARTIAL)]
        yield from (Path(folder) / name for name in found)
        folders[:] = [name for name in folders if name not in found]


def _age(path: Path) -> float:
    """When a file or folder last changed; now if it is gone by now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(paths: list[Path]) -> int:
    """Bytes on disk, where that is less than the length: decoded images have holes. What is gone by now has none."""
    total = 0
    for path in paths:
        names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files]
        for name in names if path.is_dir() else [path]:
            with contextlib.suppress(FileNotFoundError):
                stat = os.stat(name)
                total += min(stat.st_size, stat.st_blocks * 512)
    return total


def remove(garbage: Garbage) -> None:
    """Delete what ``find_garbage`` listed, and is still there."""
    for path in garbage.paths:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
