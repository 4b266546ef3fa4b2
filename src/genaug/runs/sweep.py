"""The runs of one sweep: a line each in ``outputs/sweeps/<time>/cells.jsonl``, and what an optimising sweeper maximises."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.core.errors import GenaugError
from genaug.core.files import write_json
from genaug.data.sample import without_objects

if TYPE_CHECKING:
    from genaug.config import RunConfig

OK, SKIPPED, FAILED = "ok", "skipped (complete already)", "failed"
"""What became of a run."""


SIZE = "size.json"
"""Beside ``cells.jsonl``: how many runs the sweep has."""


def note_size(sweep_dir: Path, count: int) -> None:
    """Write how many runs a sweep has, before the first starts: an interrupted sweep is known by it."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    write_json(sweep_dir / SIZE, {"runs": count})


def note_cell(sweep_dir: Path, folder: Path | None, overrides: Sequence[str], state: str, reason: str = "") -> None:
    """Add one line to the sweep's ``cells.jsonl``; ``folder`` is None for a run that was refused before it had one, and
    ``reason`` says why a run failed."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    row = {"folder": None if folder is None else str(folder), "overrides": list(overrides), "state": state}
    row |= {"reason": reason} if reason else {}
    with (sweep_dir / "cells.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


PLAIN_SWEEPERS = ("CellSweeper", "BasicSweeper")


def is_optimising(sweeper: Any) -> bool:
    """Whether a Hydra sweeper (its part of the configuration) chooses its next cells by the values of earlier ones."""
    return str(sweeper.get("_target_", "")).rpartition(".")[2] not in PLAIN_SWEEPERS


def shares_machine(launcher: Any) -> bool:
    """Whether a Hydra launcher (its part of the configuration) starts several processes on one machine and leaves the GPUs to
    them; SLURM and Ray give each its own."""
    name = str(launcher.get("_target_", "")).rpartition(".")[2]
    return name in ("JoblibLauncher", "LocalLauncher") or (launcher.get("processes") or 1) > 1


def check_objective(config: "RunConfig") -> None:
    """Raise ``GenaugError``, before any work, for a cell that has no validation images to be optimised on."""
    if config.task != "train":
        raise GenaugError(
            f"An optimising sweeper needs a result, which task={config.task} does not give: write task=train."
        )
    dataset = config.dataset.load()
    if not dataset.val:
        raise GenaugError(
            f"An optimising sweeper chooses by the validation images, and {dataset.name} has none here: give it a validation "
            "split (dataset.val_fraction where the data set has this key). The test split is for the final number alone."
        )
    if dataset.task == "detection" and (faults := without_objects(dataset, "val")):
        raise GenaugError(f"An optimising sweeper chooses by the validation images. {faults[0]}")


def objective(result: dict[str, Any]) -> float:
    """What an optimising sweeper maximises: the main metric on the validation split, never on the test split.

    Raises:
        GenaugError: if the result has none.
    """
    name = result["metric"].replace("test/", "val/", 1)
    value = result["metrics"].get(name)
    if value is None:
        raise GenaugError(f"{result['cell']} has no {name}, by which an optimising sweeper could choose.")
    return float(value)
