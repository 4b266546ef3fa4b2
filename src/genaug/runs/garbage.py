"""What of the store no run uses any more, and its removal."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from genaug.core.store import Store
from genaug.runs.collection import cell_states

YOUNG = 24 * 3600  # seconds: what a run may just have made is kept


@dataclass(kw_only=True, slots=True)
class Garbage:
    """Files and folders that no run refers to."""

    paths: list[Path]
    num_bytes: int


def find_garbage(outputs: Path, now: float | None = None) -> Garbage:
    """Pools that no run needs and images that no pool holds, older than a day; fitted artefacts are small and stay.

    A run states what it needs (``artefacts``) as soon as it has read its data, so an unfinished one keeps its pool, too.
    """
    store = Store(outputs / "store")
    needed: set[Path] = set()
    for state in cell_states(outputs / "runs"):
        needed |= {outputs / path for path in state.artefacts}
        if state.result is not None and state.result["pool"]:
            needed.add(store.pool(state.result["pool"]))
    oldest = (time.time() if now is None else now) - YOUNG
    pools = [p for p in store.pools() if p not in needed and p.stat().st_mtime < oldest]
    kept = {image.stem for pool in store.pools() if pool not in pools for image in pool.glob("*/*.png")}
    images = sorted(p for p in store.images() if p.stem not in kept and p.stat().st_mtime < oldest)
    # an image and its hard link in a pool are one file on disk
    return Garbage(paths=[*pools, *images], num_bytes=sum(image.stat().st_size for image in images))


def remove(garbage: Garbage) -> None:
    """Delete what ``find_garbage`` listed."""
    for path in garbage.paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
