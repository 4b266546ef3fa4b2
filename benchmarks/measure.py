"""The one way in which two sides are measured: in alternation, several times over, with a check that both did the same."""

import csv
import datetime
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from genaug.runs.environment import describe_environment

RESULTS = Path(__file__).parent / "results"
REPEATS = 5
"""The fewest that count."""


class Different(Exception):
    """The two sides did not do the same work: their times must not be compared."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two ways of doing something."""

    name: str
    run: Callable[[], Any]
    """Does it and returns what came out."""
    units: float = 1.0
    """Pieces (images, steps) that one call makes; times are per piece."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file of results."""

    what: str
    ours: str
    theirs: str
    ratio: float
    """Median over the repeats of their time divided by ours: above 1, ours is faster."""
    low: float
    high: float
    ours_seconds: float
    """Median, per piece."""
    theirs_seconds: float
    clock: str
    """``CPU`` (of all threads and children; another process on the same core changes little) or ``wall`` (on a GPU)."""
    repeats: int
    same: str
    """What was compared, and how far apart it was."""
    target: float | None
    ours_gb: float | None
    """Peak memory on the GPU."""
    theirs_gb: float | None
    threads: int
    load: float
    """Processes that wanted to run on the machine, over the last minute."""
    hardware: str
    versions: str
    revision: str
    date: str


def compare(
    what: str,
    ours: Side,
    theirs: Side,
    same: Callable[[Any, Any], str],
    *,
    target: float | None = None,
    device: str = "cpu",
    repeats: int = REPEATS,
    until: float | None = None,
) -> Row:
    """Measure both sides, first one and then the other first.

    Args:
        same: of what both sides gave: says what was compared and how far apart it was; raises ``Different``.
        target: the ratio to reach.
        device: a CUDA device is waited for, and its memory measured.
        until: value of ``time.monotonic()`` after which no repeat but the first begins.
    """
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    peak = dict.fromkeys(seconds, 0.0)
    outcome: dict[str, Any] = {}
    on_gpu = device.startswith("cuda")
    for i in range(repeats):
        if i and until is not None and time.monotonic() > until:
            break
        for key, side in (("ours", ours), ("theirs", theirs))[:: 1 if i % 2 == 0 else -1]:
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = _clock(on_gpu)
            outcome[key] = side.run()
            seconds[key].append((_clock(on_gpu) - started) / side.units)
            peak[key] = max(peak[key], torch.cuda.max_memory_allocated() / 2**30) if on_gpu else 0.0
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return Row(
        what=what,
        ours=ours.name,
        theirs=theirs.name,
        ratio=_rounded(statistics.median(ratios)),
        low=_rounded(min(ratios)),
        high=_rounded(max(ratios)),
        ours_seconds=_rounded(statistics.median(seconds["ours"])),
        theirs_seconds=_rounded(statistics.median(seconds["theirs"])),
        clock="wall" if on_gpu else "CPU",
        repeats=len(ratios),
        same=same(outcome["ours"], outcome["theirs"]),
        target=target,
        ours_gb=_rounded(peak["ours"]) if on_gpu else None,
        theirs_gb=_rounded(peak["theirs"]) if on_gpu else None,
        **circumstances(device),
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of a file of results in ``results/targets``: a number that has no other side, only a target."""

    what: str
    value: float
    low: float
    high: float
    """Range over the repeats, whose median is the value."""
    unit: str
    target: str
    """Such as ``at most 2``; empty where there is none."""
    repeats: int
    load: float
    hardware: str
    revision: str
    date: str


def measured(what: str, values: Sequence[float], unit: str, target: str = "") -> Measured:
    """A line from the repeats of one measurement."""
    about = {key: value for key, value in circumstances().items() if key not in ("threads", "versions")}
    low, middle, high = (_rounded(found) for found in (min(values), statistics.median(values), max(values)))
    return Measured(what, middle, low, high, unit, target, len(values), **about)


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Threads, load, hardware, versions, revision and date, as every row has them."""
    about = describe_environment()
    return {
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "hardware": torch.cuda.get_device_name() if device.startswith("cuda") else about["cpu"],
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version),
        "revision": about["git_revision"] or "",
        "date": datetime.date.today().isoformat(),
    }


def write(name: str, rows: Sequence[Row] | Sequence[Measured], folder: Path = RESULTS) -> Path:
    """``<name>.csv`` in ``folder``, or in its ``targets`` where there is no other side: these rows in place of the file's."""
    path = (folder / "targets" if isinstance(rows[0], Measured) else folder) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


def say(row: Row) -> str:
    """A row as a sentence."""
    memory = "" if row.ours_gb is None else f", {row.ours_gb:g} against {row.theirs_gb:g} GB"
    target = "" if row.target is None else f", target {row.target:g}"
    return (
        f"{row.what}: {row.ratio:g} ({row.low:g} to {row.high:g}, {row.repeats} repeats{target}): {row.ours} "
        f"{row.ours_seconds:g} s, {row.theirs} {row.theirs_seconds:g} s of {row.clock} time{memory}; {row.same}"
    )


def _clock(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
        return time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")
