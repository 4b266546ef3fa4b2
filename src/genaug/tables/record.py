"""What an experiment gave where it was run, committed: ``experiments/results/<item>.json``, which pages are made from,
``<item>.csv``, a line for each run with its identities and protocol, and ``<item>.svg``, the curves where it has some."""

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.files import read_json, write_json, write_text
from genaug.core.names import safe_name
from genaug.core.paths import project_root
from genaug.drawing.charts import standalone
from genaug.evaluation.statistics import LEVEL, Interval
from genaug.runs.collection import HIDDEN
from genaug.tables.render import MISSING, number
from genaug.tables.report import curve_views
from genaug.tables.spec import TableSpec, experiment_root
from genaug.tables.table import Entry, Table

DIFFERENCE_HEADS = ("difference", "95 % interval", "over test images, too", "p", "p (Holm)", "seeds above")
PROTOCOL = ("select", "selected_step", "num_steps", "batch_size", "evaluation", "oracle")
LEGEND = (
    "In brackets the difference to the first row, paired by seed; * is p < .05 by an exact sign-flip test after Holm over the "
    "table. {seeds}; {runs} runs, {hours:.1f} h on {hardware}; `{command}`."
)


def record_path(item: str) -> Path:
    return experiment_root() / "results" / f"{item}.json"


def read_record(item: str) -> dict[str, Any] | None:
    """The record in the folder that is written to, or else the project's; None where neither has one."""
    return read_json(record_path(item)) or read_json(project_root() / "experiments" / "results" / f"{item}.json")


def write_record(table: Table) -> Path:
    """Write the values of a table with what is needed to judge them: seeds, states of the cells, hardware, revision.

    Raises:
        GenaugError: if no cell is complete, or the record would replace one of a fuller run.
    """
    if not table.results:
        raise GenaugError(f"No run of {table.item} is complete: run `{table.command}` first.")
    path = record_path(table.item)
    known = read_json(path)
    if known is not None and len(known["overrides"]) < len(table.overrides):
        raise GenaugError(
            f"{path} holds a run with fewer overrides ({' '.join(known['overrides']) or 'none'}), which a run with "
            f"{' '.join(table.overrides)} must not replace. Delete it first if that is meant."
        )
    names = ("git_revision", "cpu", "gpu", "python", "versions", "cells", "hours")
    content = {
        "item": table.item,
        "command": shlex.join(["python", "train.py", "-m", f"experiment={table.item}", *table.overrides]),
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
                "interval": _ends(entry.interval),
                "values": {str(seed): value for seed, value in entry.values.items()},
                "wanted": entry.wanted,
                "oracle": entry.oracle,
                "published": None if table.reduced else entry.published_value,
                "reproduced": entry.reproduced,
                "against_baseline": _compared(entry),
            }
            for entry in table.entries
            if entry.values
        ],
    }
    write_json(path, content)
    write_text(path.with_suffix(".csv"), runs_as_csv(table))
    for view in curve_views(table) if table.spec.curve is not None else []:
        write_text(path.with_suffix(".svg"), standalone(view["svg"], [known["name"] for known in view["legend"]]))
    return path


def _compared(entry: Entry) -> dict[str, Any] | None:
    """The paired difference to the baseline, with what is needed to judge it."""
    found = entry.comparison
    if found is None:
        return None
    return {
        "mean": found.mean,
        "interval": _ends(found.interval),
        "two_level": _ends(entry.two_level),
        "p": found.p_value,
        "p_holm": entry.p_adjusted,
        "n": found.n,
        "better": sum(difference > 0 for difference in found.differences),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _from_to(ends: list[float] | None, unit: str) -> str:
    return MISSING if ends is None else " to ".join(number(end, unit, signed=True) for end in ends)


def runs_as_csv(table: Table) -> str:
    """One line per cell: what tells it from the others, identities, protocol, metrics, cost, and how to run it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = sorted({k for r in table.results for k, v in r["metrics"].items() if isinstance(v, int | float)})
    heads = [*table.spec.keys(), "seed", *metrics, *PROTOCOL, "run", "setting", "pool"]
    writer.writerow([*heads, "generated_images", "network_evaluations", "seconds", "revision", "command"])
    for values, result in sorted(table.lines, key=lambda line: (*line[0].values(), line[1]["seed"])):
        counts = result["counts"]
        fields = [
            *values.values(),
            result["seed"],
            *(result["metrics"].get(name) for name in metrics),
            *(result["protocol"].get(name) for name in PROTOCOL),
            *(result["fingerprint"], result["setting"], result["pool"]),
            counts.get("images_generated", 0) + counts.get("images_reused", 0),
            counts.get("network_evaluations", 0) + counts.get("fit_network_evaluations", 0),
            round(sum(result["seconds"].values()), 1),
            result["environment"]["git_revision"],
            shlex.join(["genaug", "run", *(word for word in result["overrides"] if not word.startswith(HIDDEN))]),
        ]
        writer.writerow([safe_name(field, "csv") if isinstance(field, str) else field for field in fields])
    return out.getvalue()


def as_markdown(record: dict[str, Any], spec: TableSpec) -> str:
    """A record as a table for a page: the experiment's rows and columns, differences to its baseline, what it cost."""
    unit, entries = record["unit"], record["entries"]
    places = {(tuple(e["row"].values()), tuple(e["column"].values())): e for e in entries}
    rows, columns = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))

    def shown(row: tuple[str, ...], column: tuple[str, ...]) -> str:
        if (entry := places.get((row, column))) is None:
            return MISSING
        found, n = entry.get("against_baseline"), len(entry["values"])
        text = number(entry["mean"], unit)
        if found is not None:
            star = "*" if found["p_holm"] < LEVEL else ""
            text += f" ({number(found['mean'], unit, signed=True)}{star})"
        return text + (f" n={n}" if n < entry["wanted"] else "")

    heads = [_named(column, spec) or spec.metric for column in columns]
    lines = [_line(["", *heads]), "|" + "---|" * (len(heads) + 1)]
    lines += [_line([_named(row, spec), *(shown(row, column) for column in columns)]) for row in rows]
    machines = record["environments"]
    seeds = max(entry["wanted"] for entry in entries)
    legend = LEGEND.format(
        seeds=f"{seeds} seeds" if seeds > 1 else "one seed",
        runs=sum(machine["cells"] for machine in machines),
        hours=sum(machine["hours"] for machine in machines),
        hardware=machines[0]["gpu"] or machines[0]["cpu"],
        command=record["command"],
    )
    return "\n".join([*lines, "", legend]) + "\n"


def differences_as_markdown(record: dict[str, Any], spec: TableSpec) -> str:
    """Every difference of a record to its baseline: interval, p-values, n."""
    lines = [_line(["", *(key.rpartition(".")[2] for key in spec.columns), *DIFFERENCE_HEADS])]
    lines.append("|" + "---|" * (1 + len(spec.columns) + len(DIFFERENCE_HEADS)))
    for entry in record["entries"]:
        if (found := entry.get("against_baseline")) is None:
            continue
        intervals = [_from_to(found[name], record["unit"]) for name in ("interval", "two_level")]
        cells = [_named(tuple(entry["row"].values()), spec), *entry["column"].values()]
        cells += [number(found["mean"], record["unit"], signed=True), *intervals]
        cells += [f"{found['p']:.3f}", f"{found['p_holm']:.3f}", f"{found['better']} of {found['n']}"]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _named(values: tuple[str, ...], spec: TableSpec) -> str:
    """The experiment's labels of a row or column, without keys that it does not have."""
    return ", ".join(spec.labels.get(value, value) for value in values if value != str(None))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
