"""The command line: compose, type, run. What becomes of each run, and of a sweep as a whole, is said here."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from genaug.choosing import with_chosen
from genaug.composition import sets_value, typed
from genaug.config_source import register
from genaug.core import secret
from genaug.core.errors import GenaugError, release_memory
from genaug.core.files import read_rows
from genaug.core.interruption import Interrupted, interruptible, requeue
from genaug.core.machine import take_gpu
from genaug.core.words import with_outputs
from genaug.explanation import message
from genaug.runs.collection import HIDDEN
from genaug.runs.sweep import FAILED, OK, SKIPPED, check_objective, is_optimising, note_cell, objective, shares_machine

failed: list[str] = []
"""The runs of this process's sweep that failed, in words: a callback of Hydra cannot raise, so ``main`` reads them."""


def main() -> None:
    """Entry point of ``train.py``, ``genaug run`` and ``genaug sweep``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as exceptions, and we say them in a paragraph
    for flag in ("-m", "--multirun"):  # Hydra's own reader wants it before the overrides
        if flag in sys.argv[1:]:
            sys.argv.remove(flag)
            sys.argv.insert(1, flag)
    try:
        sys.argv[1:] = with_outputs(sys.argv[1:])
        secret.check_words(sys.argv[1:])
        with interruptible():
            for own in _for_each_experiment(sys.argv[1:]):
                words, choice = with_chosen(own)
                print("".join(f"{line}\n" for line in choice.lines), end="")
                sys.argv[1:] = _for_each_run(words)
                conf = register()
                hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
        if failed:
            raise GenaugError("Runs of the sweep failed:" + "".join(f"\n  {line}" for line in failed))
    except (Interrupted, KeyboardInterrupt) as end:
        name, code, then = "SIGINT", 130, "run the same command again to continue"
        if isinstance(end, Interrupted):
            name, code = str(end), end.exit_code
            then = requeue() if end.requeues else then
        print(f"\ngenaug: interrupted by {name}: {then}", file=sys.stderr)
        sys.exit(code)
    except Exception as error:
        text = message(error)
        if text is None:
            raise
        print(f"genaug: {text}", file=sys.stderr)
        sys.exit(2)


def _for_each_experiment(words: list[str]) -> list[list[str]]:
    """A command line for each experiment whose runs are asked for: a mean over data sets has none of its own."""
    from genaug.tables.spec import is_experiment, members

    for place, word in enumerate(words):
        if word.startswith("experiment=") and is_experiment(item := word.partition("=")[2]):
            return [[*words[:place], f"experiment={name}", *words[place + 1 :]] for name in members(item)]
    return [words]


def _for_each_run(words: list[str]) -> list[str]:
    """Let a value of a component hold for those runs of a sweep whose component has the key.

    Hydra would refuse such a value for the sweep as a whole. Written as a choice of one, it is looked at run by run.
    """
    from genaug.tables.spec import is_experiment, read_experiment

    items = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    sweeps = any(is_experiment(item) and read_experiment(item).get("hydra", {}).get("mode") for item in items)
    if not sweeps and not {"-m", "--multirun"} & set(words):
        return words
    chosen = []
    for word in words:
        key, _, value = word.partition("=")
        of_component = sets_value(word) and "." in key and not key.startswith(HIDDEN)
        # choice takes no null and forgets quotes: such a value is swept over twice, and equal runs are one
        twice = value == "null" or value.startswith(("'", '"'))
        once = f"{key}={value},{value}" if twice else f"{key}=choice({value})"
        chosen.append(once if of_component and _is_single(word) else word)
    return chosen


def _is_single(word: str) -> bool:
    """Whether an override is one value, not a sweep; one that cannot be read is left for Hydra to say so."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return override.value_type is not None and not override.is_sweep_override()


def job(config: DictConfig) -> float | None:
    """One Hydra job: one run. An optimising sweeper is given its validation metric, others nothing that they use."""
    from genaug.runs.cell import Cell

    hydra_config = HydraConfig.get()
    sweep_dir = Path(hydra_config.sweep.dir) if hydra_config.mode == RunMode.MULTIRUN else None
    overrides = tuple(hydra_config.overrides.task)
    optimised = sweep_dir is not None and is_optimising(hydra_config.sweeper)
    cell, state = None, SKIPPED
    try:
        cell = Cell.of(typed(config), overrides)
        if sweep_dir is not None and shares_machine(hydra_config.launcher) and cell.config.trainer.devices == 1:
            take_gpu()
        if optimised:
            check_objective(cell.config)
        result = cell.result()
        if result is not None:
            cell.say_complete(result)
            if os.environ.get("WANDB_SWEEP_ID") and cell.config.tracking.wandb:  # its agent waits for a run of its own
                from genaug.tracking.wandb_sync import sync

                tracking = cell.config.tracking
                sync([result], cell.config.paths.outputs, cell.group, tracking.project, tracking.entity)
        else:
            from genaug.run import run

            state = OK
            with interruptible():  # here too: a launcher's worker does not come by way of main
                result = run(cell)
    except Exception as error:
        state = FAILED
        reason = message(error) or traceback.format_exc()
        print(f"genaug: {reason}", file=sys.stderr)
        if sweep_dir is None:
            sys.exit(2 if message(error) else 1)
        note_cell(sweep_dir, cell and cell.folder, overrides, FAILED, reason)
        if optimised:
            raise  # the sweeper has no value to go on with
        return None  # one bad run must not cost the others
    finally:
        if state == FAILED:
            release_memory()  # nor leave them too little of it
    if sweep_dir is not None:
        note_cell(sweep_dir, cell.folder, overrides, state)
    else:
        from genaug.tables.terminal import show

        show([cell.folder])
    return objective(result) if optimised else None


class SweepSummary(Callback):
    """Prints what became of a sweep's runs and their table when it is over (conf/config.yaml, hydra.callbacks)."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from genaug.tables.terminal import show

        needs = {"folder": str | None, "overrides": list, "state": str}
        rows = read_rows(Path(config.hydra.sweep.dir) / "cells.jsonl", needs)
        show(list(dict.fromkeys(Path(row["folder"]) for row in rows if row["state"] != FAILED)))
        counts = ((state, sum(row["state"] == state for row in rows)) for state in (OK, SKIPPED, FAILED))
        print(
            f"{len(rows)} run{'s' if len(rows) != 1 else ''}: "
            + ", ".join(f"{count} {state}" for state, count in counts if count)
        )
        alike: dict[str, list[dict[str, Any]]] = {}
        for row in (row for row in rows if row["state"] == FAILED):
            alike.setdefault(row.get("reason", ""), []).append(row)
        for reason, group in alike.items():
            log = Path(group[0]["folder"] or "") / "log.txt"
            where = f"log: {log}" if group[0]["folder"] is not None and log.exists() else "refused before it started"
            others = f", and {len(group) - 1} more for the same reason" if len(group) > 1 else ""
            failed.append(f"{' '.join(group[0]['overrides'])} ({where}){others}:\n    {reason}")
