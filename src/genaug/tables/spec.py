"""How the cells of an experiment are read: the typed ``table:`` section of ``experiments/<paper>/<item>.yaml``."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from genaug.config import RunConfig
from genaug.core.errors import GenaugError
from genaug.core.foreign import read_foreign_yaml
from genaug.core.paths import experiment_files, project_root

UNITS = ("fraction", "percent", "error_percent")
EVIDENCE = ("paper", "code", "figure", "table", "log", "derived", "secondary", "unverified")
NORMS = ("max", "interval")
SCALES = ("none", "min_max")

SHAPES = (
    ("rows", list, "a list of keys, e.g. rows: [generator, mix.alpha]"),
    ("columns", list, "a list of keys, e.g. columns: [dataset.shots]"),
    ("baseline", Mapping, "the row's keys with their values, e.g. baseline: {generator: none}"),
    ("labels", Mapping, "what to print for a value, e.g. labels: {none: no images}"),
    ("publication", Mapping, "what all published values share, e.g. publication: {source: Fig. 1}"),
    ("published", list, "a list, e.g. published: [{where: {generator: none}, value: 0.5}]"),
    ("scale", Mapping, "sizes by data set, e.g. scale: {cub200: {classes: 200, train: 30}}"),
)
"""What parts of a ``table:`` section are, for those who write one."""

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Published:
    """One number that somebody else printed."""

    where: dict[str, Any]
    """Row and column keys with their values, e.g. ``{generator: da_fusion, dataset.shots: 4}``; ``area(max)`` or
    ``area(interval)`` in place of a shot count names the area under the curve."""
    value: float
    unit: str = ""
    """``fraction``, ``percent`` or ``error_percent``; the table's where absent."""
    source: str = ""
    """Paper, figure or table, and revision."""
    evidence: str = ""
    """How the number is known: read in a ``paper``, its ``code``, a ``table`` or a digitised ``figure``, a ``log``,
    ``derived`` by arithmetic, ``secondary`` (quoted by others) or ``unverified``."""
    tolerance: float | None = None
    """Half-width, in the entry's unit, within which ours counts as reproduced; null makes no claim."""


@dataclass(kw_only=True, slots=True)
class Curve:
    """The column key that is an axis, with areas under its curve as further columns."""

    over: str
    """A column key, e.g. ``dataset.shots``."""
    area: list[str] = field(default_factory=list)
    """``max`` divides by the last point (DA-Fusion's bars), ``interval`` by the length of the axis."""


@dataclass(kw_only=True, slots=True)
class Scale:
    """Size of a data set, so that a plan knows its cost before the data is there."""

    classes: int
    train: int
    """Training images per class (of the smallest that a draw may ask for)."""


@dataclass(kw_only=True, slots=True)
class Overall:
    """A table that has no runs of its own: it takes the mean of others, each of which is about one data set."""

    items: dict[str, list[str]]
    """The experiments whose mean a column is, by the column's name; in the file a list where there is one mean alone."""
    scale: str = "none"
    """``min_max`` (DA-Fusion's "Overall") puts the values of a data set on a scale of their own first, on which 0 is the least
    and 1 the greatest of any row and seed; ``none`` takes them as they are."""
    without: dict[str, Any] = field(default_factory=dict)
    """A row of the others that this table leaves out, as its label: it has no place on the scale either."""

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(item for items in self.items.values() for item in items))


@dataclass(kw_only=True, slots=True)
class TableSpec:
    """Rows, columns and metric of a table, and what it is compared with."""

    title: str
    rows: list[str]
    """Groups (``generator``) or dotted keys (``mix.alpha``) whose values name a row."""
    metric: str
    """A metric of ``result.json``, e.g. ``test/accuracy_macro``."""
    columns: list[str] = field(default_factory=list)
    over: str = "seed"
    """The key whose values are repetitions: averaged, paired and counted as n."""
    unit: str = "fraction"
    """``fraction`` shows .729 as 0.729, ``percent`` as 72.9, ``error_percent`` as 27.1."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """The row that the others are compared with, e.g. ``{generator: none}``."""
    curve: Curve | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """What to print for a value, e.g. ``{none: baseline}``, or for a key's alone: ``{generator=none: baseline}``."""
    publication: dict[str, Any] = field(default_factory=dict)
    """``source``, ``evidence``, ``unit`` and ``tolerance`` of every published value that does not say otherwise."""
    published: list[Published] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Deviations from the paper and what it leaves open; printed under the table."""
    scale: dict[str, Scale] = field(default_factory=dict)
    """By data set name."""
    gflop: dict[str, float] = field(default_factory=dict)
    """GFLOP of one network evaluation, by generator; the U-Net's at the prior's size where absent."""
    overall: Overall | None = None
    """What a table of means over data sets is the mean of. Its rows are named by their labels there."""

    def keys(self) -> list[str]:
        return [*self.rows, *self.columns]


def experiment_root() -> Path:
    """The ``experiments`` folder that is written to: the checkout's from within it, the current folder's from elsewhere."""
    root, here = project_root(), Path.cwd()
    return (root if here.is_relative_to(root) else here) / "experiments"


def items() -> list[str]:
    """Every experiment, as ``<paper>/<item>``."""
    return sorted(experiment_files())


def is_experiment(word: str) -> bool:
    """Whether a word names an experiment."""
    return word in experiment_files()


def read_experiment(item: str) -> dict[str, Any]:
    """The whole experiment file as plain values.

    Raises:
        GenaugError: for an item that does not exist, with the nearest that do.
    """
    path = experiment_files().get(item)
    if path is None and "=" in item:
        raise GenaugError(f"{item} is no experiment, which comes first here, e.g. demo/compare.")
    if path is None:
        near = difflib.get_close_matches(item, items(), n=3, cutoff=0.5) or items()
        raise GenaugError(f"There is no experiment {item}. Did you mean {' or '.join(near[:3])}?")
    return read_foreign_yaml(path)


def members(item: str) -> list[str]:
    """The experiments whose runs the table of an experiment shows: itself, or those that it takes the mean of."""
    content = read_experiment(item).get("table") or {}
    return [item] if content.get("overall") is None else read_spec(item).overall.experiments  # type: ignore[union-attr]


def read_spec(item: str) -> TableSpec:
    """The checked ``table:`` section of an experiment.

    Raises:
        GenaugError: for an unknown key or value, naming file, key and what to write instead.
    """
    where = f"experiments/{item}.yaml"
    content = read_experiment(item).get("table")
    if content is None:
        raise GenaugError(f"{where} has no table: section. Write at least title, rows and metric.")
    spec = parse_spec(content, where)
    for name in spec.overall.experiments if spec.overall is not None else ():
        part = read_spec(name)
        own = spec.columns[-len(part.columns) :] if part.columns else []
        if part.overall is not None or (part.rows, part.columns, part.over) != (spec.rows, own, spec.over):
            raise GenaugError(
                f"{where}: table.overall takes the mean of {name}, whose rows {part.rows}, columns {part.columns} and over="
                f"{part.over} must be its own, and which must not be a mean itself."
            )
        spec.scale, spec.gflop = part.scale | spec.scale, part.gflop | spec.gflop
    return spec


def parse_spec(content: Any, where: str) -> TableSpec:
    """Check and type the plain values of a ``table:`` section; ``where`` names the file in errors."""
    values = _fields(TableSpec, content, f"{where}: table")
    for key in ("rows", "columns"):  # one key may stand alone
        values |= {key: [values[key]]} if isinstance(values.get(key), str) else {}
    for key, kind, like in SHAPES:
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise GenaugError(f"{where}: table.{key} is {values[key]!r}: write {like}.")
    if values.get("curve") is not None:
        values["curve"] = Curve(**_fields(Curve, values["curve"], f"{where}: table.curve"))
    values["scale"] = {
        name: Scale(**_fields(Scale, scale, f"{where}: table.scale.{name}"))
        for name, scale in values.get("scale", {}).items()
    }
    if values.get("overall") is not None:
        parts = _fields(Overall, values["overall"], f"{where}: table.overall")
        parts["items"] = parts["items"] if isinstance(parts["items"], Mapping) else {"": parts["items"]}
        values["overall"] = Overall(**parts)
    common = dict(values.get("publication", {}))
    allowed = {"source", "evidence", "unit", "tolerance"}
    if unknown := sorted(common.keys() - allowed):
        raise GenaugError(f"{where}: table.publication has no key {unknown[0]}. It has {', '.join(sorted(allowed))}.")
    entries = values.get("published") or []
    values["published"] = [
        Published(**common | _fields(Published, entry, f"{where}: table.published[{i}]"))
        for i, entry in enumerate(entries)
    ]
    spec = TableSpec(**values)
    _check(spec, where)
    return spec


def _fields(cls: type[T], content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise GenaugError(f"{where} must be a mapping of keys, not {content!r}.")
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}."
            raise GenaugError(f"{where} has no key {key}. {hint}")
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in content:
            raise GenaugError(f"{where} lacks {f.name}.")
    return dict(content)


def _check(spec: TableSpec, where: str) -> None:
    def choice(key: str, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            raise GenaugError(f"{where}: {key}={value} is unknown. Write {', '.join(known)}.")

    choice("table.unit", spec.unit, UNITS)
    if spec.curve is not None:
        for norm in spec.curve.area:
            choice("table.curve.area", norm, NORMS)
        if spec.curve.over not in spec.columns:
            raise GenaugError(f"{where}: table.curve.over={spec.curve.over} must be one of the columns {spec.columns}.")
    if (overall := spec.overall) is not None:
        choice("table.overall.scale", overall.scale, SCALES)
        for key in overall.without:
            choice("table.overall.without", key, tuple(spec.rows))
        if overall.scale != "none" and spec.unit != "fraction":
            raise GenaugError(f"{where}: table.overall.scale={overall.scale} has no unit: leave table.unit out.")
    groups = [f.name for f in dataclasses.fields(RunConfig)]
    for key in spec.keys() if spec.overall is None else spec.rows:
        if key.partition(".")[0] not in groups:
            near = difflib.get_close_matches(key.partition(".")[0], groups, n=1) or groups
            raise GenaugError(
                f"{where}: table.rows and table.columns name keys of a run, not {key}: {', '.join(near)} …"
            )
    for key in spec.baseline:
        choice("table.baseline", key, tuple(spec.keys()))
    for i, entry in enumerate(spec.published):
        place = f"table.published[{i}]"
        entry.unit = entry.unit or spec.unit
        choice(f"{place}.unit", entry.unit, UNITS)
        choice(f"{place}.evidence", entry.evidence, EVIDENCE)
        if not entry.source:
            raise GenaugError(f"{where}: {place} lacks source: a published value without its origin cannot be checked.")
        for key in spec.keys():
            if key not in entry.where:
                raise GenaugError(
                    f"{where}: {place}.where lacks {key}, one of the table's keys {', '.join(spec.keys())}."
                )
        for key in entry.where:
            choice(f"{place}.where", key, tuple(spec.keys()))


def to_unit(fraction: float, unit: str) -> float:
    """A fraction in [0, 1] as ``unit``."""
    return {"fraction": fraction, "percent": 100 * fraction, "error_percent": 100 * (1 - fraction)}[unit]


def to_fraction(value: float, unit: str) -> float:
    """The inverse of ``to_unit``."""
    return {"fraction": value, "percent": value / 100, "error_percent": 1 - value / 100}[unit]


def width_to_unit(width: float, source: str, target: str) -> float:
    """A difference or tolerance from one unit to another, without sign."""
    return abs(width) * (1 if target == "fraction" else 100) / (1 if source == "fraction" else 100)
