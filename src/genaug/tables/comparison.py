"""Paired comparisons of a table's entries with their baseline: by seed, and by seed and test image."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.core.errors import GenaugError, first_line
from genaug.core.files import read_json, say_damaged
from genaug.tables.table import Place, Table, resolved_values, text_of

if TYPE_CHECKING:
    import numpy as np

    from genaug.evaluation.statistics import Interval
    from genaug.tables.spec import TableSpec
    from genaug.tables.sweep import PlannedCell


def add_comparisons(table: Table, groups: "dict[Place, list[PlannedCell]]") -> None:
    """Give each entry its difference to the baseline of its column, with intervals and p after Holm over the table.

    Raises:
        GenaugError: if the baseline is not a row of the table.
    """
    from genaug.evaluation.statistics import compare, holm, seeds_needed

    spec = table.spec
    if not spec.baseline:
        return
    places = {(entry.row, entry.column): entry for entry in table.entries}
    wanted = {key: text_of(value) for key, value in spec.baseline.items()}
    compared, read = [], _scores(spec.metric)
    within = {i: wanted[key] for i, key in enumerate(spec.rows) if key in wanted}
    if not any(all(row[i] == value for i, value in within.items()) for row in table.rows):
        if table.reduced:
            return  # a smaller sweep has fewer rows
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
            method, other = (groups.get(place, []) for place in ((entry.row, entry.column), (row, column)))
            entry.two_level = _two_level(method, other, spec, read)
    table.seeds_needed = seeds_needed(len(compared))
    for entry, adjusted in zip(compared, holm([e.comparison.p_value for e in compared if e.comparison]), strict=True):
        entry.p_adjusted = adjusted
        entry.underpowered = entry.comparison is not None and entry.comparison.n < table.seeds_needed


@dataclass(frozen=True)
class Scores:
    """How one run did on its test images, as far as intervals over them need it."""

    ids: list[str]
    targets: list[Any]
    values: "np.ndarray"
    """[images], 1 for a hit, else 0; or, of detections, [resamples], mAP in each resample of the images."""


Read = Callable[["PlannedCell"], Scores | None]


def _scores(metric: str) -> Read:
    """Reads the predictions of a run, once however often it is compared; none where it wrote none."""
    import numpy as np

    @functools.cache
    def read(folder: Path) -> Scores | None:
        path = folder / "predictions.json"
        rows = read_json(path, kind=list)
        if not rows:
            return None
        try:
            ids = [row["id"] for row in rows]
            if metric == "test/map":
                from genaug.evaluation.map_interval import resampled_map

                return Scores(ids, [], resampled_map(rows))
            hits = np.array([float(row["predicted"] == row["target"]) for row in rows])
            return Scores(ids, [row["target"] for row in rows], hits)
        except Exception as error:  # rows of another shape fail in many ways
            say_damaged(path, first_line(error))
            return None

    return lambda cell: None if cell.folder is None else read(cell.folder)


def _two_level(
    method: "list[PlannedCell]", baseline: "list[PlannedCell]", spec: "TableSpec", read: Read
) -> "Interval | None":
    """Only for macro accuracy and mAP, which the resampling reproduces, and where all seeds were scored on the same images."""
    import numpy as np

    from genaug.evaluation.map_interval import two_level_map_interval
    from genaug.evaluation.statistics import FEWEST, Interval, two_level_interval

    if spec.metric not in ("test/accuracy_macro", "test/map"):
        return None
    other = {resolved_values(cell, [spec.over])[spec.over]: cell for cell in baseline}
    partners = [(cell, other.get(resolved_values(cell, [spec.over])[spec.over])) for cell in method]
    both = [(cell, partner) for cell, partner in partners if partner and cell.result and partner.result]
    if len(both) < FEWEST:
        return None
    scores = [(read(cell), read(partner)) for cell, partner in both]
    pairs = [(first, second) for first, second in scores if first and second]
    if len(pairs) < FEWEST or any(side.ids != pairs[0][0].ids for pair in pairs for side in pair):
        return None
    values = [(first.values, second.values) for first, second in pairs]
    if spec.metric == "test/map":
        found = two_level_map_interval(values)
    else:
        difference = np.stack([first - second for first, second in values])
        found = two_level_interval(difference, np.asarray(pairs[0][0].targets))
    factor = {"fraction": 1, "percent": 100, "error_percent": -100}[spec.unit]
    low, high = sorted((found.low * factor, found.high * factor))
    return Interval(low=low, high=high)
