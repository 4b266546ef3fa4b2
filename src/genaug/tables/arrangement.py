"""From the cells of an experiment to its table: values over seeds, areas under curves, published values, costs."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genaug.choosing import chooses
from genaug.core.errors import GenaugError
from genaug.runs.collection import HIDDEN, uses_images
from genaug.tables.comparison import add_comparisons
from genaug.tables.overall import labelled, mean_over_datasets
from genaug.tables.spec import read_spec, to_fraction, to_unit, width_to_unit
from genaug.tables.table import Arranged, Entry, Place, Table, resolved_values, text_of

if TYPE_CHECKING:
    from genaug.runs.cell import Result
    from genaug.tables.spec import TableSpec
    from genaug.tables.sweep import PlannedCell, Sweep


def collect(sweep: "Sweep", spec: "TableSpec") -> Table:
    """Arrange the cells of a sweep as the experiment's table says.

    Raises:
        GenaugError: if no combination of the sweep is valid, or the baseline is not a row of the table.
    """
    cells = _readable(sweep)
    if not cells:
        reasons = sorted({cell.reason for cell in sweep.cells})
        raise GenaugError(f"No run of {sweep.item} composes: {' '.join(reasons)}")
    groups: dict[Place, list[PlannedCell]] = {}
    if spec.overall is None:
        groups = _groups(cells, spec)
        arranged = _arranged(groups, spec)
    else:
        arranged = mean_over_datasets({part.item: _of_dataset(part, spec) for part in sweep.parts}, spec)
    rows, columns, entries = arranged.rows, arranged.columns, arranged.entries
    for row in rows:
        for column in columns:
            entries.setdefault((row, column), Entry(row=row, column=column, wanted=0, values={}))
    overrides = tuple(override for override in sweep.extra if not override.startswith(HIDDEN))
    table = Table(
        item=sweep.item,
        spec=spec,
        command=sweep.command,
        overrides=overrides,
        reduced=_is_reduced(sweep.item, overrides, spec.over),
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
        lines=_lines(cells, spec),
    )
    for entry in table.entries:
        _summarise(entry)
    _add_costs(table, groups)
    _add_published(table)
    add_comparisons(table, groups)
    return table


def _groups(cells: "list[PlannedCell]", spec: "TableSpec") -> "dict[Place, list[PlannedCell]]":
    groups: dict[Place, list[PlannedCell]] = {}
    for cell in cells:
        resolved = resolved_values(cell, spec.keys())
        place = tuple(resolved[key] for key in spec.rows), tuple(resolved[key] for key in spec.columns)
        groups.setdefault(place, []).append(cell)
    return groups


def _arranged(groups: "dict[Place, list[PlannedCell]]", spec: "TableSpec") -> Arranged:
    """The values of each row and column, and behind them the areas under curves."""
    entries = {place: _entry(place, members, spec) for place, members in groups.items()}
    rows = list(dict.fromkeys(row for row, _ in entries))
    columns = list(dict.fromkeys(column for _, column in entries))
    if spec.curve is not None and spec.curve.area:
        columns = _add_areas(entries, rows, columns, spec)
    return Arranged(rows=rows, columns=columns, entries=entries)


def _of_dataset(part: "Sweep", spec: "TableSpec") -> Arranged:
    """One of the experiments that a table takes the mean of, under its labels."""
    own = read_spec(part.item)
    shown = dataclasses.replace(own, metric=spec.metric, unit=spec.unit, curve=spec.curve)
    return labelled(_arranged(_groups(_readable(part), own), shown), own.labels, part.item)


def _readable(sweep: "Sweep") -> "list[PlannedCell]":
    return [cell for cell in sweep.cells if cell.config is not None or cell.values is not None]


def _lines(cells: "list[PlannedCell]", spec: "TableSpec") -> list[tuple[dict[str, str], dict[str, Any]]]:
    lines = {}
    for cell in cells:
        if cell.result is not None:
            values = resolved_values(cell, spec.keys())
            lines[cell.fingerprint, *values.values()] = values, cell.result
    return list(lines.values())


def _is_reduced(item: str, overrides: tuple[str, ...], over: str) -> bool:
    """Whether overrides make another thing of an experiment than its numerics (``trainer.precision``) do; one for a user's own
    images has settings of their own."""
    if chooses(item):
        return any(override in ("preset=smoke", "preset=debug") for override in overrides)
    return any(not override.startswith((f"{over}=", "trainer.")) for override in overrides)


def _numbers(result: "Result") -> str:
    """The names of a result's metrics that are one number."""
    return ", ".join(sorted(name for name, value in result["metrics"].items() if isinstance(value, int | float)))


def _entry(place: Place, members: "list[PlannedCell]", spec: "TableSpec") -> Entry:
    entry = Entry(row=place[0], column=place[1], wanted=0, values={})
    wanted = set()
    for cell in members:
        repetition = int(resolved_values(cell, [spec.over])[spec.over])
        wanted.add(repetition)
        if cell.result is None:
            continue
        result = cell.result
        value = result["metrics"].get(spec.metric)
        if isinstance(value, list):
            raise GenaugError(f"{spec.metric} is a list of numbers, of which a table shows one: {_numbers(result)}.")
        if spec.metric in result["metrics"] and (value is None or not math.isfinite(value)):
            raise GenaugError(
                f"{result['cell']}: {spec.metric} is {value}, which no table can average. Its test split has nothing that "
                "this metric counts, or its training failed: choose another table.metric, or delete the run."
            )
        if value is None:
            raise GenaugError(f"{result['cell']} has no metric {spec.metric}. It has {_numbers(result)}.")
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
    entries: dict[Place, Entry],
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


def _add_costs(table: Table, groups: "dict[Place, list[PlannedCell]]") -> None:
    from genaug.tables.plan import evaluations_alone

    firsts = [(e, groups[e.row, e.column][0].config) for e in table.entries if e.values and (e.row, e.column) in groups]
    measured = [(entry, config) for entry, config in firsts if config is not None]
    counts = evaluations_alone([config for _, config in measured], table.spec)
    for (entry, _), count in zip(measured, counts, strict=True):
        entry.alone = count


def _add_published(table: Table) -> None:
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
