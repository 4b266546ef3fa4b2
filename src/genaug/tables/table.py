"""From the cells of an experiment to its table: values over seeds, published values, paired comparisons, costs."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genaug.core.errors import GenaugError
from genaug.runs.collection import HIDDEN, uses_images

if TYPE_CHECKING:
    from genaug.evaluation.statistics import Comparison, Interval
    from genaug.tables.spec import Published, TableSpec
    from genaug.tables.sweep import PlannedCell, Sweep


@dataclass(kw_only=True, slots=True)
class Entry:
    """One row and column of a table: what was measured, over seeds, and what was published."""

    row: tuple[str, ...]
    column: tuple[str, ...]
    wanted: int
    """N: seeds that the experiment asks for."""
    values: dict[int, float]
    """Metric by seed, in the table's unit."""
    mean: float | None = None
    interval: "Interval | None" = None
    """BCa bootstrap over the seeds; None where they are too few."""
    oracle: bool = False
    """Whether the test split chose the step or the epoch."""
    published: "Published | None" = None
    published_value: float | None = None
    """In the table's unit."""
    reproduced: bool | None = None
    """Whether ours lies within the published tolerance; None where that is not claimed."""
    comparison: "Comparison | None" = None
    """Against the baseline of the same column, in the table's unit."""
    p_adjusted: float | None = None
    """Holm over all comparisons of the table."""
    two_level: "Interval | None" = None
    """Of the difference, over seeds and test images."""
    underpowered: bool = False
    images: int = 0
    """Synthetic images that the cells drew from, whoever made them."""
    evaluations: int = 0
    """Network evaluations spent by these cells: fitting and generating what no earlier cell had made."""
    alone: int | None = None
    """Network evaluations that one cell would need with an empty store (its first seed); None for an area."""
    seconds: float = 0.0
    dataset: str = ""
    """Name of the data set."""
    generated: list[str] = field(default_factory=list)
    """Fingerprints of the cells that trained on generated images."""

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def gap(self) -> float | None:
        """Ours minus published."""
        return None if self.mean is None or self.published_value is None else self.mean - self.published_value


@dataclass(kw_only=True, slots=True)
class Table:
    """Everything that a rendering shows."""

    item: str
    spec: "TableSpec"
    command: str
    overrides: tuple[str, ...]
    """Overrides beside the experiment's own, without those that change no result."""
    reduced: bool
    """Whether overrides beside the experiment's own took part: then published values belong to another setting."""
    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    entries: list[Entry]
    states: dict[str, int]
    """Number of cells by state."""
    reasons: list[str]
    """Why cells failed, are unknown or invalid; each once."""
    seeds_needed: int
    environments: list[dict[str, Any]]
    results: list[dict[str, Any]]
    """Results of the complete cells, each once."""

    @property
    def notes(self) -> list[str]:
        """The experiment's own notes, and what the prior check says against its results; each once."""
        warned = [text for result in self.results if (text := result.get("prior_check"))]
        return [*self.spec.notes, *dict.fromkeys(warned)]

    def entry(self, row: tuple[str, ...], column: tuple[str, ...]) -> Entry:
        return next(entry for entry in self.entries if (entry.row, entry.column) == (row, column))


def collect(sweep: "Sweep", spec: "TableSpec") -> Table:
    """Arrange the cells of a sweep as the experiment's table says.

    Raises:
        GenaugError: if no combination of the sweep is valid, or the baseline is not a row of the table.
    """
    cells = [cell for cell in sweep.cells if cell.config is not None or cell.values is not None]
    if not cells:
        reasons = sorted({cell.reason for cell in sweep.cells})
        raise GenaugError(f"No run of {sweep.item} composes: {' '.join(reasons)}")
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[PlannedCell]] = {}
    for cell in cells:
        resolved = resolved_values(cell, [*spec.keys(), spec.over])
        place = tuple(resolved[key] for key in spec.rows), tuple(resolved[key] for key in spec.columns)
        groups.setdefault(place, []).append(cell)
    entries = {place: _entry(place, members, spec) for place, members in groups.items()}
    rows = list(dict.fromkeys(row for row, _ in entries))
    columns = list(dict.fromkeys(column for _, column in entries))
    if spec.curve is not None and spec.curve.area:
        columns = _add_areas(entries, rows, columns, spec)
    for row in rows:
        for column in columns:
            entries.setdefault((row, column), Entry(row=row, column=column, wanted=0, values={}))
    overrides = tuple(override for override in sweep.extra if not override.startswith(HIDDEN))
    table = Table(
        item=sweep.item,
        spec=spec,
        command=sweep.command,
        overrides=overrides,
        reduced=any(not override.startswith(f"{spec.over}=") for override in overrides),
        rows=rows,
        columns=columns,
        entries=[entries[row, column] for row in rows for column in columns],
        states=_count(cell.state for cell in sweep.cells),
        reasons=list(
            dict.fromkeys(c.reason.splitlines()[0] for c in sweep.cells if c.reason and c.state != "complete")
        ),
        seeds_needed=0,
        environments=_environments(cells),
        results=list({c.fingerprint: c.result for c in cells if c.result is not None}.values()),
    )
    for entry in table.entries:
        _summarise(entry)
    _add_costs(table, groups)
    _add_published(table)
    _add_comparisons(table, groups)
    return table


def resolved_values(cell: "PlannedCell", keys: Sequence[str]) -> dict[str, str]:
    """What a cell has under each key: a group's preset name, or the value of a dotted key, as text."""
    if cell.values is not None:
        return {key: cell.values[key] for key in keys}
    assert cell.config is not None
    found = {}
    for key in keys:
        value: Any = cell.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        found[key] = text_of(value.name if hasattr(value, "name") else value)
    return found


def text_of(value: Any) -> str:
    """One spelling per value: ``1.0`` and ``1`` are one column."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(text_of(item) for item in value) + "]"
    return str(value)


def _entry(place: tuple[tuple[str, ...], tuple[str, ...]], members: "list[PlannedCell]", spec: "TableSpec") -> Entry:
    from genaug.tables.spec import to_unit

    entry = Entry(row=place[0], column=place[1], wanted=0, values={})
    wanted = set()
    for cell in members:
        repetition = int(resolved_values(cell, [spec.over])[spec.over])
        wanted.add(repetition)
        if cell.result is None:
            continue
        result = cell.result
        value = result["metrics"].get(spec.metric)
        if spec.metric in result["metrics"] and (value is None or not math.isfinite(value)):
            raise GenaugError(
                f"{result['cell']}: {spec.metric} is {value}, which no table can average. Its test split has nothing that "
                "this metric counts, or its training failed: choose another table.metric, or delete the run."
            )
        if value is None:
            known = ", ".join(sorted(k for k, v in result["metrics"].items() if isinstance(v, int | float)))
            raise GenaugError(f"{result['cell']} has no metric {spec.metric}. It has {known}.")
        if repetition in entry.values and entry.values[repetition] != to_unit(value, spec.unit):
            raise GenaugError(
                f"Two cells of the table have {spec.over}={repetition}, row {' '.join(place[0])} and column "
                f"{' '.join(place[1])}: what tells them apart must be among table.rows or table.columns."
            )
        if repetition in entry.values:
            continue
        entry.values[repetition] = to_unit(value, spec.unit)
        entry.oracle |= bool(result["protocol"].get("oracle"))
        entry.dataset = result["names"]["dataset"]
        if uses_images(result):
            entry.generated.append(result["fingerprint"])
        counts = result["counts"]
        entry.images += counts.get("images_generated", 0) + counts.get("images_reused", 0)
        entry.evaluations += counts.get("network_evaluations", 0) + counts.get("fit_network_evaluations", 0)
        entry.seconds += sum(result["seconds"].values())
    entry.wanted = len(wanted)
    return entry


def _add_areas(
    entries: dict[tuple[tuple[str, ...], tuple[str, ...]], Entry],
    rows: list[tuple[str, ...]],
    columns: list[tuple[str, ...]],
    spec: "TableSpec",
) -> list[tuple[str, ...]]:
    """Put the areas under each row's curve behind its points; a seed without every point has none."""
    from genaug.evaluation.statistics import area_under_curve

    assert spec.curve is not None
    axis = spec.columns.index(spec.curve.over)
    families = dict.fromkeys((*column[:axis], *column[axis + 1 :]) for column in columns)
    arranged = []
    for family in families:
        columns_of_family = [c for c in columns if (*c[:axis], *c[axis + 1 :]) == family]
        arranged += columns_of_family
        points = {c[axis]: c for c in columns_of_family if _is_number(c[axis])}  # shots=null has no place on an axis
        for norm in spec.curve.area if len(points) > 1 else []:
            area_column = (*family[:axis], f"area({norm})", *family[axis:])
            arranged.append(area_column)
            for row in rows:
                parts = {point: entries[row, column] for point, column in points.items() if (row, column) in entries}
                total = Entry(
                    row=row, column=area_column, wanted=max((e.wanted for e in parts.values()), default=0), values={}
                )
                seeds = (
                    set.intersection(*(set(e.values) for e in parts.values())) if len(parts) == len(points) else set()
                )
                for seed in sorted(seeds):
                    curve = {float(point): part.values[seed] for point, part in parts.items()}
                    total.values[seed] = area_under_curve(curve, list(curve), norm)  # type: ignore[arg-type]
                for part in parts.values():
                    total.oracle |= part.oracle
                    total.images, total.evaluations = total.images + part.images, total.evaluations + part.evaluations
                    total.seconds += part.seconds
                entries[row, area_column] = total
    return arranged


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _summarise(entry: Entry) -> None:
    from genaug.evaluation.statistics import bootstrap_interval

    if entry.values:
        values = list(entry.values.values())
        entry.mean = sum(values) / len(values)
        entry.interval = bootstrap_interval(values)


def _add_costs(table: Table, groups: "dict[tuple[tuple[str, ...], tuple[str, ...]], list[PlannedCell]]") -> None:
    from genaug.tables.plan import evaluations_alone

    firsts = [(e, groups[e.row, e.column][0].config) for e in table.entries if e.values and (e.row, e.column) in groups]
    measured = [(entry, config) for entry, config in firsts if config is not None]
    counts = evaluations_alone([config for _, config in measured], table.spec)
    for (entry, _), count in zip(measured, counts, strict=True):
        entry.alone = count


def _add_published(table: Table) -> None:
    from genaug.tables.spec import to_fraction, to_unit, width_to_unit

    spec = table.spec
    places = {(entry.row, entry.column): entry for entry in table.entries}
    for published in spec.published:
        row = tuple(text_of(published.where[key]) for key in spec.rows)
        column = tuple(text_of(published.where[key]) for key in spec.columns)
        entry = places.get((row, column))
        if entry is None:
            if table.reduced:
                continue  # a smaller sweep has fewer columns
            raise GenaugError(
                f"experiments/{table.item}.yaml: published {published.where} is at no row and column of the sweep."
            )
        entry.published = published
        entry.published_value = to_unit(to_fraction(published.value, published.unit), spec.unit)
        if published.tolerance is not None and entry.gap is not None and not table.reduced and entry.n == entry.wanted:
            entry.reproduced = abs(entry.gap) <= width_to_unit(published.tolerance, published.unit, spec.unit)


def _add_comparisons(table: Table, groups: "dict[tuple[tuple[str, ...], tuple[str, ...]], list[PlannedCell]]") -> None:
    from genaug.evaluation.statistics import compare, holm, seeds_needed

    spec = table.spec
    if not spec.baseline:
        return
    places = {(entry.row, entry.column): entry for entry in table.entries}
    wanted = {key: text_of(value) for key, value in spec.baseline.items()}
    compared = []
    for entry in table.entries:
        row = tuple(wanted.get(key, entry.row[i]) for i, key in enumerate(spec.rows))
        column = tuple(wanted.get(key, entry.column[i]) for i, key in enumerate(spec.columns))
        if row not in table.rows and all(key in spec.rows for key in spec.baseline):
            raise GenaugError(f"experiments/{table.item}.yaml: table.baseline {spec.baseline} is no row of the table.")
        baseline = places.get((row, column))
        if baseline is None or baseline is entry:
            continue
        entry.comparison = compare(entry.values, baseline.values)
        if entry.comparison is not None:
            compared.append(entry)
            pairs = _paired_hits(groups.get((entry.row, entry.column), []), groups.get((row, column), []), spec.over)
            entry.two_level = _two_level(pairs, spec)
    table.seeds_needed = seeds_needed(len(compared))
    for entry, adjusted in zip(compared, holm([e.comparison.p_value for e in compared if e.comparison]), strict=True):
        entry.p_adjusted = adjusted
        entry.underpowered = entry.comparison is not None and entry.comparison.n < table.seeds_needed


def _paired_hits(
    method: "list[PlannedCell]", baseline: "list[PlannedCell]", over: str
) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    from genaug.tables.sweep import read_predictions

    other = {resolved_values(cell, [over])[over]: cell for cell in baseline}
    pairs = []
    for cell in method:
        partner = other.get(resolved_values(cell, [over])[over])
        if partner is None or cell.result is None or partner.result is None:
            continue
        first, second = read_predictions(cell), read_predictions(partner)
        if first is not None and second is not None and all("predicted" in row for row in (*first[:1], *second[:1])):
            pairs.append((first, second))
    return pairs


def _two_level(pairs: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]], spec: "TableSpec") -> "Interval | None":
    """Only for macro accuracy, which the resampling reproduces, and where all seeds were scored on the same images."""
    import numpy as np

    from genaug.evaluation.statistics import FEWEST, Interval, two_level_interval

    if spec.metric != "test/accuracy_macro" or len(pairs) < FEWEST:
        return None
    ids = [row["id"] for row in pairs[0][0]]
    if any([row["id"] for row in side] != ids for pair in pairs for side in pair):
        return None

    def hits(rows: list[dict[str, Any]]) -> list[float]:
        return [float(row["predicted"] == row["target"]) for row in rows]

    difference = np.asarray([np.subtract(hits(first), hits(second)) for first, second in pairs])
    found = two_level_interval(difference, np.asarray([row["target"] for row in pairs[0][0]]))
    factor = {"fraction": 1, "percent": 100, "error_percent": -100}[spec.unit]
    low, high = sorted((found.low * factor, found.high * factor))
    return Interval(low=low, high=high)


def _environments(cells: "list[PlannedCell]") -> list[dict[str, Any]]:
    """Each distinct combination of versions, revision and hardware that the results come from, with its cells."""
    found: dict[str, dict[str, Any]] = {}
    seen = set()
    for cell in cells:
        if cell.result is None or cell.fingerprint in seen:
            continue
        seen.add(cell.fingerprint)
        environment = cell.result["environment"]
        known = found.setdefault(json.dumps(environment, sort_keys=True), {**environment, "cells": 0, "hours": 0.0})
        known["cells"] += 1
        known["hours"] += sum(cell.result["seconds"].values()) / 3600
    return list(found.values())


def _count(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found
