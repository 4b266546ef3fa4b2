"""The sweep: every combination of the parameters, minus the cells that are complete already.

Hydra's basic sweeper with one difference. It composes each job once before the first starts, to catch mistakes early; this
one also types and checks the configuration then, and answers from the store what is complete, so that a launcher (local,
joblib, SLURM) is given nothing but missing cells. Hydra finds sweepers in the namespace package ``hydra_plugins`` only.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import open_dict


class CellSweeper(BasicSweeper):
    """Chosen in conf/hydra/sweeper/cells.yaml."""

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        return [overrides for overrides in super().get_job_batch() if not self._answered(overrides)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done in ``get_job_batch`` for every job."""

    def _answered(self, overrides: Sequence[str]) -> bool:
        from genaug.app import explain, typed
        from genaug.cell import Cell
        from genaug.errors import GenaugError
        from genaug.sweep import note_cell

        assert self.hydra_context is not None and self.config is not None
        try:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            task_overrides = tuple(config.hydra.overrides.task)
            sweep_dir = Path(config.hydra.sweep.dir)
            with open_dict(config):
                del config["hydra"]
            cell = Cell.of(typed(config), task_overrides)
        except Exception as error:
            raise GenaugError(f"{explain(error)} (in the cell {' '.join(overrides)}; nothing was started)") from error
        result = cell.result()
        if result is not None:
            cell.say_complete(result)
            note_cell(sweep_dir, cell.folder, task_overrides, failed=False)
        return result is not None
