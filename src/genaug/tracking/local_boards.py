"""A run's page in trackers that write to a folder of this machine: TensorBoard, MLflow and Trackio.

Each has one page per run, under the run's folder's name. An attempt at a run begins it again: what an interrupted one wrote
goes, and ``rewind`` writes the rows that count.
"""

import contextlib
import io
import logging
import os
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image
from filelock import FileLock

from genaug.core.errors import GenaugError
from genaug.tracking.mirror import Mirror, Tracked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRACKIO_DIR = os.environ.get("TRACKIO_DIR")  # the user's own choice; Trackio reads it once, when it is imported


class LocalBoard(Mirror):
    """What the three have in common."""

    last_step = 0

    @abstractmethod
    def __init__(self, cell: Tracked, project: str):
        """Begin the page of a run."""

    def log(self, metrics: "Mapping[str, float]", step: int) -> None:
        self.last_step = max(self.last_step, step)
        self.send(metrics, step)

    @abstractmethod
    def send(self, metrics: "Mapping[str, float]", step: int) -> None:
        """Numbers at a step, to the tracker."""

    def rewind(self, rows: "Sequence[Mapping[str, float]]") -> None:
        for row in rows:
            self.log(
                {key: value for key, value in row.items() if key != "step" and value is not None}, int(row["step"])
            )


def numbers_and_names(summary: "Mapping[str, Any]") -> tuple[dict[str, float], dict[str, str]]:
    """A summary's numbers, and all else in it as text."""
    numbers = {key: value for key, value in summary.items() if type(value) in (int, float)}
    return numbers, {key: str(value) for key, value in summary.items() if key not in numbers}


class TensorBoard(LocalBoard):
    """Lightning's logger for TensorBoard, in ``outputs/tensorboard``."""

    title: ClassVar[str] = "TensorBoard"

    def __init__(self, cell: Tracked, project: str):
        from pytorch_lightning.loggers import TensorBoardLogger

        folder, name = cell.config.paths.outputs / "tensorboard", cell.folder.name
        shutil.rmtree(folder / name, ignore_errors=True)
        self.logger = TensorBoardLogger(folder, name="", version=name, default_hp_metric=False)

    def send(self, metrics: "Mapping[str, float]", step: int) -> None:
        self.logger.log_metrics(dict(metrics), step)

    def image(self, key: str, path: Path) -> None:
        with PIL.Image.open(path) as picture:
            self.logger.experiment.add_image(key, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def finish(self, summary: "Mapping[str, Any]", exit_code: int) -> None:
        numbers, names = numbers_and_names(summary)
        self.logger.log_hyperparams(names, numbers, self.last_step)  # a step back hides the curve before it
        self.logger.finalize("success" if exit_code == 0 else "failed")


class MLflow(LocalBoard):
    """Lightning's logger for MLflow, in ``outputs/mlflow.db`` and ``outputs/mlflow``, or where ``MLFLOW_TRACKING_URI`` says."""

    title: ClassVar[str] = "MLflow"

    def __init__(self, cell: Tracked, project: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
        from pytorch_lightning.loggers import MLFlowLogger

        outputs = cell.config.paths.outputs
        with FileLock(outputs / "mlflow.lock"):  # the first run makes tables and experiment, for all
            self.logger = MLFlowLogger(
                experiment_name=project,
                run_name=cell.folder.name,
                tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(outputs / 'mlflow.db').resolve()}",
                artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else str((outputs / "mlflow").resolve()),
                tags={**cell.names, "group": cell.group, "fingerprint": cell.fingerprint},
            )
            client, run = self.logger.experiment, self.logger.run_id
        same = f"tags.fingerprint = '{cell.fingerprint}'"
        for earlier in client.search_runs([self.logger.experiment_id], same):
            if earlier.info.run_id != run:
                client.delete_run(earlier.info.run_id)
        self.logger.log_hyperparams(cell.resolved)

    def send(self, metrics: "Mapping[str, float]", step: int) -> None:
        self.logger.log_metrics(dict(metrics), step)

    def image(self, key: str, path: Path) -> None:
        self.logger.experiment.log_artifact(self.logger.run_id, str(path), key.rpartition("/")[0] or None)

    def finish(self, summary: "Mapping[str, Any]", exit_code: int) -> None:
        numbers, names = numbers_and_names(summary)
        self.send(numbers, self.last_step)
        self.logger.log_hyperparams(names)
        self.logger.finalize("success" if exit_code == 0 else "failed")


class Trackio(LocalBoard):
    """Trackio, in ``outputs/trackio``, or where ``TRACKIO_DIR`` or ``TRACKIO_SPACE_ID`` say."""

    title: ClassVar[str] = "Trackio"

    def __init__(self, cell: Tracked, project: str):
        wanted = Path(TRACKIO_DIR or (cell.config.paths.outputs / "trackio").resolve())
        os.environ.setdefault("TRACKIO_DIR", str(wanted))
        with contextlib.redirect_stdout(io.StringIO()):
            import trackio
            import trackio.utils

            if (first := trackio.utils.TRACKIO_DIR) != wanted:
                raise GenaugError(
                    f"Trackio writes to {first} as long as this process lives: start another for {wanted}."
                )
            with contextlib.suppress(ValueError):  # the project's first run
                for earlier in trackio.Api().runs(project):
                    if earlier.name == cell.folder.name:
                        earlier.delete()
            self.run = trackio.init(
                project=project,
                name=cell.folder.name,
                group=cell.group,
                config={**cell.resolved, **{f"name/{kind}": name for kind, name in cell.names.items()}},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def send(self, metrics: "Mapping[str, float]", step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def image(self, key: str, path: Path) -> None:
        import trackio

        self.run.log({key: trackio.Image(str(path))}, step=self.last_step)

    def finish(self, summary: "Mapping[str, Any]", exit_code: int) -> None:
        import trackio

        self.send(numbers_and_names(summary)[0], self.last_step)
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()


BOARDS: tuple[type[LocalBoard], ...] = (TensorBoard, MLflow, Trackio)
"""The key of each in ``tracking`` is its title in small letters."""
