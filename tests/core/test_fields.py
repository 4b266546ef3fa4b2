"""What a field may hold stands on the field, and nothing else passes."""

from dataclasses import dataclass, field

import pytest

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import bounded, choice, count, positive, probability, seed
from genaug.core.registry import section


@section("thing", "thing")
@dataclass(kw_only=True, slots=True)
class Thing:
    t0: object = bounded(0.5, 0, 1, above=True)
    steps: int = count(5, most=1000)
    rate: float = positive(1e-3)
    share: float = probability(0.5)
    kind: str = choice("a", ("a", "b"))
    sizes: list[int] = count([1, 2])
    save_size: int | None = count(None)
    seed: int = seed(0)
    free: float = 0.0
    number: int = 0
    nested: dict[str, float] = field(default_factory=dict)


@section("pair", "pair")
@dataclass(kw_only=True, slots=True)
class Pair:
    low: float = bounded(0.0, 0)
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise GenaugError("low above high")


@pytest.mark.parametrize(
    ("field_name", "value", "words"),
    [
        ("t0", 0, r"thing.t0=0 must be in \(0, 1\]"),
        ("t0", [0.5, 1.5], r"thing.t0=1.5 must be in \(0, 1\]"),
        ("t0", "much", "thing.t0=much must be"),
        ("steps", 0, r"thing.steps=0 must be in \[1, 1000\]"),
        ("steps", 10**20, "thing.steps"),
        ("t0", True, "thing.t0=True must be"),
        ("rate", 0.0, "thing.rate=0.0 must be above 0"),
        ("rate", float("inf"), "thing.rate=inf is not a finite number"),
        ("share", float("nan"), "thing.share=nan is not a finite number"),
        ("kind", "c", "thing.kind=c must be one of a, b"),
        ("sizes", [1, -1], "thing.sizes=-1 must be"),
        ("save_size", 0, "thing.save_size=0 must be"),
        ("seed", -1, "thing.seed=-1 must be"),
        ("free", float("nan"), "thing.free=nan is not a finite number"),
        ("number", 10**20, "thing.number=100000000000000000000 is not a sensible size"),
        ("nested", {"a": float("inf")}, "thing.nested=inf is not a finite number"),
    ],
)
def test_a_value_outside_its_rule_is_refused_with_its_key_and_what_would_do(
    field_name: str, value: object, words: str
) -> None:
    with pytest.raises(GenaugError, match=words):
        Thing(**{field_name: value})


def test_values_inside_their_rules_pass_and_defaults_are_not_shared() -> None:
    thing = Thing(t0=[0.25, 1.0], save_size=None, seed=2**62, share=1, sizes=[3])
    assert thing.t0 == [0.25, 1.0] and Thing().sizes is not Thing().sizes


def test_a_reference_to_another_key_is_no_value_yet() -> None:
    assert Thing(seed="${seed}").seed == "${seed}"  # type: ignore[arg-type]
    with pytest.raises(GenaugError, match=r"thing\.seed=seed must be"):
        Thing(seed="seed")  # type: ignore[arg-type]


def test_fields_are_checked_before_they_are_looked_at_together() -> None:
    with pytest.raises(GenaugError, match=r"pair.low=-1"):
        Pair(low=-1, high=-2)
    with pytest.raises(GenaugError, match="low above high"):
        Pair(low=2.0)


def test_a_boundary_turns_any_failure_into_one_sentence() -> None:
    with pytest.raises(GenaugError, match=r"a.json cannot be read \(oops\). Delete it."):
        with boundary("a.json cannot be read", "Delete it."):
            raise RuntimeError("oops\nmore")


def test_a_boundary_lets_our_own_errors_through_as_they_are() -> None:
    with pytest.raises(GenaugError, match=r"^ours$"), boundary("x"):
        raise GenaugError("ours")


def test_a_failure_whose_message_is_but_a_key_or_a_number_is_given_its_kind() -> None:
    for error, said in (
        (KeyError("vocab"), "KeyError 'vocab'"),
        (ValueError(174), "ValueError 174"),
        (ValueError("no"), "no"),
    ):
        with pytest.raises(GenaugError, match=rf"\({said}\)"), boundary("x"):
            raise error
