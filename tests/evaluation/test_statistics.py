"""Statistics against hand-made cases, closed forms and DA-Fusion's published bars."""

import itertools
import math

import numpy as np
import pytest
import scipy

from genaug.core.errors import GenaugError
from genaug.evaluation.statistics import (
    area_under_curve,
    bootstrap_interval,
    compare,
    holm,
    power_of_paired_test,
    seeds_for_power,
    seeds_needed,
    sign_flip_test,
    two_level_interval,
)

SHOTS = (1, 2, 4, 8, 16)
# methods/da_fusion.md section 10: (values over SHOTS, published bar); ranges and "~" by their midpoints
FIGURE_7 = {
    "PASCAL baseline": ((0.520, 0.620, 0.707, 0.770, 0.811), 0.6985),
    "PASCAL Real Guidance": ((0.499, 0.599, 0.691, 0.755, 0.804), 0.6850),
    "PASCAL DA-Fusion": ((0.629, 0.709, 0.755, 0.799, 0.820), 0.7325),
    "COCO baseline": ((0.240, 0.31, 0.404, 0.472, 0.523), 0.4189),
    "COCO Real Guidance": ((0.229, 0.303, 0.393, 0.462, 0.511), 0.4145),
    "COCO DA-Fusion": ((0.277, 0.376, 0.467, 0.527, 0.582), 0.4746),
    "Spurge baseline": ((0.62, 0.723, 0.793, 0.844, 0.881), 0.7730),
    "Spurge Real Guidance": ((0.614, 0.711, 0.801, 0.852, 0.884), 0.7765),
    "Spurge DA-Fusion": ((0.633, 0.732, 0.819, 0.872, 0.876), 0.7879),
}


@pytest.mark.parametrize(("n", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 2 / 1024)])
def test_the_smallest_p_value_of_n_seeds_is_two_over_two_to_the_n(n: int, smallest: float) -> None:
    assert sign_flip_test([0.1 * (i + 1) for i in range(n)]) == pytest.approx(smallest, rel=1e-12)


def test_sign_flips_are_counted_by_hand() -> None:
    # means of (±1 ±2 ±4): |sum| >= |1 + 2 - 4| = 1 for all eight; >= |1 - 2 + 4| = 3 for six of them
    assert sign_flip_test([1, 2, -4]) == pytest.approx(1.0)
    assert sign_flip_test([1, -2, 4]) == pytest.approx(6 / 8)
    assert sign_flip_test([0, 0, 0]) == 1.0


def test_sums_that_are_equal_up_to_rounding_count_as_equally_far_from_zero() -> None:
    hits = [3, -3, -1, -2, 1, 2, -1, -3, -3, 2]  # of one method beyond the other's, per seed
    sums = [
        abs(sum(s * h for s, h in zip(signs, hits, strict=True))) for signs in itertools.product((1, -1), repeat=10)
    ]
    expected = sum(total >= abs(sum(hits)) for total in sums) / 2**10
    assert sign_flip_test([(300 + h) / 719 - 300 / 719 for h in hits]) == expected == 598 / 1024
    hits, before = [3, 1, 0, -2, -2, -4, -4, -4], [370, 625, 559, 665, 501, 542, 688, 591]
    differences = [(b + h) / 719 - b / 719 for h, b in zip(hits, before, strict=True)]
    assert sign_flip_test(differences) == sign_flip_test(hits) == 48 / 256


def test_of_many_seeds_the_signs_are_drawn_at_random() -> None:
    assert sign_flip_test([1.0] * 25) == pytest.approx(1e-5)  # of 99,999 draws none is as far from 0
    values = np.random.default_rng(1).normal(0.15, 1, size=150)
    normal = 2 * scipy.stats.norm.sf(abs(values.sum()) / math.sqrt((values**2).sum()))
    assert sign_flip_test(values.tolist()) == pytest.approx(normal, abs=0.01)


def test_a_missing_seed_shrinks_n_and_never_the_mean() -> None:
    method = {0: 0.8, 1: 0.9, 2: 0.7}
    baseline = {0: 0.5, 2: 0.6, 7: 0.1}
    found = compare(method, baseline)
    assert found is not None
    assert found.seeds == (0, 2)
    assert found.mean == pytest.approx((0.3 + 0.1) / 2)
    assert compare({0: 1.0}, {1: 1.0}) is None


def test_fewer_than_five_seeds_have_no_interval_and_equal_differences_have_a_point() -> None:
    for n in range(1, 5):
        assert bootstrap_interval([0.1 * i for i in range(n)]) is None
    for same in ([0.3] * 5, [0.85 - 0.55, 1.0 - 0.7, 0.95 - 0.65, 0.5 - 0.2, 0.3]):  # equal up to rounding
        point = bootstrap_interval(same)
        assert point is not None and (point.low, point.high) == pytest.approx((0.3, 0.3), rel=1e-12)


def test_one_seed_has_a_difference_and_a_p_value_of_one() -> None:
    found = compare({0: 0.8}, {0: 0.5})
    assert found is not None
    assert (found.n, found.p_value, found.interval) == (1, 1.0, None)
    assert found.mean == pytest.approx(0.3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_said_of_a_difference_that_is_no_number(value: float) -> None:
    with pytest.raises(GenaugError, match="seed 1 is not a number"):
        compare({0: 0.8, 1: value}, {0: 0.5, 1: 0.5})


def skewed(n: int) -> list[float]:
    return (np.random.default_rng(5).exponential(size=n) ** 2).tolist()


def normal_quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


def bca_by_hand(values: list[float], num_resamples: int = 200_000) -> tuple[float, float]:
    """Efron's BCa interval of the mean (1987), written out: bias from the resamples, acceleration from the jackknife."""
    from statistics import NormalDist

    data = np.asarray(values)
    means = np.sort(np.random.default_rng(6).choice(data, size=(num_resamples, len(data))).mean(axis=1))
    bias = normal_quantile(float((means < data.mean()).mean()))
    without = np.array([np.delete(data, i).mean() for i in range(len(data))])
    away = without.mean() - without
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    bounds = []
    for share in (0.025, 0.975):
        moved = bias + normal_quantile(share)
        bounds.append(float(np.quantile(means, NormalDist().cdf(bias + moved / (1 - acceleration * moved)))))
    return bounds[0], bounds[1]


def test_the_interval_is_efrons_bca_and_neither_the_percentile_nor_the_basic_one() -> None:
    values = skewed(10)
    interval = bootstrap_interval(values)
    assert interval is not None
    low, high = bca_by_hand(values)
    noise = 0.08 * (high - low)  # of 9,999 resamples in the tails of a skewed sample
    assert interval.low == pytest.approx(low, abs=noise)
    assert interval.high == pytest.approx(high, abs=noise)
    means = np.random.default_rng(7).choice(values, size=(200_000, len(values))).mean(axis=1)
    percentile = np.quantile(means, [0.025, 0.975])
    basic = 2 * np.mean(values) - percentile[::-1]
    for other in (percentile, basic):
        assert abs(interval.high - other[1]) > 2 * noise


def test_the_power_is_the_share_of_experiments_that_the_test_finds() -> None:
    rng = np.random.default_rng(8)
    for effect, n in ((1.0, 10), (1.5, 6)):  # 6: the fewest seeds at which the test can reach the level
        found = [sign_flip_test(rng.normal(effect, 1, size=n).tolist()) <= 0.05 for _ in range(300)]
        assert np.mean(found) == pytest.approx(power_of_paired_test(effect, n), abs=0.075)  # three standard errors
    assert power_of_paired_test(100.0, 5) == 0  # 2 / 2**5 is above .05


def test_the_seeds_for_power_are_the_fewest_that_reach_it() -> None:
    assert seeds_for_power([0.19, 0.21]) == 6  # a large effect: no fewer can be tested
    for differences in ([0.01, 0.03, -0.01], [0.01, 0.02, 0.01, 0.04, -0.02]):
        effect = np.mean(differences) / np.std(differences, ddof=1)
        for num_comparisons in (1, 4):
            n = seeds_for_power(differences, num_comparisons)
            assert n is not None
            powers = [power_of_paired_test(float(effect), m, 0.05 / num_comparisons) for m in (n - 1, n)]
            assert powers[0] < 0.8 <= powers[1]
    assert seeds_for_power([-0.01, -0.03, 0.01]) == seeds_for_power([0.01, 0.03, -0.01])
    # Cohen's table for a paired test, d = .5: 34 pairs
    pairs = [0.5 + sign / math.sqrt(2) for sign in (1, -1)]
    assert seeds_for_power(pairs) == 34


def test_no_number_of_seeds_finds_nothing() -> None:
    assert seeds_for_power([0.1]) is None
    assert seeds_for_power([0.1, -0.1]) is None
    assert seeds_for_power([0.2, 0.2, 0.2]) == 6
    assert seeds_for_power([0.001, 1.0, -1.0]) > 10_000  # type: ignore[operator]


def test_the_bca_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        interval = bootstrap_interval(rng.normal(0.5, 1, size=30).tolist())
        assert interval is not None
        hits += interval.low <= 0.5 <= interval.high
    # 60 draws at 95 %: fewer than 50 would happen once in 3,000 times
    assert hits >= 50


def test_the_bca_interval_of_a_large_normal_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(2).normal(size=400)
    interval = bootstrap_interval(values.tolist())
    assert interval is not None
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)  # resampling noise of 9,999 draws
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_two_level_interval_has_the_test_splits_own_noise() -> None:
    # one seed leaves the noise of 1,000 test images alone: SE sqrt(p (1 - p) / n), the baseline being always wrong
    hits = (np.random.default_rng(3).uniform(size=(1, 1000)) < 0.8).astype(float)
    interval = two_level_interval(hits, np.zeros(1000, dtype=int))
    standard_error = math.sqrt(0.8 * 0.2 / 1000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_the_two_level_interval_is_macro_averaged_and_stratified() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    difference = np.where(classes == 1, 1.0, 0.0)[None].repeat(4, axis=0)
    interval = two_level_interval(difference, classes)
    assert (interval.low, interval.high) == pytest.approx(
        (0.5, 0.5)
    )  # a class's images stay of that class in each resample


def test_more_seeds_give_a_narrower_two_level_interval() -> None:
    rng = np.random.default_rng(4)
    seeds = rng.normal(0.05, 0.05, size=16)
    difference = seeds[:, None] + rng.normal(0, 0.3, size=(16, 200))
    classes = np.arange(200) % 5
    wide, narrow = two_level_interval(difference[:4], classes), two_level_interval(difference, classes)
    assert narrow.high - narrow.low < wide.high - wide.low


def test_holm_steps_down_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_tables_of_many_comparisons_need_more_seeds() -> None:
    assert [seeds_needed(m) for m in (1, 2, 6, 7, 20)] == [6, 8, 8, 9, 10]
    for m in (7, 20):
        assert m * 2 / 2 ** seeds_needed(m) <= 0.05 < m * 2 / 2 ** (seeds_needed(m) - 1)


@pytest.mark.parametrize("row", FIGURE_7)
def test_the_area_over_sixteen_reproduces_the_published_bars(row: str) -> None:
    values, bar = FIGURE_7[row]
    curve = dict(zip(SHOTS, values, strict=True))
    assert area_under_curve(curve, SHOTS, "max") == pytest.approx(
        bar, abs=0.005
    )  # lines digitised to ±.003, "~" to ±.005
    assert area_under_curve(curve, SHOTS, "interval") == pytest.approx(area_under_curve(curve, SHOTS, "max") * 16 / 15)


def test_a_missing_point_of_the_curve_raises() -> None:
    with pytest.raises(GenaugError, match="missing: 4"):
        area_under_curve({1: 0.5, 2: 0.6, 8: 0.7, 16: 0.8}, SHOTS, "max")


@pytest.mark.parametrize("norm", ["max", "interval"])
def test_one_point_has_no_area(norm: str) -> None:
    with pytest.raises(GenaugError, match="one point"):
        area_under_curve({4: 0.5}, [4, 4], norm)  # type: ignore[arg-type]
