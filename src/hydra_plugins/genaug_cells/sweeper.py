"""The sweep: every combination of the parameters, minus the cells that are complete already.

Hydra's basic sweeper with one difference. That one composes each job once before the first starts, to catch mistakes
early; this one also types and checks the configuration then, and answers from the store what is complete, so that a
launcher (local, joblib, SLURM) is given nothing but missing cells.

Hydra finds sweepers in the namespace package ``hydra_plugins`` only.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError


class CellSweeper(BasicSweeper):
    """Chosen in conf/hydra/sweeper/cells.yaml."""

    def _parse_config(self) -> list[str]:
        """The parameters of ``hydra.sweeper.params``; null takes one out that another file has put in."""
        return [f"{key}={value}" for key, value in self.params.items() if value is not None]

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        assert self.hydra_context is not None
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        return [overrides for overrides in super().get_job_batch() if not self._answered(overrides)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done in ``get_job_batch`` for every job."""

    def _answered(self, overrides: Sequence[str]) -> bool:
        from genaug.app import explain, typed
        from genaug.core.errors import GenaugError
        from genaug.runs.cell import Cell
        from genaug.runs.sweep import note_cell

        assert self.config is not None
        try:
            task_overrides = tuple(overrides)
            cell = Cell.of(typed(self._compose(overrides)), task_overrides)
            result = cell.result()
            if result is None:
                cell.config.check()
        except Exception as error:
            raise GenaugError(f"{explain(error)} (in the cell {' '.join(overrides)}; nothing was started)") from error
        if result is not None:
            cell.say_complete(result)
            note_cell(Path(self.config.hydra.sweep.dir), cell.folder, task_overrides, failed=False)
        return result is not None

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        """A job's configuration: composed once per choice of presets, then given its values.

        Hydra composes in this order too, but anew for each job, which takes most of the time of a sweep that is complete.
        """
        assert self.hydra_context is not None and self.config is not None
        from genaug.runs.sweep import sets_value

        loader = self.hydra_context.config_loader
        values = [o for o in overrides if sets_value(o)]
        choices = tuple(o for o in overrides if o not in values)
        if choices not in self._composed:
            config = loader.load_sweep_config(self.config, list(choices))
            with open_dict(config):
                del config["hydra"]
            self._composed[choices] = config
        config = copy.deepcopy(self._composed[choices])
        for override in OverridesParser.create(config_loader=loader).parse_overrides(values):
            try:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            except (ConfigAttributeError, ConfigKeyError) as error:
                raise ConfigCompositionException(f"Could not override '{override.key_or_group}'") from error
        return config
