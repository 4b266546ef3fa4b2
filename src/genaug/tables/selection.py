"""Tables of any finished runs, without an experiment's file: chosen by any key, told apart by the keys that differ.

Runs on different data sets, or with different metrics, never share a table. What generators, mixes and augmentations say
differs from row to row; what belongs to the data and the downstream model from column to column, so that a method is
compared with the baseline of its own column.
"""

import difflib
import fnmatch
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.files import read_json, read_rows
from genaug.runs.collection import HIDDEN, read_results, uses_images, value_at
from genaug.runs.sweep import FAILED, SIZE
from genaug.tables.arrangement import collect
from genaug.tables.spec import TableSpec
from genaug.tables.sweep import PlannedCell, Sweep
from genaug.tables.table import Table, text_of

COMPONENTS = ("dataset", "generator", "mix", "augment", "downstream", "prior", "leakage", "filter")
ABSENT = "–"
NEEDS_IMAGES = ("mix", "generator", "prior", "leakage", "filter")
"""Groups of keys that say nothing of a run without synthetic images."""
CONDITIONS = ("dataset", "downstream", "trainer")
"""Groups of keys that name a column: both methods of a comparison have them."""
SAME_DATA = ("name", "shots", "fraction", "seed", "image_size", "cache_dir")
"""Keys of a data set that may differ within one table."""
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}


def select(outputs: Path, conditions: Sequence[str] = (), last: bool = False) -> list[dict[str, Any]]:
    """Finished runs that fulfil all conditions.

    Args:
        conditions: ``key=value`` (several values between commas, ``*`` for anything), ``key!=value``, ``key<number`` and the
            like, with group names (``generator``), dotted keys (``mix.alpha``), ``seed`` and ``experiment``; or a part of the
            run's folder name.
        last: only runs of the last sweep.

    Raises:
        GenaugError: if no finished run fulfils them, or no run has a key.
    """
    runs = outputs / "runs"
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    if last:
        folders, missing = last_sweep(outputs)
        if missing and not folders:
            raise GenaugError(
                f"No run of the last sweep below {outputs} is complete: its command, issued again, goes on."
            )
    results = [result for result in read_results(folders) if result["metrics"]]
    found = results
    for condition in conditions:
        found = [result for result in found if _holds(result, condition, results)]
    if not found:
        wanted = " ".join(conditions)
        raise GenaugError(f"No finished run below {runs}" + (f" has {wanted}." if wanted else "."))
    return found


def last_sweep(outputs: Path) -> tuple[list[Path], int]:
    """Folders of the runs of the last sweep on record, and how many of its runs are not complete."""
    records = sorted({file.parent for name in ("cells.jsonl", SIZE) for file in (outputs / "sweeps").glob(f"*/{name}")})
    if not records:
        raise GenaugError(f"No sweep is on record below {outputs / 'sweeps'}: leave --last out.")
    rows = read_rows(records[-1] / "cells.jsonl", {"folder": str | None, "state": str})
    ended = [Path(row["folder"]) for row in rows if row["folder"] is not None and row["state"] != FAILED]
    size = read_json(records[-1] / SIZE, {"runs": int})
    # combinations that cannot differ (a baseline under several alpha) are one run, with a row for each
    missing = 0 if size is None else size["runs"] - sum((folder / "result.json").is_file() for folder in ended)
    return list(dict.fromkeys(ended)), missing


def is_condition(word: str) -> bool:
    """Whether a word compares a key with a value."""
    return _parse(word) is not None


def _parse(condition: str) -> tuple[str, str, str] | None:
    match = re.fullmatch(r"([A-Za-z_][\w.]*)(<=|>=|!=|<|>|=)(.*)", condition)
    return (match[1], match[2], match[3]) if match else None


def _holds(result: dict[str, Any], condition: str, everything: Sequence[dict[str, Any]]) -> bool:
    parsed = _parse(condition)
    if parsed is None:
        return condition in result["cell"]
    key, sign, wanted = parsed
    if all(_value(other, key) is None for other in everything):
        known = sorted(
            {key for other in everything for key in (*COMPONENTS, "seed", "experiment", *_keys(other["config"]))}
        )
        near = difflib.get_close_matches(key, known, n=3) or [
            k for k in known if k.endswith("." + key.rpartition(".")[2])
        ]
        if key == "preset":
            raise GenaugError(
                f"{condition} sets other keys and is not kept with a run: select by one of those, by experiment=…, or --last."
            )
        raise GenaugError(
            f"No finished run has a key {key}." + (f" Did you mean {' or '.join(near[:3])}?" if near else "")
        )
    value = _value(result, key)
    if sign in ("=", "!="):
        quoted = len(wanted) > 1 and wanted[0] == wanted[-1] and wanted[0] in "'\""
        options = [wanted[1:-1]] if quoted else [wanted, *([] if wanted.startswith("[") else wanted.split(","))]
        return any(_is(value, option) for option in options) == (sign == "=")
    try:
        return isinstance(value, int | float) and OPERATORS[sign](value, float(wanted))
    except ValueError as error:
        raise GenaugError(f"{condition}: {wanted} is not a number.") from error


def _value(result: dict[str, Any], key: str) -> Any:
    """What a run has under a key: a group's preset, or a value."""
    return result["names"].get(key) if key in COMPONENTS else value_at(result["config"], key)


def _is(value: Any, wanted: str) -> bool:
    """Whether a value is what was written: numbers as numbers, folders as places, text with ``*``."""
    text = text_of(value)
    if fnmatch.fnmatchcase(text.replace(" ", ""), wanted.replace(" ", "").replace("[", "[[]")):
        return True
    if value is None:
        return wanted in ("null", "None")
    if isinstance(value, bool):
        return text.lower() == wanted.lower()
    if isinstance(value, int | float):
        return _number(wanted) == value
    return "/" in text and Path(text).expanduser().absolute() == Path(wanted).expanduser().absolute()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def tables_of(results: Sequence[dict[str, Any]], metric: str | None = None, command: str = "") -> list[Table]:
    """One table for each data set and metric.

    Args:
        metric: e.g. ``test/accuracy_micro``; each run's main one without.
        command: what shows the tables, for their provenance.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        name = metric or result["metric"]
        if name in result["metrics"]:
            groups.setdefault((name, _data(result)), []).append(result)
    if metric is not None and not groups:
        known = sorted({k for r in results for k, v in r["metrics"].items() if isinstance(v, int | float)})
        raise GenaugError(f"No run has a metric {metric}. There are {', '.join(known)}.")
    names = [members[0]["names"]["dataset"] for members in groups.values()]
    tables = []
    for place, ((name, _), members) in enumerate(groups.items()):
        dataset = members[0]["names"]["dataset"]
        apart = f"{dataset}_{place + 1}" if names.count(dataset) > 1 else dataset
        tables.append(_table(members, name, apart, command))
    return tables


def _data(result: dict[str, Any]) -> str:
    """What makes two runs' images the same: the data set's name and settings, apart from how many images are drawn."""
    settings = {key: value for key, value in result["config"]["dataset"].items() if key not in SAME_DATA}
    return json.dumps([result["names"]["dataset"], settings], sort_keys=True, default=str)


def _table(results: list[dict[str, Any]], metric: str, title: str, command: str) -> Table:
    keys = differing_keys(results)
    columns = [key for key in keys if key.partition(".")[0] in CONDITIONS]
    rows = [key for key in keys if key not in columns]
    spec = TableSpec(title=title, rows=rows, columns=columns, metric=metric)
    names = {result["names"]["generator"] for result in results}
    if "none" in names and len(names) > 1:
        spec.baseline = {key: ABSENT for key in rows if key.partition(".")[0] in NEEDS_IMAGES} | {"generator": "none"}
    root = results[0]["config"]["dataset"].get("root") or results[0]["config"]["dataset"].get("path")
    if root:
        spec.notes.append(f"Data: {root}")
    sweep = Sweep(item=f"selection/{title}", extra=(), cells=[_cell(r, keys) for r in results], outputs=Path())
    table = collect(sweep, spec)
    table.command = command
    seeds = len({result["seed"] for result in results})
    for entry in table.entries:
        entry.wanted = seeds if entry.values else 0
    return table


def _cell(result: dict[str, Any], keys: Sequence[str]) -> PlannedCell:
    return PlannedCell(
        overrides=tuple(result["overrides"]),
        config=None,
        fingerprint=result["fingerprint"],
        state="complete",
        result=result,
        values={**setting(result, keys), "seed": str(result["seed"])},
    )


def differing_keys(results: Sequence[dict[str, Any]]) -> list[str]:
    """The generator, and the other keys that tell the settings of runs apart: components and keys that somebody has set, and
    any other key where those are not enough. Seeds of the trial tell nothing apart."""
    swept = sorted(
        {o.split("=", 1)[0].lstrip("+~") for r in results for o in r["overrides"] if "." in o.split("=", 1)[0]}
    )
    swept = [k for k in swept if not k.endswith(".name") and not k.startswith(HIDDEN)]
    apart = [key for key in swept if key.endswith(".seed")]  # those that were set apart from the trial's
    firsts = {(r["setting"], *(str(value_at(r["config"], key)) for key in apart)): r for r in reversed(results)}
    runs = list(firsts.values())
    keys = ["generator"]
    for key in dict.fromkeys((*COMPONENTS[1:], "dataset.shots", *swept)):
        if key not in keys and len({setting(r, [key])[key] for r in runs} - {ABSENT}) > 1:
            keys.append(key)
    others = dict.fromkeys(key for r in runs for key in _keys(r["config"]) if not key.endswith(("name", "seed")))
    for key in (*others, "setting"):
        shown = len({tuple(setting(r, keys).values()) for r in runs})
        if shown == len(runs):
            break
        if len({tuple(setting(r, [*keys, key]).values()) for r in runs}) > shown:
            keys.append(key)
    return keys


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a resolved configuration that can change a result."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        elif not f"{prefix}{key}".startswith(HIDDEN):
            yield f"{prefix}{key}"


def setting(result: dict[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """What a table says of a run; – where it has no such value, or makes no image that the value could change."""
    found = {}
    for key in keys:
        value = f"setting {result['setting'][:8]}" if key == "setting" else _value(result, key)
        without_images = not uses_images(result) and key.partition(".")[0] in NEEDS_IMAGES
        found[key] = ABSENT if value is None or (without_images and key != "generator") else text_of(value)
    return found
