"""A table of cells: one row per setting, mean and spread over seeds, n."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.runs.collection import HIDDEN, read_results, value_at

COMPONENTS = ("dataset", "generator", "mix", "augment", "downstream", "prior", "leakage", "filter")
ABSENT = "–"
NEEDS_IMAGES = ("mix", "generator", "prior", "leakage", "filter")
"""Groups of keys that say nothing of a cell without synthetic images."""


@dataclass(kw_only=True, slots=True)
class Row:
    """Cells that differ in nothing but the seed."""

    setting: tuple[str, ...]
    """Values of ``Summary.columns``."""
    values: dict[int, float]
    """Metric by seed."""
    images: int
    seconds: float

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for a single one."""
        n = len(self.values)
        return math.sqrt(sum((v - self.mean) ** 2 for v in self.values.values()) / (n - 1)) if n > 1 else None


@dataclass(kw_only=True, slots=True)
class Summary:
    """What ``print_summary`` shows."""

    metric: str
    columns: tuple[str, ...]
    rows: list[Row]
    seeds: tuple[int, ...]


def summarise(results: Sequence[dict[str, Any]], metric: str | None = None) -> list[Summary]:
    """One summary per metric (classification and detection cells do not share a table)."""
    trained = [r for r in results if r["metrics"]]
    names = [metric] if metric else sorted({r["metric"] for r in trained})
    return [_summary([r for r in trained if metric or r["metric"] == name], name) for name in names]


def _summary(results: list[dict[str, Any]], metric: str) -> Summary:
    swept = sorted(
        {o.split("=", 1)[0].lstrip("+~") for r in results for o in r["overrides"] if "." in o.split("=", 1)[0]}
    )
    swept = [key for key in swept if not key.startswith(tuple(f"{group}." for group in HIDDEN))]
    seeds = [key for key in swept if key.endswith(".seed")]  # those that were set apart from the trial's
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        if metric in result["metrics"]:
            apart = (str(value_at(result["config"], key)) for key in seeds)
            groups.setdefault((result["setting"], *apart), []).append(result)
    firsts = [members[0] for members in groups.values()]
    columns = _columns(firsts, swept)
    rows = [
        Row(
            setting=tuple(_setting(members[0], columns).values()),
            values={r["seed"]: r["metrics"][metric] for r in members},
            images=sum(r["counts"].get("images_generated", 0) for r in members),
            seconds=sum(sum(r["seconds"].values()) for r in members),
        )
        for members in groups.values()
    ]
    return Summary(metric=metric, columns=columns, rows=rows, seeds=tuple(sorted({r["seed"] for r in results})))


def _columns(firsts: list[dict[str, Any]], swept: list[str]) -> tuple[str, ...]:
    """What tells the settings apart: components and swept keys that vary, and any other key where those are not enough."""
    columns = ["dataset", "generator"]
    for key in dict.fromkeys((*COMPONENTS, "dataset.shots", *swept)):
        if key not in columns and len({_setting(r, [key])[key] for r in firsts} - {ABSENT}) > 1:
            columns.append(key)
    others = dict.fromkeys(key for r in firsts for key in _keys(r["config"]) if not key.endswith(("name", "seed")))
    for key in others:
        shown = len({tuple(_setting(r, columns).values()) for r in firsts})
        if shown == len(firsts):
            break
        if len({tuple(_setting(r, [*columns, key]).values()) for r in firsts}) > shown:
            columns.append(key)
    return tuple(columns)


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a resolved configuration that can change a result."""
    for key, value in config.items():
        if prefix or key not in HIDDEN:
            if isinstance(value, Mapping):
                yield from _keys(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"


def _setting(result: dict[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """What the table says of a cell; – where it has no such value, or makes no image that the value could change."""
    setting = {}
    for key in columns:
        value = result["names"][key] if key in COMPONENTS else value_at(result["config"], key)
        without_images = result["names"]["generator"] == "none" and key.partition(".")[0] in NEEDS_IMAGES
        setting[key] = ABSENT if value is None or (without_images and key != "generator") else str(value)
    return setting


def show(folders: Sequence[Path]) -> None:
    """Print the tables of these cells."""
    for summary in summarise(read_results(folders)):
        print_summary(summary)


def print_summary(summary: Summary) -> None:
    """To the terminal, best first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for column in summary.columns:
        table.add_column(column, no_wrap=True)
    for column in (summary.metric, "sd", "n", "images made", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in sorted(summary.rows, key=lambda row: -row.mean):
        spread = "–" if row.spread is None else f"{row.spread:.4f}"
        n = f"{len(row.values)}/{len(summary.seeds)}"
        table.add_row(*map(escape, row.setting), f"{row.mean:.4f}", spread, n, str(row.images), f"{row.seconds:.0f}")
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)  # a cut table says less than a wide one
