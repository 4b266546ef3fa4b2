"""The verdict on a table: what its runs, their pools and their audits say, put before ``genaug.evaluation.verdict``."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.files import read_json
from genaug.evaluation.agreement import label_agreement
from genaug.evaluation.verdict import (
    Arm,
    Verdict,
    agreement_warnings,
    judge,
    leak_warning,
    rejected_warning,
)
from genaug.runs.pools import dataset_of, pool_of
from genaug.tables import render
from genaug.tables.selection import ABSENT, NEEDS_IMAGES
from genaug.tables.table import Entry, Table

AUDIT = {"unusual_share": float, "expected_share": float}
"""Keys of what ``genaug leaks`` writes that are read here, and the types of their values."""
NUM_JUDGED = 1000
"""Generated images per method that the judge sees, those of its first variants."""


def verdicts(table: Table, outputs: Path, features: str = "pixels", deep: bool = True) -> list[Verdict]:
    """One verdict for each data set and column of a table; data sets are never compared with each other.

    Args:
        features: backbone of the judge of label agreement.
        deep: false reads the results alone, without looking at any image.
    """
    if table.spec.overall is not None and table.spec.overall.scale != "none":
        return []  # there are no points of accuracy to speak of
    found = []
    results = {result["fingerprint"]: result for result in table.results}
    for column in table.columns:
        if any(part.startswith("area(") for part in column):
            continue
        entries = [entry for entry in table.entries if entry.column == column and entry.values]
        absent = [entry for entry in table.entries if entry.column == column and entry.wanted and not entry.values]
        for dataset in dict.fromkeys(entry.dataset for entry in entries):
            members = [entry for entry in entries if entry.dataset == dataset]
            shown = ", ".join([dataset, *([render.column_title(table, column)] if column else [])])
            unit = table.spec.unit
            verdict = judge(
                [_arm(table, entry, results) for entry in members], table.spec.metric, shown, unit != "fraction"
            )
            verdict.warnings += _not_run(table, absent) + _warnings(table, members, outputs, features, deep)
            found.append(verdict)
    return found


def _not_run(table: Table, entries: list[Entry]) -> list[str]:
    """A sentence on rows of which no run is complete: the verdict cannot speak of them."""
    names = [render.name(table, table.spec.rows, entry.row) for entry in entries]
    return [f"No run is complete of {'; '.join(names)}."] if names else []


def _arm(table: Table, entry: Entry, results: Mapping[str, dict[str, Any]]) -> Arm:
    better_high = (
        {seed: 100 - v for seed, v in entry.values.items()} if table.spec.unit == "error_percent" else entry.values
    )
    own = [results[fingerprint] for fingerprint in entry.generated]
    return Arm(
        name=render.name(table, table.spec.rows, entry.row),
        values=better_high,
        generated=bool(entry.generated),
        wanted=entry.wanted,
        images={
            result["pool"] or result["fingerprint"]: counts.get("images_generated", 0)
            + counts.get("images_reused", 0)
            - counts.get("images_rejected", 0)
            for result in own
            for counts in [result["counts"]]
        },
        hours=entry.seconds / 3600,
        oracle=entry.oracle,
    )


def _warnings(table: Table, entries: list[Entry], outputs: Path, features: str, deep: bool) -> list[str]:
    results = {result["fingerprint"]: result for result in table.results}
    lines: list[str] = []
    unaudited: dict[str, str] = {}  # by what the images are called, a pool of theirs
    seen: set[tuple[str, frozenset[str]]] = set()
    for entry in entries:
        own = [results[fingerprint] for fingerprint in entry.generated]
        name, pools = _images_of(table, entry), frozenset(result["pool"] for result in own if result["pool"])
        is_known = pools and any(name == other and pools <= known for other, known in seen)
        if not own or is_known:  # the same images beside another augmentation
            continue
        seen.add((name, pools))
        rejected = Counter[str]()
        for result in own:
            rejected.update(result["rejected"])
            lines += [text for text in [result.get("prior_check")] if text]  # of prior and data, whatever the method
        if text := rejected_warning(name, rejected, entry.images):
            lines.append(text)
        pooled = [result for result in own if result["pool"]] if deep else []
        audits = [read_json(outputs / "leaks" / result["pool"] / "leaks.json", AUDIT) for result in pooled]
        lines += [text for audit in audits if (text := leak_warning(name, audit))]
        if pooled and not any(audits):
            unaudited.setdefault(name, pooled[0]["pool"])
        if pooled:
            lines += _agreement(name, pooled[0], outputs, features)
    if unaudited:
        (name, pool), *_ = unaudited.items()
        words = ["genaug", "leaks", pool[:8], "--features", "pixels"]
        words += [] if outputs == Path("outputs") else ["--outputs", str(outputs)]
        lines.append(
            f"No leak audit of {'; '.join(unaudited)}. For {name}: {shlex.join(words)} (a timm backbone sees more)."
        )
    return list(dict.fromkeys(lines))


def _images_of(table: Table, entry: Entry) -> str:
    """What a row's images are called: its values, without those that change no image, such as the augmentation's."""
    values = dict(zip(table.spec.rows, entry.row, strict=True))
    shown = {
        key: value
        for key, value in values.items()
        if key.partition(".")[0] in NEEDS_IMAGES and key != "mix.alpha" and value != ABSENT
    }
    return render.name(table, list(shown), list(shown.values()))


def _agreement(name: str, result: dict[str, Any], outputs: Path, features: str) -> list[str]:
    """What the judge says of the first seed's pool; nothing where images or data have left this machine."""
    try:
        pool, trial = pool_of(outputs, result, result["config"]["mix"]["m"])
        if trial.task != "classification" or not pool.samples:
            return []
        source = dataset_of({**result, "config": _all_images(result["config"])})
    except GenaugError:
        return [f"{name}: whether its images still look like their class was not judged, as data or images are gone."]
    variants = sorted(pool.samples, key=lambda sample: sample.index)[:NUM_JUDGED]
    agreement = label_agreement(variants, [*source.train, *source.val], features, outputs / "store")
    if agreement is None:
        return [
            f"{name}: whether its images still look like their class was not judged: no two classes have two real images."
        ]
    return agreement_warnings(name, agreement.accuracy, agreement.by_strength)


def _all_images(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration without a few-shot draw."""
    return {**config, "dataset": {**config["dataset"], "shots": None, "fraction": None}}
