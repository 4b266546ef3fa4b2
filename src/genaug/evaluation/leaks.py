"""The leak audit: does a pool copy what the generator saw, and does the prior know the test images?

Three directions, each by the nearest neighbour in a backbone's features and by a perceptual hash:

1. synthetic against the training images: copying;
2. synthetic against test images: a leak from the prior, judged against the same statistic of real training against test
   images, so that no absolute threshold is needed;
3. real training against test images: near-duplicates in the data set itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from PIL import Image

from genaug.core.files import write_json
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample
from genaug.evaluation.features import features_of, normalised

HASH_SIDE, HASH_DETAIL = 8, 32
NEAR_DUPLICATE_BITS = 4  # of 64 that may differ
QUANTILE = 0.99  # of real training images' similarity to test: what is above it is unusual
NUM_PAIRS = 12
ROWS = 1024  # of a table of similarities that are in memory at once


@dataclass(kw_only=True, frozen=True, slots=True)
class Direction:
    """Nearest neighbours of one set in another."""

    name: str
    similarity: np.ndarray
    """float64 [n]: cosine similarity of each image to its nearest one."""
    nearest: np.ndarray
    """int64 [n]: index of that one."""
    bits: np.ndarray
    """int64 [n]: differing bits of the perceptual hashes of the pair closest by hash."""


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """bool [64]: signs of the low-frequency DCT coefficients of the grey image against their median."""
    grey = np.asarray(image.convert("L").resize((HASH_DETAIL, HASH_DETAIL), Image.Resampling.LANCZOS), dtype=np.float64)
    low = scipy.fft.dctn(grey)[:HASH_SIDE, :HASH_SIDE].reshape(-1)  # type: ignore[index]
    return low > np.median(low[1:])


def nearest(name: str, queries: Sequence[Sample], others: Sequence[Sample], backbone: str, store: Store) -> Direction:
    """The most similar of ``others`` for each of ``queries``."""
    a = normalised(features_of(queries, backbone, store.root)).astype(np.float64)
    b = normalised(features_of(others, backbone, store.root)).astype(np.float64)
    hashes_a = np.stack([perceptual_hash(s.open()) for s in queries]).astype(np.int64)
    hashes_b = np.stack([perceptual_hash(s.open()) for s in others]).astype(np.int64)
    similarity, index, bits = [], [], []
    for first in range(0, len(a), ROWS):
        rows = slice(first, first + ROWS)
        table = a[rows] @ b.T
        index.append(table.argmax(axis=1))
        similarity.append(table.max(axis=1))
        # differing bits = |a| + |b| - 2 a.b
        differing = hashes_a[rows].sum(axis=1)[:, None] + hashes_b.sum(axis=1)[None] - 2 * hashes_a[rows] @ hashes_b.T
        bits.append(differing.min(axis=1))
    return Direction(
        name=name, similarity=np.concatenate(similarity), nearest=np.concatenate(index), bits=np.concatenate(bits)
    )


def threshold_of(similarity: np.ndarray) -> float:
    """The real training images' similarity above which a synthetic one is unusual: an order statistic, not interpolated."""
    return float(np.quantile(similarity, QUANTILE, method="higher"))


def expected_share(n: int) -> float:
    """Share above ``threshold_of`` n similarities that is expected of images from the same distribution, thus without a leak.

    The r-th smallest of n leaves 1 - r / (n + 1) above it on average, whatever the (continuous) distribution.
    """
    rank = math.ceil((n - 1) * QUANTILE - 1e-9) + 1
    return 1 - rank / (n + 1)


def audit(pool: Pool, dataset: Dataset, store: Store, backbone: str, folder: Path) -> dict[str, Any]:
    """Run the three directions and write ``leaks.json`` with the nearest pairs' thumbnails into ``folder``."""
    copying = nearest("train", pool.samples, dataset.train, backbone, store)
    prior = nearest("test", pool.samples, dataset.test, backbone, store)
    real = nearest("train to test", dataset.train, dataset.test, backbone, store)
    threshold = threshold_of(real.similarity)
    unusual = prior.similarity > threshold
    expected = expected_share(len(dataset.train))
    summary = [
        f"Features: {backbone}; perceptual hash: {HASH_SIDE**2} bits, near-duplicate at {NEAR_DUPLICATE_BITS} or fewer.",
        f"Synthetic against training images ({len(pool.samples)} against {len(dataset.train)}): median similarity "
        f"{np.median(copying.similarity):.3f}, {_near(copying)} near-duplicates by hash.",
        f"Synthetic against test images: {unusual.mean():.1%} are more similar to a test image than {QUANTILE:.0%} of the real "
        f"training images are ({expected:.1%} is expected without a leak, as there are {len(dataset.train)} of these); "
        f"{_near(prior)} near-duplicates by hash.",
        f"Real training against test images: median similarity {np.median(real.similarity):.3f}, {_near(real)} near-duplicates "
        "by hash.",
    ]
    pairs = []
    for direction, queries, others in (
        (prior, pool.samples, dataset.test),
        (copying, pool.samples, dataset.train),
        (real, dataset.train, dataset.test),
    ):
        for i in np.argsort(-direction.similarity, kind="stable")[: NUM_PAIRS // 3]:
            pairs.append(
                _pair(
                    len(pairs),
                    direction,
                    queries[i],
                    others[direction.nearest[i]],
                    float(direction.similarity[i]),
                    folder,
                )
            )
    found = {
        "features": backbone,
        "threshold": threshold,
        "unusual_share": float(unusual.mean()),
        "expected_share": expected,
        "reference_images": len(dataset.train),
        "near_duplicates": {d.name: _near(d) for d in (copying, prior, real)},
        "summary": summary,
        "pairs": pairs,
    }
    write_json(folder / "leaks.json", found)
    return found


def _near(direction: Direction) -> int:
    return int((direction.bits <= NEAR_DUPLICATE_BITS).sum())


def _pair(
    number: int, direction: Direction, query: Sample, other: Sample, similarity: float, folder: Path
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    sides = {}
    for side, sample in (("synthetic", query), ("real", other)):
        name = f"{number:02d}_{side}.png"
        picture = sample.open()
        picture.thumbnail((128, 128))
        picture.save(folder / name)
        sides[side] = {"id": sample.id, "file": name}
    return {**sides, "direction": direction.name, "similarity": float(similarity)}
