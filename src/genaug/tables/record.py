"""``experiments/results/<item>.json``: what an experiment gave where it was run, committed beside the experiment."""

from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.files import read_json, write_json
from genaug.tables.spec import experiment_root
from genaug.tables.table import Table


def record_path(item: str) -> Path:
    return experiment_root() / "results" / f"{item}.json"


def read_record(item: str) -> dict[str, Any] | None:
    """The committed record, or None."""
    return read_json(record_path(item))


def write_record(table: Table) -> Path:
    """Write the values of a table with what is needed to judge them: seeds, states of the cells, hardware, revision.

    Raises:
        GenaugError: if no cell is complete, or the record would replace one of a fuller run.
    """
    if not table.results:
        raise GenaugError(f"No run of {table.item} is complete: run `{table.command}` first.")
    path, known = record_path(table.item), read_record(table.item)
    if known is not None and len(known["overrides"]) < len(table.overrides):
        raise GenaugError(
            f"{path} holds a run with fewer overrides ({' '.join(known['overrides']) or 'none'}), which a run with "
            f"{' '.join(table.overrides)} must not replace. Delete it first if that is meant."
        )
    names = ("git_revision", "cpu", "gpu", "python", "versions", "cells", "hours")
    content = {
        "item": table.item,
        "command": table.command,
        "overrides": list(table.overrides),
        "reduced": table.reduced,
        "metric": table.spec.metric,
        "unit": table.spec.unit,
        "states": table.states,
        "environments": [{key: environment[key] for key in names} for environment in table.environments],
        "entries": [
            {
                "row": dict(zip(table.spec.rows, entry.row, strict=True)),
                "column": dict(zip(table.spec.columns, entry.column, strict=True)),
                "mean": entry.mean,
                "interval": None if entry.interval is None else [entry.interval.low, entry.interval.high],
                "values": {str(seed): value for seed, value in entry.values.items()},
                "wanted": entry.wanted,
                "oracle": entry.oracle,
                "published": None if table.reduced else entry.published_value,
                "reproduced": entry.reproduced,
            }
            for entry in table.entries
            if entry.values
        ],
    }
    write_json(path, content)
    return path
