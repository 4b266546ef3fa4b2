"""A table for the terminal, never wider than it: best first, each row with its paired difference to the baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genaug.runs.collection import read_results
from genaug.tables import render
from genaug.tables.selection import tables_of
from genaug.tables.table import Entry, Table, text_of

if TYPE_CHECKING:
    from genaug.evaluation.verdict import Verdict


def show(folders: Sequence[Path]) -> None:
    """Print the tables of these runs, and what they say together where some used generated images and some did not."""
    from genaug.tables.verdict import verdicts

    for table in tables_of([result for result in read_results(folders) if result["metrics"]]):
        print_table(table)
        for verdict in verdicts(table, Path(), deep=False):
            if verdict.answer != "nothing":
                print_verdict(verdict)


def print_table(table: Table, width: int | None = None) -> None:
    """Print one table; below a width of 60 characters cells wrap.

    Args:
        width: in characters; the terminal's without.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    spec, compared = table.spec, any(entry.comparison is not None for entry in table.entries)
    grid = Grid(box=box.SIMPLE_HEAD, title=f"{spec.title}: {spec.metric}", title_justify="left", padding=(0, 1, 0, 0))
    for head in ("method", *(["condition"] if spec.columns else [])):
        grid.add_column(head, overflow="fold", ratio=1)
    for head in ("mean", "n", *(["difference", "p"] if compared else []), "images", "seconds"):
        grid.add_column(head, justify="right", overflow="fold")
    entries = [entry for entry in table.entries if entry.values]
    for column in table.columns:
        ranked = sorted((e for e in entries if e.column == column), key=lambda e: -_rank(table, e))
        for entry in ranked:
            grid.add_row(*map(Text, _cells(table, entry, compared)))
    console = Console(width=width, highlight=False)
    console.print(grid)
    if "setting" in (*spec.rows, *spec.columns):
        text = "setting: no key tells these runs apart: another version of genaug made them, or the images have changed since."
        console.print(text, markup=False, style="dim")
    if compared:
        console.print(_legend(table), markup=False, style="dim")


def print_verdict(verdict: "Verdict") -> None:
    """Three sentences, then what to be careful about."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(" ".join(verdict.sentences), markup=False)
    for warning in verdict.warnings:
        console.print(f"Careful: {warning}", markup=False, style="yellow")


def _rank(table: Table, entry: Entry) -> float:
    assert entry.mean is not None
    return -entry.mean if table.spec.unit == "error_percent" else entry.mean


def _cells(table: Table, entry: Entry, compared: bool) -> list[str]:
    spec, unit = table.spec, table.spec.unit
    cells = [render.name(table, spec.rows, entry.row)]
    if spec.columns:
        cells.append(render.name(table, spec.columns, entry.column))
    interval = "" if entry.interval is None else f" {render.span(entry.interval, unit)}"
    cells += [f"{render.number(entry.mean, unit)}{interval}", f"{entry.n}/{entry.wanted}"]
    if compared:
        found = entry.comparison
        interval = (
            "" if found is None or found.interval is None else f" {render.span(found.interval, unit, signed=True)}"
        )
        cells.append("" if found is None else f"{render.number(found.mean, unit, signed=True)}{interval}")
        cells.append("" if found is None else render.p_text(entry.p_adjusted))
    return [*cells, f"{entry.images:,}", f"{entry.seconds:.0f}"]


def _legend(table: Table) -> str:
    rows, baseline = table.spec.rows, table.spec.baseline
    to = "the run without generated images"
    if len(rows) > 1 and all(key in baseline for key in rows):  # one row for all, not the like of each
        to = render.name(table, rows, [text_of(baseline[key]) for key in rows])
    return (
        f"difference: to {to}, paired by {table.spec.over}; p: exact sign-flip test after Holm over the table, which needs "
        f"{table.seeds_needed} seeds to tell a difference."
    )
