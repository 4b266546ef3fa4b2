"""Read results back from the runs folder. Imports no torch: ``genaug status`` starts at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.store import read_json


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
    states = []
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        status = read_json(folder / "status.json")
        if status is None:
            continue
        result = read_json(folder / "result.json")
        state = "complete" if result is not None else status["state"]
        if state == "running" and not _alive(status):
            state = "interrupted"
        states.append(CellState(folder=folder, state=state, reason=status.get("reason", ""), result=result))
    return states


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
