"""A table: its entries, each a row and a column, and how the values of its keys are written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genaug.evaluation.statistics import Comparison, Interval
    from genaug.tables.spec import Published, TableSpec
    from genaug.tables.sweep import PlannedCell

Place = tuple[tuple[str, ...], tuple[str, ...]]
"""A row and a column: a value for each of their keys."""


@dataclass(kw_only=True, slots=True)
class Entry:
    """One row and column of a table: what was measured, over seeds, and what was published."""

    row: tuple[str, ...]
    column: tuple[str, ...]
    wanted: int
    """N: seeds that the experiment asks for."""
    values: dict[int, float]
    """Metric by seed, in the table's unit."""
    num_datasets: tuple[int, int] | None = None
    """Of a mean over data sets: how many have a value, and of how many; there is no mean where one lacks it."""
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
    """Synthetic images of the cells' pools, rejected ones too, whoever made them."""
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
class Arranged:
    """Entries in the order of their rows and columns; some places may have none."""

    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    entries: dict[Place, Entry]


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
    lines: list[tuple[dict[str, str], dict[str, Any]]]
    """What each complete cell has under the table's keys, and its result: cells of two rows may share one."""

    @property
    def notes(self) -> list[str]:
        """The experiment's own notes, and what the prior check says against its results; each once."""
        warned = [text for result in self.results if (text := result.get("prior_check"))]
        return [*self.spec.notes, *dict.fromkeys(warned)]

    def entry(self, row: tuple[str, ...], column: tuple[str, ...]) -> Entry:
        return next(entry for entry in self.entries if (entry.row, entry.column) == (row, column))


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
