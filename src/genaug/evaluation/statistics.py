"""What may be said about a difference between two methods, from few seeds and a finite test split.

Two methods are run on the same few-shot subsets and seeds, so everything here starts from per-seed differences.
Resampling comes from scipy where scipy has it.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from genaug.core.errors import GenaugError

CONFIDENCE = 0.95
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""Quantiles between which a percentile interval lies."""
NUM_RESAMPLES, NUM_TWO_LEVEL = 9999, 2000
"""Resamples of seeds, and of seeds and test images together."""
MOST_EXACT, NUM_SIGNS = 20, 99_999
"""Differences up to which every assignment of signs is looked at, and assignments that are drawn of more."""
PIECE = 1000
"""Resamples at a time, so that they stay in the processor's cache."""
ROUNDING = 1e-12
"""Values that differ by less are equal: 0.85 - 0.2 and 1.0 - 0.35 are not the same float, and BCa of such a spread is NaN."""
LEVEL = 0.05  # of a test over a whole table
POWER = 0.8
FEWEST = 5
"""Values below which a bootstrap interval is no 95 % interval (of two it holds at most 50 %, of three at most 75 %): the
values themselves say more."""
AreaNorm = Literal["interval", "max"]


@dataclass(kw_only=True, frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(kw_only=True, frozen=True, slots=True)
class Comparison:
    """One method against its baseline, on the seeds that both have."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    """Method minus baseline, per seed."""
    mean: float
    interval: Interval | None
    """BCa bootstrap over the differences; None below ``FEWEST`` seeds."""
    p_value: float
    """Two-sided sign-flip test, exact up to 20 seeds; never below 2 / 2**n, so 1 for one seed."""

    @property
    def n(self) -> int:
        return len(self.seeds)


def compare(method: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison | None:
    """Pair two methods by seed and analyse the differences; None without a common seed.

    Args:
        method, baseline: metric by seed. Seeds that only one of them has are left out: they shrink n, not the mean.

    Raises:
        GenaugError: for a value that is NaN or infinite, of which nothing can be said.
    """
    seeds = tuple(sorted(method.keys() & baseline.keys()))
    if not seeds:
        return None
    differences = tuple(method[seed] - baseline[seed] for seed in seeds)
    if not all(map(math.isfinite, differences)):
        wrong = ", ".join(str(seed) for seed, value in zip(seeds, differences, strict=True) if not math.isfinite(value))
        raise GenaugError(
            f"The difference of seed {wrong} is not a number: one of its two runs did not measure anything."
        )
    return Comparison(
        seeds=seeds,
        differences=differences,
        mean=math.fsum(differences) / len(differences),
        interval=bootstrap_interval(differences),
        p_value=sign_flip_test(differences),
    )


def sign_flip_test(differences: Sequence[float]) -> float:
    """Two-sided p-value of "the differences are symmetric about 0": the share of assignments of signs whose sum is as far
    from 0. Exact, over all 2**n, up to ``MOST_EXACT`` differences; of more over the observed assignment and ``NUM_SIGNS``
    that are drawn at random (never below 1e-5)."""
    values_n = np.asarray(differences, dtype=np.float64)
    n, total = len(values_n), values_n.sum()
    if n < 2 or not values_n.any():
        return 1.0
    least = abs(total) - ROUNDING * abs(values_n).sum()  # equal sums may differ in their last bits
    exact, rng = n <= MOST_EXACT, np.random.default_rng(0)
    num, found = (2**n, 0) if exact else (NUM_SIGNS, 1)
    for first in range(0, num, PIECE):
        size = min(PIECE, num - first)
        if exact:
            positive_bn = np.arange(first, first + size)[:, None] >> np.arange(n) & 1
        else:
            positive_bn = np.unpackbits(rng.integers(0, 256, (size, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
        found += np.count_nonzero(abs(2 * (positive_bn @ values_n) - total) >= least)
    return found / (num if exact else num + 1)


def bootstrap_interval(values: Sequence[float]) -> Interval | None:
    """95 % BCa bootstrap interval of the mean; None below ``FEWEST`` values, the single point where all values agree."""
    if len(values) < FEWEST:
        return None
    data = np.asarray(values, dtype=np.float64)
    if np.ptp(data) < ROUNDING:
        return Interval(low=float(data[0]), high=float(data[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        found = scipy.stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=NUM_RESAMPLES,
            batch=PIECE,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high))


def two_level_interval(difference_sn: np.ndarray, classes_n: np.ndarray) -> Interval:
    """95 % percentile interval of the macro-averaged difference over seeds *and* test images (stratified by class).

    Args:
        difference_sn: [seeds, images], hit of the method minus hit of the baseline on each test image.
        classes_n: [images], the true class of each.
    """
    num_seeds, num_images = difference_sn.shape
    if classes_n.shape != (num_images,):
        raise GenaugError(f"There are {num_images} scored images, but {classes_n.shape[0]} classes.")
    rng = np.random.default_rng(0)
    names, members = np.unique(classes_n, return_inverse=True)
    estimates = np.empty(NUM_TWO_LEVEL)
    size = 100  # x images weights at a time
    for first in range(0, NUM_TWO_LEVEL, size):
        seed_weights = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size) / num_seeds
        image_weights = np.empty((size, num_images))
        for index in range(len(names)):
            of_class = np.flatnonzero(members == index)
            counts = rng.multinomial(len(of_class), np.full(len(of_class), 1 / len(of_class)), size=size)
            image_weights[:, of_class] = counts / (len(of_class) * len(names))
        estimates[first : first + size] = np.einsum(
            "bs,sn,bn->b", seed_weights, difference_sn, image_weights, optimize=True
        )
    low, high = np.quantile(estimates, ENDS)
    return Interval(low=float(low), high=float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: each may be compared with the level of the whole table."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(num_comparisons: int) -> int:
    """Seeds below which a table is ``underpowered``: 6 for one comparison, 8 for several, more where Holm needs them.

    With n seeds the smallest p-value of the sign-flip test is 2 / 2**n, and Holm multiplies it by the comparisons.
    """
    attainable = math.ceil(math.log2(2 * max(num_comparisons, 1) / LEVEL))
    return max(6 if num_comparisons <= 1 else 8, attainable)


def power_of_paired_test(effect: float, n: int, level: float = LEVEL) -> float:
    """Probability that the two-sided sign-flip test of ``n`` seeds finds a difference, for normal differences.

    Taken from the noncentral t distribution: it is that of the paired t-test, with which the sign-flip test agrees as n grows
    (Lehmann and Romano, *Testing Statistical Hypotheses*, section 15.2). At the fewest seeds whose smallest p-value, 2 / 2**n,
    reaches the level, all differences must have one sign, whose probability is exact; with fewer the power is 0.

    Args:
        effect: mean of the differences over their standard deviation (Cohen's d of pairs).
        level: of the test.
    """
    if 2 / 2**n > level:
        return 0.0
    if 4 / 2**n > level:
        return float(scipy.stats.norm.cdf(effect) ** n + scipy.stats.norm.cdf(-effect) ** n)
    shift, critical = abs(effect) * math.sqrt(n), scipy.stats.t.ppf(1 - level / 2, n - 1)
    return float(scipy.stats.nct.sf(critical, n - 1, shift) + scipy.stats.nct.cdf(-critical, n - 1, shift))


def seeds_for_power(differences: Sequence[float], num_comparisons: int = 1) -> int | None:
    """Seeds at which the paired test finds the observed difference with probability ``POWER``, if its mean and its spread are
    the true ones. Both are estimates from these seeds, so of few seeds the answer is rough.

    Args:
        differences: method minus baseline, per seed.
        num_comparisons: of the table: the test is taken at Holm's strictest step, ``LEVEL`` over this number.

    Returns:
        None where there is no spread to reckon with (fewer than two seeds) or no difference to find.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or values.mean() == 0:
        return None
    level = LEVEL / max(num_comparisons, 1)
    spread = float(values.std(ddof=1))
    n = math.ceil(math.log2(2 / level))  # the fewest at which the sign-flip test can reach the level
    if spread == 0:
        return n
    effect = float(values.mean()) / spread
    quantile = scipy.stats.norm.ppf
    normal = ((quantile(1 - level / 2) + quantile(POWER)) / effect) ** 2  # the t-test needs a little more
    if normal > 10_000:  # where the two are one
        return math.ceil(normal)
    n = max(n, math.floor(normal))
    while power_of_paired_test(effect, n, level) < POWER:
        n += 1
    return n


def area_under_curve(values: Mapping[float, float], points: Sequence[float], norm: AreaNorm) -> float:
    """Trapezoid area under a few-shot curve, divided by its interval or by its last point.

    DA-Fusion's published bars divide the area over 1, 2, 4, 8, 16 shots by 16 (``max``); the true mean over the
    interval divides it by 15 (``interval``).

    Raises:
        GenaugError: if a point of the curve is missing (the rest is never rescaled in its place), or there is only one.
    """
    ordered = sorted(set(points))
    if len(ordered) < 2:
        raise GenaugError("There is no area under one point of a curve: it needs at least two.")
    missing = [f"{point:g}" for point in ordered if point not in values]
    if missing:
        wanted = ", ".join(f"{point:g}" for point in ordered)
        raise GenaugError(f"The area under the curve needs every point of {wanted}; missing: {', '.join(missing)}.")
    area = float(scipy.integrate.trapezoid([values[point] for point in ordered], ordered))
    return area / (ordered[-1] if norm == "max" else ordered[-1] - ordered[0])
