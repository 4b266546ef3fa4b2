"""Paired comparisons of a table's entries with their baseline: by seed, and by seed and test image."""

from typing import TYPE_CHECKING, Any

from genaug.core.errors import GenaugError
from genaug.tables.table import Place, Table, resolved_values, text_of

if TYPE_CHECKING:
    from genaug.evaluation.statistics import Interval
    from genaug.tables.spec import TableSpec
    from genaug.tables.sweep import PlannedCell


def add_comparisons(table: Table, groups: "dict[Place, list[PlannedCell]]") -> None:
    from genaug.evaluation.statistics import compare, holm, seeds_needed

    spec = table.spec
    if not spec.baseline:
        return
    places = {(entry.row, entry.column): entry for entry in table.entries}
    wanted = {key: text_of(value) for key, value in spec.baseline.items()}
    compared = []
    within = {i: wanted[key] for i, key in enumerate(spec.rows) if key in wanted}
    if not any(all(row[i] == value for i, value in within.items()) for row in table.rows):
        raise GenaugError(f"experiments/{table.item}.yaml: table.baseline {spec.baseline} is no row of the table.")
    for entry in table.entries:
        row = tuple(wanted.get(key, entry.row[i]) for i, key in enumerate(spec.rows))
        column = tuple(wanted.get(key, entry.column[i]) for i, key in enumerate(spec.columns))
        baseline = places.get((row, column))
        if baseline is None or baseline is entry:
            continue
        entry.comparison = compare(entry.values, baseline.values)
        if entry.comparison is not None:
            compared.append(entry)
            pairs = _paired_predictions(
                groups.get((entry.row, entry.column), []), groups.get((row, column), []), spec.over
            )
            entry.two_level = _two_level(pairs, spec)
    table.seeds_needed = seeds_needed(len(compared))
    for entry, adjusted in zip(compared, holm([e.comparison.p_value for e in compared if e.comparison]), strict=True):
        entry.p_adjusted = adjusted
        entry.underpowered = entry.comparison is not None and entry.comparison.n < table.seeds_needed


def _paired_predictions(
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
        if first and second:
            pairs.append((first, second))
    return pairs


def _two_level(pairs: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]], spec: "TableSpec") -> "Interval | None":
    """Only for macro accuracy and mAP, which the resampling reproduces, and where all seeds were scored on the same images."""
    import numpy as np

    from genaug.evaluation.map_interval import two_level_map_interval
    from genaug.evaluation.statistics import FEWEST, Interval, two_level_interval

    if spec.metric not in ("test/accuracy_macro", "test/map") or len(pairs) < FEWEST:
        return None
    ids = [row["id"] for row in pairs[0][0]]
    if any([row["id"] for row in side] != ids for pair in pairs for side in pair):
        return None

    def hits(rows: list[dict[str, Any]]) -> list[float]:
        return [float(row["predicted"] == row["target"]) for row in rows]

    if spec.metric == "test/map":
        found = two_level_map_interval(pairs)
    else:
        difference = np.asarray([np.subtract(hits(first), hits(second)) for first, second in pairs])
        found = two_level_interval(difference, np.asarray([row["target"] for row in pairs[0][0]]))
    factor = {"fraction": 1, "percent": 100, "error_percent": -100}[spec.unit]
    low, high = sorted((found.low * factor, found.high * factor))
    return Interval(low=low, high=high)
