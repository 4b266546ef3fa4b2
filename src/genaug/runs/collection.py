"""Read results back from the runs folder. Imports no torch: ``genaug status`` starts at once."""

import datetime
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from genaug.core.files import SEAL, has_changed, read_json, say_damaged
from genaug.downstream.trainer import TrainerConfig

HIDDEN = (
    "paths",
    "tracking",
    "generation",
    "hydra",
    *(f"trainer.{key.name}" for key in fields(TrainerConfig) if not key.metadata.get("identity", True)),
)
"""Beginnings of keys that change no result."""

RESULT = {
    "cell": str,
    "fingerprint": str,
    "setting": str,
    "names": dict,
    "seed": int,
    "metric": str,
    "metrics": dict,
    "protocol": dict,
    "counts": dict,
    "seconds": dict,
    "pool": str | None,
    "rejected": dict,
    "environment": dict,
    "overrides": list,
    "config": dict,
}
"""Keys of ``result.json`` and the types of their values."""
STATUS = {"state": str, "attempt": int, "host": str, "pid": int}
"""The same of ``status.json``."""
SECONDS_APART = 5
"""By which a process may seem to begin after what it wrote, as the system rounds."""


@dataclass(kw_only=True, slots=True)
class CellState:
    """One folder of ``runs/``."""

    folder: Path
    state: str
    """``complete``, ``failed``, ``running`` or ``interrupted`` (was running, its process is gone)."""
    reason: str
    result: dict[str, Any] | None
    stage: str = ""
    """The stage (``stages.STAGES``) that it is in, or in which it ended; empty for a complete run."""
    artefacts: tuple[str, ...] | None = ()
    """What it needs of the store, as paths below the outputs folder; None where the file that said it is damaged."""


def run_folders(runs: Path) -> dict[str, Path]:
    """The folder of each run by its fingerprint, the end of the folder's name; listed once for each state of ``runs``."""
    return _run_folders(runs, runs.stat().st_mtime_ns) if runs.is_dir() else {}


@functools.lru_cache(maxsize=4)
def _run_folders(runs: Path, mtime_ns: int) -> dict[str, Path]:
    with os.scandir(runs) as entries:
        return {entry.name.rpartition("-")[2]: runs / entry.name for entry in entries}


def cell_states(runs: Path) -> list[CellState]:
    """Every cell below ``runs``, by name."""
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    return [state for folder in folders if (state := state_of(folder)) is not None]


def state_of(folder: Path) -> CellState | None:
    """What is known of one cell's folder; None if no cell ever ran there."""
    result = read_result(folder)
    if result is not None:
        artefacts = _artefacts(result, folder / "result.json")
        return CellState(folder=folder, state="complete", reason="", result=result, artefacts=artefacts)
    status = read_status(folder)
    if status is None:
        if not (folder / "status.json").exists():
            return None
        reason = "its status.json is damaged"
        return CellState(folder=folder, state="interrupted", reason=reason, result=None, artefacts=None)
    state, reason = status["state"], str(status.get("reason", ""))
    stage, artefacts = str(status.get("stage", "")), _artefacts(status, folder / "status.json")
    if state == "complete":  # it says so, and its result is gone or damaged
        state, reason = "interrupted", "its result.json is damaged or missing"
    if state == "running" and not _alive(status):
        state = "interrupted"
    return CellState(folder=folder, state=state, reason=reason, result=None, stage=stage, artefacts=artefacts)


def _artefacts(about: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    found = about.get("artefacts", [])
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return tuple(found)
    say_damaged(path, "its artefacts are no names of files")
    return None


def _alive(status: dict[str, Any]) -> bool:
    """Whether the process of a running cell still is; one that began after the cell has its number by chance."""
    import socket

    import psutil

    if status["host"] != socket.gethostname():
        return True  # cannot know: another machine's process
    try:
        began = psutil.Process(status["pid"]).create_time()
    except (psutil.NoSuchProcess, OverflowError, ValueError):
        return False
    try:
        return began <= datetime.datetime.fromisoformat(status["started"]).timestamp() + SECONDS_APART
    except (KeyError, TypeError, ValueError):  # an older file, or a hand's
        return True


def read_result(folder: Path) -> dict[str, Any] | None:
    """The published result of a cell's folder; None where there is none, or its file is damaged or changed, which is said."""
    path = folder / "result.json"
    result = read_json(path, RESULT)
    if result is None:
        return None
    why = "its content has changed" if has_changed(result) else None
    if not folder.name.endswith(result["fingerprint"]):
        why = f"it belongs to {result['fingerprint']}"
    if why is not None:
        say_damaged(path, why)
        return None
    result.pop(SEAL, None)
    return result


def read_status(folder: Path) -> dict[str, Any] | None:
    """What the last attempt at a cell said of itself; None as for ``read_result``."""
    return read_json(folder / "status.json", STATUS)


def read_results(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Published results of these cell folders; absent and damaged ones are left out."""
    return [result for folder in folders if (result := read_result(folder)) is not None]


def uses_images(result: dict[str, Any]) -> bool:
    """Whether a run trained on generated images."""
    return result["pool"] is not None or bool(result["config"]["generator"].get("online"))


def value_at(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key in a resolved configuration, or None."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
