"""Declared checks: what a configuration field may hold stands on the field and is enforced here, for every component.

    t0: float = bounded(0.5, 0, 1, above=True)
    num_steps: int = count(50, most=1000, metadata=FIT)
    scheduler: str = choice("ddim", ("ddim", "unipc"))
    save_size: int | None = count(None)

``component`` and ``section`` (registry) make a dataclass verify its fields when it is built, before its own ``__post_init__``
looks at them together. Numbers must be finite wherever they stand, declared or not. ``genaug explain`` prints the rules.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omegaconf import II

from genaug.core.errors import GenaugError

T = TypeVar("T")

MOST = 10**12
"""No whole number of a configuration is larger, seeds apart: a slip such as m=1e20 is refused where nothing tighter stands."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Rule:
    """What one field may hold. A list is checked item by item, and None passes where the field's type allows it."""

    least: float | None = None
    most: float | None = None
    above: bool = False
    """The least value itself is refused."""
    below: bool = False
    """The greatest value itself is refused."""
    options: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        if self.options:
            return value in self.options
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.least is not None and (value < self.least or (self.above and value == self.least)):
            return False
        return self.most is None or value < self.most or (not self.below and value == self.most)

    def __str__(self) -> str:
        """The rule in words, e.g. ``in (0, 1]``, ``at least 1`` or ``one of ddim, unipc``."""
        if self.options:
            return f"one of {', '.join(map(str, self.options))}"
        if self.least is not None and self.most is not None and self.most < MOST:
            return f"in {'(' if self.above else '['}{_number(self.least)}, {_number(self.most)}{')' if self.below else ']'}"
        if self.least is not None:
            return f"above {_number(self.least)}" if self.above else f"at least {_number(self.least)}"
        return f"below {_number(self.most)}" if self.below else f"at most {_number(self.most)}"


def _number(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def declared(default: Any, rule: Rule, metadata: Mapping[str, Any] | None = None) -> Any:
    """A dataclass field with a rule. A list or a dict as default is copied for each instance."""
    about = {**(metadata or {}), "rule": rule}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)


def bounded(
    default: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    above: bool = False,
    below: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """A number, or a list of numbers, between two bounds; ``above`` and ``below`` exclude the bound itself."""
    return declared(default, Rule(least=least, most=most, above=above, below=below), metadata)


def positive(default: Any, *, metadata: Mapping[str, Any] | None = None) -> Any:
    """A number above 0."""
    return bounded(default, 0, above=True, metadata=metadata)


def probability(default: Any, *, metadata: Mapping[str, Any] | None = None) -> Any:
    """A number in [0, 1]."""
    return bounded(default, 0, 1, metadata=metadata)


def count(default: Any, least: int = 1, most: int | None = None, *, metadata: Mapping[str, Any] | None = None) -> Any:
    """A whole number of at least ``least``."""
    return bounded(default, least, MOST if most is None else most, metadata=metadata)


def choice(default: Any, options: Sequence[Any], *, metadata: Mapping[str, Any] | None = None) -> Any:
    """One of ``options``."""
    return declared(default, Rule(options=tuple(options)), metadata)


OF_THE_TRIAL = II("seed")


def seed(default: Any = OF_THE_TRIAL) -> Any:
    """A seed: any whole number in [0, 2**63). Follows the trial's seed unless it is given a value of its own."""
    return bounded(default, 0, 2**63 - 1)


def checked(key: str, cls: type[T]) -> type[T]:
    """Make a dataclass verify its declared fields when it is built; ``key`` is its place in the configuration."""
    together = getattr(cls, "__post_init__", None)  # the class's own look at its fields together

    def __post_init__(self: Any) -> None:
        check_fields(self, key)
        if together is not None:
            together(self)

    if together is not None:
        cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
        return cls
    build = cls.__init__  # it calls no __post_init__, as the class had none when it was made a dataclass

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        build(self, *args, **values)
        check_fields(self, key)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def check_fields(component: Any, key: str) -> None:
    """Raise ``GenaugError`` for the first field whose value breaks its rule, or that holds NaN or infinity."""
    for f in dataclasses.fields(component):
        where = f"{key}.{f.name}" if key else f.name
        rule = f.metadata.get("rule")
        for value in _items(getattr(component, f.name)):
            if value is None or (isinstance(value, bool) and rule is None) or _awaits(value):
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise GenaugError(
                    f"{where}={value} is not a finite number" + (f": write a value {rule}." if rule else ".")
                )
            if rule is None and isinstance(value, int) and abs(value) > MOST:
                raise GenaugError(f"{where}={value} is not a sensible size: write at most {MOST}.")
            if rule is not None and not rule.holds(value):
                raise GenaugError(f"{where}={value} must be {rule}.")


def _awaits(value: Any) -> bool:
    """Whether a value is a reference (``${seed}``) that a composed configuration will fill in: the default of a section."""
    return isinstance(value, str) and value.startswith("${")


def _items(value: Any) -> list[Any]:
    """The values to check in a field: of a list or a dict each value, however deep."""
    if isinstance(value, Mapping):
        return [item for part in value.values() for item in _items(part)]
    if isinstance(value, list | tuple):
        return [item for part in value for item in _items(part)]
    return [value]
