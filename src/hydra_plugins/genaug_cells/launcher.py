"""The launcher of a sweep on this machine: small runs side by side, one process and one thread each, others one by one.

Hydra finds launchers in the namespace package ``hydra_plugins`` only.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class CellLauncher(Launcher):
    """Chosen in conf/hydra/launcher/cells.yaml.

    Args:
        processes: runs at the same time; None takes one for each core if all of them are small, else one.
    """

    def __init__(self, processes: int | None = None):
        self.processes = processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from genaug.core.errors import GenaugError
        from genaug.core.machine import cores

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.processes is not None and self.processes < 1:
            raise GenaugError(f"hydra.launcher.processes={self.processes} must be at least 1, or null.")
        configs = [] if self.processes == 1 else [self._compose(overrides) for overrides in job_overrides]
        number = min(self.processes or fitting(configs), len(job_overrides))
        if number <= 1:  # none is left where all are complete
            here = functools.partial(run_one, self.hydra_context, self.config, self.task_function)
            return [here(initial_job_idx + place, words) for place, words in enumerate(job_overrides)]

        from genaug.runs.side_by_side import Died, side_by_side

        job = functools.partial(in_worker, self.hydra_context, self.config, self.task_function, Singleton.get_state())
        jobs = {initial_job_idx + place: job_overrides[place] for place in longest_first(configs)}
        returns: dict[int, JobReturn] = {}
        for job_number, ended in side_by_side(jobs, job, number, max(1, cores() // number)):
            place = job_number - initial_job_idx
            if isinstance(ended, Died):
                error = self._note_death(job_overrides[place], ended)
                ended = error is None, error
            well, value = ended
            returns[place] = JobReturn(
                overrides=list(job_overrides[place]), status=JobStatus.COMPLETED if well else JobStatus.FAILED
            )
            returns[place].return_value = value
        return [returns[place] for place in range(len(job_overrides))]

    def _compose(self, overrides: Sequence[str]) -> Any:
        from genaug.composition import composer_of

        if not hasattr(self, "composer"):
            self.composer = composer_of(self.hydra_context.config_loader, self.config)
        return self.composer(overrides)

    def _note_death(self, overrides: Sequence[str], end: Exception) -> Exception | None:
        """Say that a run's process was killed; what the sweeper gets in place of a value."""
        from genaug.core.console import console
        from genaug.core.errors import GenaugError
        from genaug.runs.cell import Cell
        from genaug.runs.sweep import FAILED, is_optimising, note_cell

        folder = Cell.of(self._compose(overrides), tuple(overrides)).folder
        error = GenaugError(
            f"The process of the run {folder.name} ended with {end}. If the machine ran out of memory, write a smaller "
            "hydra.launcher.processes; the same command goes on from what is made."
        )
        console.print(f"genaug: {error}", markup=False)
        note_cell(Path(self.config.hydra.sweep.dir), folder, overrides, FAILED, str(error))
        return error if is_optimising(self.config.hydra.sweeper) else None


def fitting(configs: Sequence[Any]) -> int:
    """How many of these runs go well with each other: as many as there are cores and room for, if all are small."""
    from genaug.core.machine import cores, room_for

    if cores() == 1 or len(configs) <= 1 or not all(config.is_small for config in configs):
        return 1
    return max(1, min(cores() // max(config.trainer.num_threads or 1 for config in configs), room_for()))


def longest_first(configs: Sequence[Any]) -> list[int]:
    """Places of runs in the order in which they start side by side: those that make images take longest, and a long run that
    starts last leaves the other cores idle."""
    return sorted(range(len(configs)), key=lambda place: not configs[place].synthesises)


def run_one(
    hydra_context: HydraContext, config: DictConfig, task_function: TaskFunction, number: int, overrides: Sequence[str]
) -> JobReturn:
    """One job in this process."""
    sweep_config = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(sweep_config):
        sweep_config.hydra.job.id = sweep_config.hydra.job.num = number
    HydraConfig.instance().set_config(sweep_config)
    done = run_job(
        hydra_context=hydra_context,
        config=sweep_config,
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return done


def in_worker(
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    singletons: dict[Any, Any],
    number: int,
    overrides: Sequence[str],
) -> Any:
    """One job in another process than Hydra's; returns its value, or raises what it raised."""
    setup_globals()
    Singleton.set_state(singletons)
    return run_one(hydra_context, config, task_function, number, overrides).return_value
