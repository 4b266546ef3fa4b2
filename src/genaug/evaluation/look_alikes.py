"""Pairs of images that show one thing: a picture saved again, neighbours in a film, a picture mirrored or turned, a copy that
says so.

Two measures, each for what the other misses. A picture that is saved again or scaled has the perceptual hash of the first and
nearly its pixels. Neighbours differ in their edges, but in a few large patches of colour they are far closer to each other
than images of the set usually are; so are mirrored and turned copies, after the turn.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genaug.data.sample import Dataset
from genaug.data.sources.base import Source
from genaug.data.sources.roboflow import ORIGINAL
from genaug.data.sources.yolo import Yolo
from genaug.evaluation.leaks import NEAR_DUPLICATE_BITS

SAME_PICTURE = 5.0
"""Mean absolute difference of two grey thumbnails (32 px, 0 to 255) below which near-copies by hash are one picture."""
PATCHES = 8
"""Side of the thumbnails in which neighbours are looked for."""
CLOSE, USUALLY_CLOSE = 0.2, 0.05
"""Neighbours are closer than this share of the distance below which this share of the other images lies. Chosen on photographs:
all of 60 that were cut by 2 of 120 pixels are found, mirrored too, and none of 12,561 pairs of others."""
ROWS = 512


def exported_copies(source: Source, dataset: Dataset) -> list[str]:
    """A warning where splits hold copies of one picture by the names that Roboflow gives them; otherwise none."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for split in ("train", "val", "test"):
        for sample in getattr(dataset, split):
            if name := re.search(ORIGINAL, Path(sample.id).name):
                places[name[1]].setdefault(split, sample.id)
    across = [ids for ids in places.values() if len(ids) > 1]
    if not across:
        return []
    example = " and ".join(f"{name} ({split})" for split, name in list(across[0].items())[:2])
    then = (
        "Write dataset=roboflow, which leaves such images out of train."
        if isinstance(source, Yolo)
        else "Take them out of train, or export the data in YOLO's format and write dataset=roboflow."
    )
    return [
        f"{len(across)} picture(s) have copies of Roboflow's in several splits, e.g. {example}: what is learned is also "
        f"scored. {then}"
    ]


def saved_again(bits: np.ndarray, grey: np.ndarray) -> set[tuple[int, int]]:
    """Pairs (i, j), i < j, of one picture.

    Args:
        bits: bool [n, 64], perceptual hashes.
        grey: float32 [n, 32, 32], thumbnails from 0 to 255.
    """
    hashes, found = bits.astype(np.int16), set()
    for first in range(0, len(hashes), ROWS):
        rows = hashes[first : first + ROWS]
        differing = rows.sum(axis=1)[:, None] + hashes.sum(axis=1)[None] - 2 * rows @ hashes.T
        for row, j in zip(*np.nonzero(differing <= NEAR_DUPLICATE_BITS), strict=True):
            i = first + int(row)
            if i < j and np.abs(grey[i] - grey[j]).mean() < SAME_PICTURE:
                found.add((i, int(j)))
    return found


def neighbours(patches: np.ndarray) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs (i, j), i < j, of neighbours as they are, and those that are neighbours mirrored or turned by right angles.

    Args:
        patches: float32 [n, 8, 8, 3], thumbnails from 0 to 255.
    """
    if len(patches) < 3:  # nothing says what is usual
        return set(), set()
    plain = _distances(patches, patches)
    rank = max(1, round(USUALLY_CLOSE * (len(patches) - 1)))
    limit = CLOSE * np.partition(plain, rank, axis=1)[:, rank]
    limits = np.minimum(limit[:, None], limit[None])
    as_they_are = _pairs(plain < limits)
    turned = set[tuple[int, int]]()
    for other in _turned(patches):
        turned |= _pairs(_distances(patches, other) < limits)
    return as_they_are, turned - as_they_are


def _pairs(matrix: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(matrix, 1)), strict=True)}


def _turned(patches: np.ndarray) -> Iterator[np.ndarray]:
    """The seven other ways to lay a square."""
    for quarter in range(4):
        turned = np.rot90(patches, quarter, axes=(1, 2))
        if quarter:
            yield turned
        yield turned[:, :, ::-1]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [n, m]: root mean square difference of each pair."""
    a, b = (np.ascontiguousarray(part, dtype=np.float32).reshape(len(part), -1) for part in (one, other))
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])
