"""Counter-based seeds: every random number is a function of names, never of the order of the work.

A seed is derived from what it is for, e.g. ``derive(image_fingerprint, "noise")``. So batch size, number of workers,
order and resumption change nothing.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

SEED_BITS = 63  # torch.Generator.manual_seed takes a signed 64-bit integer


def derive(*words: object) -> int:
    """A seed in [0, 2**63) that depends on every word and on their order."""
    text = "\x1f".join(map(str, words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)


def uniform(*words: object) -> float:
    """A number in [0, 1), uniform over different words."""
    return derive(*words) / 2**SEED_BITS


def choice(num_options: int, *words: object) -> int:
    """An index in [0, num_options), uniform over different words."""
    return int(uniform(*words) * num_options) if num_options > 1 else 0


def uniforms(seeds: Sequence[int], count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each seed, float64 [seeds, count]: SplitMix64 (Steele, Lea and Flood, 2014)."""
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = np.asarray(seeds, dtype=np.uint64)[:, None] + counters
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
