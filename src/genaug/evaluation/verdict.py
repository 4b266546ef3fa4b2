"""Do generated images help here? One answer in three sentences, from a table's rows, and no bolder than its seeds.

Every row that used generated images is compared with the best row that used none, paired by seed; Holm's adjustment counts
all of these comparisons, so the best of many is not called better for having been picked. Nothing here reads files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genaug.core.cost import duration
from genaug.evaluation.statistics import (
    LEVEL,
    POWER,
    Comparison,
    compare,
    holm,
    seeds_for_power,
    seeds_needed,
)

Answer = Literal["better", "worse", "open", "nothing"]
MANY = 1000  # seeds: who would need more sees a difference too small to matter
FEW_JUDGED = 0.6
"""Accuracy of a judge on real images below which its opinion of generated ones is not reported."""
DOUBTFUL = 0.8
"""Agreement with the label, as a share of the judge's own accuracy, below which a strength is warned about."""
MANY_REJECTED = 0.1


@dataclass(kw_only=True, slots=True)
class Arm:
    """One row of a table: a method at one setting."""

    name: str
    values: Mapping[int, float]
    """Metric by seed; more is better."""
    generated: bool
    """Whether it trained on generated images."""
    wanted: int = 0
    """Seeds that were asked for."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Accepted generated images, by their pool; rows that share one did not need them twice."""
    hours: float = 0.0
    oracle: bool = False
    """Whether the test split chose what is reported."""

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)


@dataclass(kw_only=True, slots=True)
class Verdict:
    """The answer with what it rests on."""

    where: str
    """Data set and column."""
    metric: str
    percent: bool
    answer: Answer
    """Of the best method: ``better`` or ``worse`` than the best baseline, ``open`` if that cannot be told, ``nothing`` if there
    is nothing to compare."""
    method: Arm | None
    baseline: Arm | None
    comparison: Comparison | None
    p_adjusted: float | None
    num_comparisons: int
    seeds: int | None
    """Seeds at which a difference like the observed one would probably be found; None where it cannot be reckoned."""
    images: int
    hours: float
    sentences: list[str] = field(default_factory=list)
    """Three: the numbers, what may be said, what it cost."""
    warnings: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it in one paragraph."""
        return " ".join([*self.sentences, *(f"Careful: {warning}" for warning in self.warnings)])


def judge(arms: Sequence[Arm], metric: str, where: str = "", percent: bool = False) -> Verdict:
    """The verdict on one column of a table.

    Args:
        arms: its rows; those without values are left out.
        metric: name, for the sentences.
        where: data set and column, for the sentences.
        percent: whether values are percentages instead of fractions.
    """
    measured = [arm for arm in arms if arm.values]
    pools: Counter[str] = Counter()
    for arm in measured:
        pools |= Counter(arm.images)
    verdict = Verdict(
        where=where,
        metric=metric,
        percent=percent,
        answer="nothing",
        method=max((arm for arm in measured if arm.generated), key=lambda arm: arm.mean, default=None),
        baseline=max((arm for arm in measured if not arm.generated), key=lambda arm: arm.mean, default=None),
        comparison=None,
        p_adjusted=None,
        num_comparisons=0,
        seeds=None,
        images=pools.total(),
        hours=sum(arm.hours for arm in measured),
    )
    if verdict.method is not None and verdict.baseline is not None:
        compared = [(arm, compare(arm.values, verdict.baseline.values)) for arm in measured if arm.generated]
        pairs = [(arm, found) for arm, found in compared if found is not None]
        verdict.num_comparisons = len(pairs)
        for (arm, found), p in zip(pairs, holm([found.p_value for _, found in pairs]), strict=True):
            if arm is verdict.method:
                verdict.comparison, verdict.p_adjusted = found, p
        verdict.answer = _answer(verdict)
        if verdict.answer == "open" and verdict.comparison is not None and verdict.comparison.mean > 0:
            verdict.seeds = seeds_for_power(verdict.comparison.differences, verdict.num_comparisons)
    verdict.sentences = [_numbers(verdict), _meaning(verdict), _cost(verdict)]
    verdict.warnings = _incomplete(measured)
    return verdict


def _answer(verdict: Verdict) -> Answer:
    if verdict.comparison is None:
        return "nothing"
    if verdict.p_adjusted is None or verdict.p_adjusted >= LEVEL:
        return "open"
    return "better" if verdict.comparison.mean > 0 else "worse"


def _numbers(verdict: Verdict) -> str:
    """What was measured."""
    place = f"On {verdict.where}, " if verdict.where else ""
    method, baseline, found = verdict.method, verdict.baseline, verdict.comparison
    if method is None:
        return f"{place}no finished run used generated images, so there is nothing to compare."
    if baseline is None:
        return f"{place}no finished run did without generated images, so there is no baseline to compare {method.name} with."
    said = (
        f"{place}the best method with generated images is {method.name} ({verdict.metric} {_number(verdict, method.mean)}, "
        f"n = {len(method.values)}) and the best baseline without them is {baseline.name} "
        f"({_number(verdict, baseline.mean)}, n = {len(baseline.values)})"
    )
    if found is None:
        return f"{said}, but they have no seed in common."
    interval = "no interval from so few seeds"
    if found.interval is not None:
        low, high = (_signed(verdict, bound) for bound in (found.interval.low, found.interval.high))
        interval = f"95 % interval {low} to {high}"
    family = (
        "the only comparison" if verdict.num_comparisons == 1 else f"after Holm over {verdict.num_comparisons} methods"
    )
    return (
        f"{said}: a paired difference of {_signed(verdict, found.mean)} ({interval}; p = {verdict.p_adjusted:.2g}, {family}; "
        f"n = {found.n} seed{'s' if found.n > 1 else ''} in common)."
    )


def _meaning(verdict: Verdict) -> str:
    """What may be said."""
    found, method = verdict.comparison, verdict.method
    if verdict.method is None or verdict.baseline is None:
        lacks = "without generated images (generator=none)" if verdict.baseline is None else "with a generator"
        return (
            "Whether generated images help cannot be told from these runs: it takes the same command, with the same seeds, "
            f"{lacks}, too."
        )
    if found is None or method is None:
        return "Whether generated images help cannot be told from these runs."
    if verdict.answer == "better":
        return f"Generated images help here: {method.name} is better than every baseline that was tried."
    if verdict.answer == "worse":
        return "Generated images do not help here: even the best method with them is worse than the best baseline."
    least = seeds_needed(verdict.num_comparisons)
    if found.n == 1:
        return (
            "Whether generated images help cannot be told: one seed shows no spread, and the difference may be chance. "
            f"Run at least {least} seeds."
        )
    if 2 / 2**found.n * verdict.num_comparisons >= LEVEL:
        start = f"Whether generated images help cannot be told: with {found.n} seeds no difference could pass the test"
    else:
        start = "Whether generated images help cannot be told: the difference is within what chance gives"
    if found.mean <= 0:
        more = f" (run at least {least} seeds to be sure)" if found.n < least else ""
        return f"{start}, and so far even the best method is not above the baseline{more}."
    if verdict.seeds is None or verdict.seeds > MANY:
        return f"{start}, and at the observed spread so small a difference would take more than {MANY} seeds to find."
    wanted = max(verdict.seeds, least)
    rough = " (a rough guess from so few)" if found.n < least else ""
    if wanted <= found.n:
        return (
            f"{start}, although {wanted} seeds should have sufficed at the observed spread: the differences are uneven."
        )
    return (
        f"{start}. At the observed spread about {wanted} seeds{rough}, {wanted - found.n} more, would find a true difference "
        f"of this size with {POWER:.0%} probability (paired t-test at the level that Holm leaves)."
    )


def _cost(verdict: Verdict) -> str:
    images = f"{verdict.images:,} generated images were" if verdict.images != 1 else "1 generated image was"
    return f"{images} used and all runs took {duration(verdict.hours)}."


def _incomplete(arms: Sequence[Arm]) -> list[str]:
    lines = []
    counts = {arm.name: f"{len(arm.values)} of {arm.wanted}" for arm in arms}
    missing = [f"{arm.name} {counts[arm.name]}" for arm in arms if len(arm.values) < arm.wanted]
    if len(missing) > 1 and len(set(counts.values())) == 1:
        missing = [f"each row has {next(iter(counts.values()))}"]
    if missing:
        lines.append(f"Seeds are missing: {'; '.join(missing)}.")
    if any(arm.oracle for arm in arms):
        lines.append(
            "The test split chose what is reported of some runs (marked oracle), so their numbers are too good."
        )
    return lines


def _number(verdict: Verdict, value: float) -> str:
    return f"{value:.1f} %" if verdict.percent else f"{value:.3f}"


def _signed(verdict: Verdict, value: float) -> str:
    return f"{value:+.1f} points" if verdict.percent else f"{value:+.3f}"


def rejected_warning(name: str, rejected: Mapping[str, int], total: int) -> str | None:
    """A sentence where many generated images were rejected."""
    count = sum(rejected.values())
    if not total or count / total < MANY_REJECTED:
        return None
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(rejected.items(), key=lambda pair: -pair[1]))
    return f"{name}: {count / total:.0%} of the generated images were rejected ({reasons})."


def leak_warning(name: str, audit: Mapping[str, float] | None) -> str | None:
    """A sentence where the audit of a pool finds more images like test images than chance gives."""
    if audit is None:
        return None
    found, expected = audit["unusual_share"], audit["expected_share"]
    if found <= 2 * expected:
        return None
    return (
        f"{name}: the leak audit finds {found:.1%} of the images unusually like a test image, where {expected:.1%} are "
        "expected without a leak: the prior may know the test set."
    )


def agreement_warnings(name: str, accuracy: float, agreement: Mapping[str, tuple[int, int]]) -> list[str]:
    """Sentences on strengths at which images stop looking like their class.

    Args:
        accuracy: of the judge on real images that it was not trained on.
        agreement: by strength, e.g. ``t0 0.5``: images that the judge gives their label, and all images.
    """
    if accuracy < FEW_JUDGED:
        return [
            f"Whether generated images still look like their class cannot be told: the judge is right on only {accuracy:.0%} "
            "of the real images."
        ]
    lost = {
        strength: right / total
        for strength, (right, total) in agreement.items()
        if total and right / total < DOUBTFUL * accuracy
    }
    if not lost:
        return []
    shown = ", ".join(f"{share:.0%} at {strength}" if strength else f"{share:.0%}" for strength, share in lost.items())
    rest = " Other strengths keep it." if len(lost) < len(agreement) else ""
    return [
        f"{name}: images lose their class. A judge that is right on {accuracy:.0%} of the real images finds the label of the "
        f"generated ones in {shown}.{rest}"
    ]
