import numpy as np
import pytest

from genaug.core.cost import duration
from genaug.evaluation.verdict import (
    Arm,
    agreement_warnings,
    judge,
    leak_warning,
    rejected_warning,
)


def arm(name, *values, generated=True, **more):
    return Arm(name=name, values=dict(enumerate(values)), generated=generated, wanted=len(values), **more)


def noisy(mean, n, spread=0.01, seed=0):
    return (mean + np.random.default_rng(seed).normal(0, spread, n)).tolist()


def text(verdict):
    return " ".join(verdict.sentences)


def test_a_clear_gain_on_eight_seeds_is_said_to_help():
    base = noisy(0.7, 8)
    verdict = judge([arm("none", *base, generated=False), arm("psld", *(v + 0.05 for v in base))], "accuracy", "digits")
    assert verdict.answer == "better" and "Generated images help here: psld" in text(verdict)
    assert (
        "+0.050" in text(verdict) and "n = 8 seeds in common" in text(verdict) and text(verdict).startswith("On digits")
    )


def test_the_best_baseline_counts_not_the_plain_one():
    base = noisy(0.7, 8)
    verdict = judge(
        [
            arm("none", *base, generated=False),
            arm("randaugment", *(v + 0.06 for v in base), generated=False),
            arm("psld", *(v + 0.05 for v in base)),
        ],
        "accuracy",
    )
    assert verdict.baseline.name == "randaugment" and verdict.answer == "worse"
    assert "do not help here" in text(verdict)


def test_the_best_of_many_methods_pays_for_having_been_picked():
    base = noisy(0.7, 8)
    methods = [arm(f"m{i}", *(v + 0.05 + 0.001 * i for v in base)) for i in range(7)]
    verdict = judge([arm("none", *base, generated=False), *methods], "accuracy")
    assert verdict.num_comparisons == 7 and verdict.p_adjusted == pytest.approx(7 * 2 / 2**8)
    assert verdict.answer == "open", "7 x 2 / 2**8 = .055: eight seeds cannot tell among seven methods"
    assert "with 8 seeds no difference could pass the test" in text(verdict)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_never_tell(n):
    base = noisy(0.5, n)
    verdict = judge([arm("none", *base, generated=False), arm("psld", *(v + 0.3 for v in base))], "accuracy")
    assert verdict.answer == "open" and "cannot be told" in text(verdict) and "help here" not in text(verdict)
    assert "no interval from so few seeds" in text(verdict) and f"n = {n} seed" in text(verdict)
    assert "at least 6 seeds" in text(verdict) if n == 1 else "a rough guess" in text(verdict)


def test_an_open_question_says_how_many_seeds_would_answer_it():
    base = noisy(0.7, 8)
    other = [v + 0.01 + d for v, d in zip(base, noisy(0.0, 8, 0.012, seed=3), strict=True)]
    verdict = judge([arm("none", *base, generated=False), arm("psld", *other)], "accuracy")
    assert verdict.answer == "open" and verdict.seeds is not None and verdict.seeds > 8
    assert f"about {verdict.seeds} seeds, {verdict.seeds - 8} more" in text(verdict) and "80% probability" in text(
        verdict
    )


def test_no_gain_asks_for_no_seeds_to_prove_one():
    base = noisy(0.7, 8)
    other = [v - 0.001 + d for v, d in zip(base, noisy(0.0, 8, 0.02, seed=5), strict=True)]
    verdict = judge([arm("none", *base, generated=False), arm("psld", *other)], "accuracy")
    assert verdict.answer == "open" and (verdict.comparison.mean > 0) == (verdict.seeds is not None)


def test_rows_without_a_partner_are_named():
    alone = text(judge([arm("psld", 0.5)], "accuracy"))
    assert "no baseline to compare psld" in alone and "without generated images (generator=none), too." in alone
    alone = text(judge([arm("none", 0.5, generated=False)], "accuracy"))
    assert "no finished run used generated images" in alone and "with a generator, too." in alone
    apart = judge(
        [Arm(name="none", values={0: 0.5}, generated=False), Arm(name="m", values={1: 0.6}, generated=True)], "x"
    )
    assert apart.answer == "nothing" and "no seed in common" in text(apart)


def test_costs_and_missing_seeds_are_stated():
    verdict = judge(
        [
            arm("none", 0.5, generated=False, hours=0.25),
            Arm(name="m", values={0: 0.6}, generated=True, wanted=8, images={"pool": 1200}),
            Arm(name="m, other augmentation", values={0: 0.5}, generated=True, wanted=1, images={"pool": 1000}),
        ],
        "accuracy",
    )
    assert verdict.sentences[2] == "1,200 generated images were used and all runs took 15.0 minutes."
    assert verdict.warnings == ["Seeds are missing: m 1 of 8."]
    alike = [Arm(name=name, values={0: 0.6}, generated=name == "m", wanted=8) for name in ("none, flip_crop", "m")]
    assert judge(alike, "accuracy").warnings == ["Seeds are missing: each row has 1 of 8."]
    assert [duration(hours) for hours in (2.5, 0.5, 0.001, 0.0003, 0.0001)] == [
        "2.5 hours", "30.0 minutes", "4 seconds", "a second", "a second or less",
    ]  # fmt: skip


def test_percentages_are_points():
    verdict = judge([arm("none", 70, 71, generated=False), arm("m", 72, 74)], "accuracy", percent=True)
    assert "73.0 %" in text(verdict) and "+2.5 points" in text(verdict)


def test_strengths_that_lose_the_class_are_named_and_a_weak_judge_is_not_trusted():
    (line,) = agreement_warnings("da_fusion", 0.95, {"t0 0.25": (93, 100), "t0 0.75": (41, 100)})
    assert "41% at t0 0.75" in line and "0.25" not in line and "Other strengths keep it" in line
    assert agreement_warnings("m", 0.95, {"t0 0.25": (93, 100)}) == []
    (weak,) = agreement_warnings("m", 0.4, {"t0 0.25": (10, 100)})
    assert "cannot be told" in weak and "40%" in weak


def test_rejections_and_leaks_are_warned_about_from_a_share_on():
    assert rejected_warning("m", {"blank": 5}, 100) is None
    assert "30% of the generated images were rejected (blank 30)" in rejected_warning("m", {"blank": 30}, 100)
    assert (
        leak_warning("m", None) is None and leak_warning("m", {"unusual_share": 0.02, "expected_share": 0.01}) is None
    )
    assert "5.0%" in leak_warning("m", {"unusual_share": 0.05, "expected_share": 0.01})


def test_who_has_run_enough_seeds_is_not_told_to_run_fewer():
    def said(n):
        real, made = [0.5 + i / 100 for i in range(n)], [0.49 + i / 100 + (i % 2) / 100 for i in range(n)]
        return text(judge([arm("none", *real, generated=False), arm("m", *made)], "accuracy"))

    assert "not above the baseline (run at least 6 seeds to be sure)." in said(3)
    assert "not above the baseline." in said(7)


def test_a_strength_is_doubted_by_the_share_of_what_the_judge_itself_gets_right():
    assert agreement_warnings("m", 0.7, {"t0 0.5": (60, 100)}) == []  # more than .8 of .7
    (said,) = agreement_warnings("m", 0.9, {"t0 0.5": (60, 100)})
    assert "60% at t0 0.5" in said
