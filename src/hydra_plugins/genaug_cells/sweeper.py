"""The sweep: every combination of the parameters, minus the cells that are complete already.

Hydra's basic sweeper with one difference. That one composes each job once before the first starts, to catch mistakes
early; this one also types and checks the configuration then, and answers from the store what is complete, so that a
launcher (local, joblib, SLURM) is given nothing but missing cells.

Hydra finds sweepers in the namespace package ``hydra_plugins`` only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from genaug.core.combinations import BasicSweeper

if TYPE_CHECKING:
    from genaug.composition import Composer


class CellSweeper(BasicSweeper):
    """Chosen in conf/hydra/sweeper/cells.yaml."""

    def _parse_config(self) -> list[str]:
        """The parameters of ``hydra.sweeper.params``; null takes one out that another file has put in."""
        return [f"{key}={value}" for key, value in self.params.items() if value is not None]

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        from genaug.composition import Composer

        composer = Composer(self._compose)
        return [overrides for overrides in super().get_job_batch() if not self._answered(overrides, composer)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done in ``get_job_batch`` for every job."""

    def _answered(self, overrides: Sequence[str], composer: "Composer") -> bool:
        from genaug.app import explain
        from genaug.core.errors import GenaugError
        from genaug.runs.cell import Cell
        from genaug.runs.sweep import SKIPPED, note_cell

        assert self.config is not None
        try:
            task_overrides = tuple(overrides)
            cell = Cell.of(composer(overrides), task_overrides)
            result = cell.result()
            if result is None:
                cell.config.check()
        except Exception as error:
            raise GenaugError(f"{explain(error)} (in the cell {' '.join(overrides)}; nothing was started)") from error
        if result is not None:
            cell.say_complete(result)
            note_cell(Path(self.config.hydra.sweep.dir), cell.folder, task_overrides, SKIPPED)
        return result is not None

    def _compose(self, choices: list[str]) -> DictConfig:
        assert self.hydra_context is not None and self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, choices)
        with open_dict(config):
            del config["hydra"]
        return config
