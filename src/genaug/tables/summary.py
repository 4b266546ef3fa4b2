"""A table of cells: one row per setting, mean and spread over seeds, n."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.tables.collect import read_results, value_at

COMPONENTS = ("dataset", "generator", "mix", "augment", "downstream")


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
    hidden = ("paths.", "tracking.", "trainer.", "hydra.")
    swept = [key for key in swept if not key.startswith(hidden)]
    settings = [_setting(r, swept) for r in results]
    keep = list(settings[0]) if settings else []
    varying = [key for key in keep if len({s[key] for s in settings}) > 1]
    columns = tuple(key for key in keep if key in varying or key in ("dataset", "generator"))
    rows: dict[tuple[str, ...], Row] = {}
    # group by everything that may differ, show what does
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for setting, result in zip(settings, results, strict=True):
        groups.setdefault(tuple(setting[key] for key in columns), []).append(result)
    for setting, members in groups.items():
        scored = {r["seed"]: r["metrics"][metric] for r in members if metric in r["metrics"]}
        if scored:
            rows[setting] = Row(
                setting=setting,
                values=scored,
                images=sum(r["counts"].get("images_generated", 0) for r in members),
                seconds=sum(sum(r["seconds"].values()) for r in members),
            )
    seeds = tuple(sorted({r["seed"] for r in results}))
    return Summary(metric=metric, columns=columns, rows=list(rows.values()), seeds=seeds)


def _setting(result: dict[str, Any], swept: list[str]) -> dict[str, str]:
    setting = {key: str(result["names"][key]) for key in COMPONENTS}
    setting["shots"] = str(result["config"]["dataset"].get("shots"))
    for key in swept:
        value = value_at(result["config"], key)
        uses = result["names"]["generator"] != "none" or not key.startswith(("mix.", "generator."))
        setting[key] = "–" if value is None or not uses else str(value)
    return setting


def show(folders: Sequence[Path]) -> None:
    """Print the tables of these cells."""
    for summary in summarise(read_results(folders)):
        print_summary(summary)


def print_summary(summary: Summary) -> None:
    """To the terminal, best first."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in summary.columns:
        table.add_column(column, no_wrap=True)
    for column in (summary.metric, "sd", "n", "images made", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in sorted(summary.rows, key=lambda row: -row.mean):
        spread = "–" if row.spread is None else f"{row.spread:.4f}"
        n = f"{len(row.values)}/{len(summary.seeds)}"
        table.add_row(*row.setting, f"{row.mean:.4f}", spread, n, str(row.images), f"{row.seconds:.0f}")
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)  # a cut table says less than a wide one
