"""A run's folder as ``run.finish`` leaves it, made by hand."""

from pathlib import Path
from typing import Any

from genaug.core.files import write_json
from genaug.runs.collection import RESULT


def write_finished(folder: Path, **changes: Any) -> None:
    """``result.json`` and ``status.json`` of a complete run, whose fingerprint is the end of its folder's name."""
    result = {key: {} for key, kind in RESULT.items() if kind is dict}
    result |= {"cell": folder.name, "fingerprint": folder.name.rpartition("-")[2], "setting": "s", "seed": 0}
    write_json(folder / "result.json", {**result, "metric": "m", "pool": None, "overrides": [], **changes})
    write_json(folder / "status.json", {"state": "complete", "attempt": 0, "host": "h", "pid": 1})
