"""What of the store no result uses any more, and its removal."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from genaug.runs.collection import cell_states

YOUNG = 24 * 3600  # seconds: what a running cell may just have made is kept


@dataclass(kw_only=True, slots=True)
class Garbage:
    """Files and folders that no complete cell refers to."""

    paths: list[Path]
    num_bytes: int


def find_garbage(outputs: Path, now: float | None = None) -> Garbage:
    """Pools that no complete cell read and images that no pool holds, older than a day; fitted artefacts are small and stay."""
    store = outputs / "store"
    used = {state.result["pool"] for state in cell_states(outputs / "runs") if state.result is not None}
    oldest = (time.time() if now is None else now) - YOUNG
    pools = [p for p in _children(store / "pools") if p.name not in used and p.stat().st_mtime < oldest]
    kept = {image.stem for pool in _children(store / "pools") if pool not in pools for image in pool.glob("*/*.png")}
    images = [
        image
        for folder in _children(store / "images")
        for image in folder.glob("*.png")
        if image.stem not in kept and image.stat().st_mtime < oldest
    ]
    # an image and its hard link in a pool are one file on disk
    size = sum(image.stat().st_size for image in images)
    return Garbage(paths=[*pools, *images], num_bytes=size)


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def remove(garbage: Garbage) -> None:
    for path in garbage.paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
