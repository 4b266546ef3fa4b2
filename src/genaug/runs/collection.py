"""Read results back from the runs folder. Imports no torch: ``genaug status`` starts at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.core.store import read_json

HIDDEN = ("paths", "tracking", "trainer", "hydra")
"""Beginnings of keys that change no result of a table."""


@dataclass(kw_only=True, slots=True)
class CellState:
    """One folder of ``runs/``."""

    folder: Path
    state: str
    """``complete``, ``failed``, ``running`` or ``interrupted`` (was running, its process is gone)."""
    reason: str
    result: dict[str, Any] | None


def cell_states(runs: Path) -> list[CellState]:
    """Every cell below ``runs``, by name."""
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    return [state for folder in folders if (state := state_of(folder)) is not None]


def state_of(folder: Path) -> CellState | None:
    """What is known of one cell's folder; None if no cell ever ran there."""
    result = read_json(folder / "result.json")
    status = read_json(folder / "status.json") or {}
    if result is None and not status:
        return None
    state = "complete" if result is not None else status["state"]
    if state == "running" and not _alive(status):
        state = "interrupted"
    return CellState(folder=folder, state=state, reason=status.get("reason", ""), result=result)


def _alive(status: dict[str, Any]) -> bool:
    import os
    import socket

    if status["host"] != socket.gethostname():
        return True  # cannot know: another machine's process
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_results(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Published results of these cell folders; absent ones are left out."""
    return [result for folder in folders if (result := read_json(folder / "result.json")) is not None]


def value_at(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key in a resolved configuration, or None."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
