"""The cells of an experiment, composed as Hydra's sweeper would compose them, and what is known of each."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from genaug.choosing import choose
from genaug.composition import Composer, checked, sets_value, without_hydra
from genaug.config import RunConfig
from genaug.config_source import files_of, register
from genaug.core.combinations import combinations, parameters
from genaug.core.errors import GenaugError
from genaug.core.files import read_rows
from genaug.core.foreign import check_overrides, read_yaml
from genaug.core.identity import Texts
from genaug.core.paths import sweep_command
from genaug.core.registry import COMPONENTS
from genaug.explanation import explain
from genaug.runs.cell import cell_fingerprint
from genaug.runs.collection import HIDDEN, run_folders, state_of
from genaug.tables.spec import members, read_experiment


@dataclass(kw_only=True, slots=True)
class PlannedCell:
    """One combination of a sweep."""

    overrides: tuple[str, ...]
    config: RunConfig | None
    """None where the combination is refused."""
    fingerprint: str | None
    """None where the data set or the prior is not on this machine."""
    state: str
    """``complete``, ``failed``, ``running``, ``interrupted``, ``missing``, ``unknown`` (no data here), ``invalid``."""
    reason: str = ""
    result: dict[str, Any] | None = None
    folder: Path | None = None
    values: dict[str, str] | None = None
    """What a table shows under each of its keys; None takes it from ``config``."""


@dataclass(kw_only=True, slots=True)
class Sweep:
    """All cells of one experiment with these further overrides."""

    item: str
    extra: tuple[str, ...]
    cells: list[PlannedCell]
    outputs: Path
    notes: tuple[str, ...] = ()
    """Settings that were chosen for the images, and keys that only some of the runs have."""
    parts: "tuple[Sweep, ...]" = ()
    """The sweeps of the experiments that this one takes the mean of."""

    @property
    def command(self) -> str:
        return shlex.join([*sweep_command(), f"experiment={self.item}", *self.extra])


def expand(item: str, extra: Sequence[str] | None = None, outputs: Path | None = None) -> Sweep:
    """The cells of ``python train.py -m experiment=<item> <extra>`` with their states.

    Args:
        extra: further overrides; None takes those with which the experiment was last run (none if it never was).
        outputs: folder of results; None takes the configuration's.

    Raises:
        GenaugError: if the experiment does not compose.
    """
    if (names := members(item)) != [item]:
        return together(item, [expand(name, extra, outputs) for name in names])
    conf = register()
    try:
        extra = last_extra(outputs or Path("outputs"), item) if extra is None else checked(extra)
        place = checked([f"paths.outputs_dir={outputs}"]) if outputs is not None else []
        choice = choose(item, [*extra, *place])
        fixed = [*choice.overrides, *extra, *place]
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            words = without_hydra([f"experiment={item}", *_plain(fixed)], "sweeper")
            master = hydra.compose("config", words, return_hydra_config=True)
            params = parameters(master.hydra.sweeper.params)
            jobs = combinations([*params, f"experiment={item}", *(o for o in fixed if not o.startswith("hydra."))])
            cells, notes = _compose(jobs)
            folder = Path(master.paths.outputs_dir).expanduser().absolute()
    except (HydraException, OmegaConfBaseException) as error:
        raise GenaugError(explain(error)) from error
    look_up(cells, folder / "runs")
    return Sweep(item=item, extra=tuple(extra), cells=cells, outputs=folder, notes=(*choice.lines, *notes))


def together(item: str, parts: Sequence[Sweep]) -> Sweep:
    """The sweep of an experiment that takes the mean of others, from theirs."""
    return Sweep(
        item=item,
        extra=tuple(dict.fromkeys(chain.from_iterable(part.extra for part in parts))),
        cells=list(chain.from_iterable(part.cells for part in parts)),
        outputs=parts[0].outputs,
        notes=tuple(dict.fromkeys(chain.from_iterable(part.notes for part in parts))),
        parts=tuple(parts),
    )


def plan_jobs(overrides: Sequence[str]) -> list[PlannedCell]:
    """Every combination of these overrides; an ``experiment=`` among them brings its own.

    Raises:
        GenaugError: if a word cannot be read.
    """
    items = [word.partition("=")[2] for word in checked(overrides) if word.startswith("experiment=")]
    if items:
        return expand(items[-1], [word for word in overrides if not word.startswith("experiment=")]).cells
    conf = register()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            return _compose(combinations(checked(overrides)))[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise GenaugError(explain(error)) from error


def _plain(overrides: Sequence[str]) -> list[str]:
    """Overrides that hold for the sweep as a whole; values of components are their runs' business."""
    parser = OverridesParser.create()
    whole = [text for text in overrides if not (sets_value(text) and text.partition(".")[0] in COMPONENTS)]
    return [text for text in whole if not parser.parse_override(text).is_sweep_override()]


def _compose(jobs: list[list[str]]) -> tuple[list[PlannedCell], list[str]]:
    """The runs of a sweep, and what is to be said of keys that only some of them have."""
    composer = Composer(lambda choices: hydra.compose("config", without_hydra(choices)))
    jobs, notes = composer.fitting(jobs)
    texts, cells = Texts(), []
    for job in jobs:
        cell = PlannedCell(overrides=tuple(job), config=None, fingerprint=None, state="invalid")
        try:
            cell.config = composer(job)
            cell.state = "unknown"
            cell.fingerprint = cell_fingerprint(cell.config, texts)
        except (
            HydraException,
            OmegaConfBaseException,
            GenaugError,
            OSError,
        ) as error:  # OSError: weights that are absent
            cell.reason = explain(error)
        cells.append(cell)
    return cells, notes


def look_up(cells: list[PlannedCell], runs: Path) -> None:
    """Fill in state, folder and result from the folders below ``runs``."""
    folders = run_folders(runs)
    for cell in cells:
        if cell.fingerprint is None:
            continue
        cell.folder = folders.get(cell.fingerprint)
        cell.state = "missing"
        if cell.folder is None or (found := state_of(cell.folder)) is None:
            continue
        cell.state, cell.reason, cell.result = found.state, found.reason, found.result


def _records(outputs: Path, item: str) -> Iterator[list[list[str]]]:
    """Overrides of the jobs of each sweep of an experiment, the last sweep first, from the records below ``sweeps/``."""
    for record in sorted((outputs / "sweeps").glob("*/cells.jsonl"), reverse=True):
        jobs = [row["overrides"] for row in read_rows(record, {"overrides": list})]
        if jobs and f"experiment={item}" in jobs[0]:
            yield jobs


def was_run(outputs: Path, item: str) -> bool:
    """Whether a sweep of this experiment, of each that it takes the mean of, is on record."""
    return all(next(_records(outputs, name), None) is not None for name in members(item))


def last_extra(outputs: Path, item: str) -> tuple[str, ...]:
    """Overrides beside the sweep's own with which the experiment was last run."""
    if (names := members(item)) != [item]:
        return tuple(dict.fromkeys(chain.from_iterable(last_extra(outputs, name) for name in names)))
    content = read_experiment(item)
    jobs = next(_records(outputs, item), [])
    parts = [content]
    for preset in dict.fromkeys(word.partition("=")[2] for job in jobs for word in job if word.startswith("preset=")):
        parts += map(read_yaml, files_of("preset", preset)[:1])
        parts += [content.get(preset) or {}] if preset == "smoke" else []
    own: dict[str, set[str]] = {}
    """The values of each key that the experiment sweeps by itself."""
    for part in parts:
        for word in parameters(part.get("hydra", {}).get("sweeper", {}).get("params")):
            own[word.partition("=")[0]] = {job[0].partition("=")[2] for job in combinations([word])}
    values: dict[str, dict[str, None]] = {}  # in order of appearance
    for overrides in jobs:
        check_overrides(overrides, f"The record of the last sweep of {item}")
        for key, _, value in (override.partition("=") for override in overrides):
            if key != "experiment" and not key.startswith(HIDDEN):
                values.setdefault(key, {})[value] = None
    # of a sweep of its own, all values are meant unless there are others: fewer may be one that was interrupted
    return tuple(
        f"{key}={','.join(found)}" for key, found in values.items() if found.keys() - own.get(key.lstrip("+"), set())
    )
