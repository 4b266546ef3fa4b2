"""The sweep: every combination of the parameters, minus the runs that are complete already.

Hydra's basic sweeper with one difference. That one composes each job once before the first starts, to catch mistakes
early; this one also types and checks the configuration then, and answers from the store what is complete, so that a
launcher (local, joblib, SLURM) is given nothing but missing runs.

Hydra finds sweepers in the namespace package ``hydra_plugins`` only.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genaug.core.combinations import basic_sweeper, parameters

if TYPE_CHECKING:
    from genaug.composition import Composer


class CellSweeper(basic_sweeper.BasicSweeper):
    """Chosen in conf/hydra/sweeper/cells.yaml."""

    def _parse_config(self) -> list[str]:
        """The parameters of ``hydra.sweeper.params``; null takes one out that another file has put in."""
        return parameters(self.params)

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        from genaug.composition import composer_of
        from genaug.core.errors import GenaugError
        from genaug.runs.sweep import note_size

        assert self.hydra_context is not None and self.config is not None
        composer = composer_of(self.hydra_context.config_loader, self.config)
        jobs, notes = composer.fitting(super().get_job_batch())
        print("".join(f"{note}\n" for note in notes), end="")
        refused: dict[str, list[Sequence[str]]] = {}
        missing = [overrides for overrides in jobs if not self._answered(overrides, composer, refused)]
        said = [f"{reason} (in {_runs(members)})" for reason, members in refused.items()]
        if sum(map(len, refused.values())) == len(jobs):
            raise GenaugError("\n".join(said))
        note_size(Path(self.config.hydra.sweep.dir), len(jobs))
        print("".join(f"genaug: {line}\n" for line in said), end="", file=sys.stderr)
        return missing

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done in ``get_job_batch`` for every job."""

    def _answered(
        self, overrides: Sequence[str], composer: "Composer", refused: dict[str, list[Sequence[str]]]
    ) -> bool:
        """Whether there is nothing to start: the run is complete, or it is refused and goes to ``refused`` by the reason."""
        from genaug.explanation import explain
        from genaug.runs.cell import Cell
        from genaug.runs.sweep import FAILED, SKIPPED, note_cell

        assert self.config is not None
        task_overrides = tuple(overrides)
        try:
            cell = Cell.of(composer(overrides), task_overrides)
            result = cell.result()
            if result is None:
                cell.config.check()
        except Exception as error:
            reason = explain(error)
            refused.setdefault(reason, []).append(overrides)
            note_cell(Path(self.config.hydra.sweep.dir), None, task_overrides, FAILED, reason)
            return True
        if result is not None:
            cell.say_complete(result)
            note_cell(Path(self.config.hydra.sweep.dir), cell.folder, task_overrides, SKIPPED)
        return result is not None


def _runs(members: Sequence[Sequence[str]]) -> str:
    """The first of some runs by its overrides, and how many there are besides."""
    more = f", and {len(members) - 1} more" if len(members) > 1 else ""
    return f"the run {' '.join(members[0])}{more}"
