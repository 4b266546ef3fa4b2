"""The functions of the public API, each what its command does: see ``genaug/__init__.py``."""

import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.choosing import with_chosen
from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.core.errors import GenaugError, release_memory
from genaug.explanation import message

if TYPE_CHECKING:
    import pandas as pd

    from genaug.data.pool import Pool
    from genaug.data.sample import Dataset


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The typed, checked configuration that these overrides give, e.g. ``compose(["generator=da_fusion", "seed=1"])``.

    Raises:
        GenaugError: for an unknown key, a value out of bounds or a combination that cannot work.
    """
    config = compose_typed(with_chosen(overrides)[0])
    config.check()
    return config


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run one configuration, or read its result if it is complete: what ``genaug run`` does.

    Returns:
        the content of ``result.json``: ``metrics``, ``counts``, ``seconds``, ``names``, ``config``, ``pool`` …

    Raises:
        GenaugError: for what cannot be run, an ``experiment=`` of which these overrides leave several runs among it.
    """
    from genaug.run import run as run_cell
    from genaug.runs.cell import Cell
    from genaug.tables.sweep import plan_jobs

    words, _ = with_chosen(overrides)
    item = next((word for word in words if word.startswith("experiment=")), None)
    if item is not None:
        jobs = plan_jobs(overrides)
        if len(jobs) > 1:
            raise GenaugError(
                f"{item} is a sweep, of which {len(jobs)} runs are asked for: call genaug.sweep, or name one, e.g. with "
                f"{' '.join(word for word in jobs[0].overrides if not word.startswith('experiment='))}."
            )
        words = list(jobs[0].overrides)
    cell = Cell.of(compose_typed(words), tuple(words))
    known = cell.result()
    return known if known is not None else run_cell(cell)


def sweep(overrides: Sequence[str]) -> "pd.DataFrame":
    """Run every combination in this process, as ``genaug sweep`` does: ``["generator=none,da_fusion", "seed=range(0,8)"]``.

    An ``experiment=`` brings its own combinations. A run that fails is printed and the others go on. The sweep is on record as
    one of the command line is: ``results(last=True)`` and ``genaug verdict --last`` read it.

    Returns:
        the finished runs, as ``results`` gives them.

    Raises:
        GenaugError: if none finished.
    """
    from genaug.run import run as run_cell
    from genaug.runs.cell import Cell
    from genaug.runs.sweep import FAILED, OK, SKIPPED, note_cell, note_size
    from genaug.tables.sweep import plan_jobs

    found, runs, jobs = [], [], plan_jobs(overrides)
    for planned in jobs:
        if planned.config is None:
            print(f"genaug: {planned.reason} ({' '.join(planned.overrides)})", file=sys.stderr)
        else:
            runs.append((planned.config, planned.overrides))
    if runs:
        record = runs[0][0].paths.outputs / "sweeps" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        note_size(record, len(jobs))
    for config, words in runs:
        cell, state, reason = None, SKIPPED, ""
        try:
            cell = Cell.of(config, words)
            known = cell.result()
            if known is None:
                known, state = run_cell(cell), OK
            found.append(known)
        except Exception as error:
            state, reason = FAILED, message(error) or traceback.format_exc()
            print(f"genaug: {reason}", file=sys.stderr)
        if state == FAILED:
            release_memory()  # which the next run may need
        note_cell(record, cell and cell.folder, words, state, reason)
    if not found:
        raise GenaugError("No run of this sweep finished; why is said above.")
    return _frame(found)


def results(*conditions: str, outputs: str | Path = "outputs", last: bool = False) -> "pd.DataFrame":
    """Finished runs, one row each: names of the components, seed, metrics, counts, seconds, and every key of the configuration.

    Args:
        conditions: as for ``genaug compare``, e.g. ``"generator=none,da_fusion"``, ``"mix.alpha>0.3"``.
        outputs: the outputs folder.
        last: only runs of the last sweep.

    Raises:
        GenaugError: if there is none.
    """
    from genaug.tables.selection import select

    if not all(isinstance(condition, str) for condition in conditions):
        raise GenaugError('Conditions are strings, one after the other: results("generator=none", "seed=0").')
    return _frame(select(Path(outputs), conditions, last))


def _frame(found: Sequence[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for result in found:
        numbers = {key: value for key, value in result["metrics"].items() if isinstance(value, int | float)}
        config = pd.json_normalize(result["config"]).iloc[0].to_dict()
        rows.append({
            **result["names"], "seed": result["seed"], **numbers, **result["counts"],
            "seconds": sum(result["seconds"].values()), "pool": result["pool"], "run": result["cell"], **config,
        })  # fmt: skip
    return pd.DataFrame(rows)


def load_pool(pool: str, outputs: str | Path = "outputs") -> "tuple[Dataset, Pool]":
    """The real data and the accepted generated images of a finished run, for ``MixedDataset``.

    Args:
        pool: the first digits of a pool's fingerprint, or a part of a run's folder name.
        outputs: the outputs folder.

    Raises:
        GenaugError: if no finished run has such a pool, or several have.
    """
    from genaug.runs.pools import find_pool

    if not isinstance(pool, str):
        raise GenaugError(
            f"load_pool takes the first digits of a pool or a part of a run's folder name, not {str(pool)[:60]}: e.g. "
            'result["pool"], which is None for a run without generated images.'
        )
    found, dataset = find_pool(Path(outputs), pool)
    return dataset, found
