"""A sweep that Optuna steers: it looks for the values with the best result on the validation split.

One trial is one choice of values at all seeds, and its result their mean: single seeds of few images say little. Nothing is
pruned, as a run's early steps say little of its end. Finished runs are answered from the store, so the same command goes on.

Hydra finds sweepers in the namespace package ``hydra_plugins`` only.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

    from genaug.composition import Composer


class OptunaSweeper(Sweeper):
    """Chosen in conf/hydra/sweeper/optuna.yaml, which says what the arguments are."""

    hydra_context: HydraContext  # set before use, by setup
    config: DictConfig

    def __init__(
        self,
        num_trials: int,
        trials_at_once: int,
        average: Sequence[str],
        sampler_seed: int,
        storage: str | None,
        study_name: str,
        params: Any = None,
    ):
        self.num_trials, self.trials_at_once = num_trials, trials_at_once
        self.average, self.sampler_seed = list(average), sampler_seed
        self.storage, self.study_name, self.params = storage, study_name, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all trials and write what was found to ``optimization_results.yaml`` in the sweep's folder."""
        from genaug.composition import composer_of
        from genaug.core.combinations import combinations, parameters

        assert self.hydra_context is not None and self.config is not None
        composer = composer_of(self.hydra_context.config_loader, self.config)
        refusals: set[str] = set()
        folder = Path(self.config.hydra.sweep.dir)  # its name, the time, is made now: for all of the runs
        words = [*parameters(self.params), *arguments]
        space, rest = self._space(words)
        study = self._study()
        done = len(study.get_trials(deepcopy=False))
        number = 0
        while done < self.num_trials:
            trials = [study.ask(space) for _ in range(min(self.trials_at_once, self.num_trials - done))]
            batches = [combinations([*rest, *(f"{key}={value}" for key, value in t.params.items())]) for t in trials]
            batches = [batch if can_run(batch, composer, refusals) else [] for batch in batches]
            jobs = [job for batch in batches for job in batch]
            returns = iter(self.launcher.launch(jobs, number) if jobs else [])
            for trial, batch in zip(trials, batches, strict=True):
                self._tell(study, trial, [next(returns) for _ in batch])
            number += len(jobs)
            done += len(trials)
        self._report(study, folder)

    def _space(self, words: list[str]) -> tuple["dict[str, BaseDistribution]", list[str]]:
        """What is searched, by key; and the overrides of every trial, the seeds that it averages over among them."""
        from genaug.core.errors import GenaugError

        space, rest = {}, []
        for word, override in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
            key = override.get_key_element()
            if not override.is_sweep_override() or key in self.average:
                rest.append(word)
            elif isinstance(found := distribution(override), str):
                rest.append(f"{key}={found}")
            else:
                space[key] = found
        if not space:
            raise GenaugError(
                "hydra/sweeper=optuna has nothing to look for. Give a key several values or an interval, e.g. "
                "mix.alpha=0.3,0.5,0.7 or 'generator.t0=interval(0.1, 0.9)'; "
                f"{', '.join(self.average)} is averaged over, not looked for."
            )
        return space, rest

    def _study(self) -> "Study":
        from genaug.core.errors import boundary

        with boundary("hydra/sweeper=optuna cannot start", "Install it: pip install 'genaug[optuna]'."):
            import optuna

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            return optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=self.sampler_seed, constant_liar=self.trials_at_once > 1),
                pruner=optuna.pruners.NopPruner(),
                storage=self.storage,
                study_name=self.study_name,
                load_if_exists=True,
            )

    def _tell(self, study: "Study", trial: "Trial", returns: Sequence[Any]) -> None:
        """The mean over a trial's runs; a trial that was refused, or of which one run failed, has none."""
        from hydra.core.utils import JobStatus

        from genaug.core.console import console

        well = bool(returns) and all(done.status == JobStatus.COMPLETED for done in returns)
        value = statistics.fmean(done.return_value for done in returns) if well else None
        study.tell(trial, value, state=None if well else _failed())
        shown = " ".join(f"{key}={value}" for key, value in trial.params.items())
        said = f"{value:.4f} over {len(returns)} runs" if value is not None else "failed"
        console.print(f"trial {trial.number}: {said} with {shown}", markup=False)

    def _report(self, study: "Study", folder: Path) -> None:
        import yaml

        from genaug.core.console import console
        from genaug.core.errors import GenaugError
        from genaug.core.files import write_text

        trials = study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.value is not None]
        if not ended:
            raise GenaugError(f"None of {len(trials)} trials has a result: see the runs' messages above.")
        best = study.best_trial
        path = folder / "optimization_results.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"number": t.number, "value": t.value, "params": t.params} for t in trials]
        found = {"name": "optuna", "best_evaluated_params": best.params, "best_evaluated_result": best.value}
        write_text(path, yaml.safe_dump(json.loads(json.dumps({**found, "trials": rows})), sort_keys=False))
        chosen = " ".join(f"'{key}={value}'" for key, value in best.params.items())
        console.print(
            f"best of {len(ended)} trials on the validation split: {best.value:.4f} with {chosen} ({path})",
            markup=False,
        )


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def can_run(batch: Sequence[Sequence[str]], composer: "Composer", said: set[str]) -> bool:
    """Whether all runs of a trial are valid; what is wrong with one is said unless it is among what was ``said``."""
    from genaug.explanation import explain

    for job in batch:
        try:
            composer(job).check()
        except Exception as error:
            if (reason := explain(error)) not in said:
                print(f"genaug: {reason} (in the run {' '.join(job)})", file=sys.stderr)
            said.add(reason)
            return False
    return True


def distribution(override: Override) -> "BaseDistribution | str":
    """Where Optuna looks for a value: what Hydra's sweep of it says (``a,b``, ``range``, ``interval``, ``tag(log, …)``).

    Returns:
        the value itself where there is but one.

    Raises:
        GenaugError: for ``glob``.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    log = "log" in (getattr(sweep, "tags", None) or ())
    if isinstance(sweep, IntervalSweep):
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log=log)  # type: ignore[arg-type]
    if isinstance(sweep, RangeSweep) and all(isinstance(end, int) for end in (sweep.start, sweep.stop, sweep.step)):
        numbers = list(sweep.range())
        return IntDistribution(min(numbers), max(numbers), step=abs(sweep.step))  # type: ignore[arg-type]
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    return choices[0] if len(choices) == 1 else CategoricalDistribution(choices)
