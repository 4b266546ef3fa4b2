"""The local record of a run, which is the truth, and its mirrors in trackers."""

import contextlib
import importlib.util
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.core.console import console
from genaug.core.errors import GenaugError, boundary, first_line
from genaug.core.files import read_rows, write_text
from genaug.core.registry import component
from genaug.tracking.local_boards import BOARDS
from genaug.tracking.mirror import Mirror, Tracked
from genaug.tracking.wandb_run import WandbRun, run_tags, start_run, wandb_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from genaug.data.detections import Detections
    from genaug.data.sample import Sample


@component("tracking", "tracking")
@dataclass(kw_only=True, slots=True)
class Tracking:
    """Where a run's metrics go besides its own folder."""

    wandb: bool = True
    """Mirror every run in W&B. Offline unless ``WANDB_MODE`` or a login says otherwise; never asks anything."""
    tensorboard: bool = False
    """Mirror every run in TensorBoard, below ``outputs/tensorboard`` (extra ``tensorboard``)."""
    mlflow: bool = False
    """Mirror every run in MLflow, in ``outputs/mlflow.db`` or where ``MLFLOW_TRACKING_URI`` says (extra ``mlflow``)."""
    trackio: bool = False
    """Mirror every run in Trackio, below ``outputs/trackio`` or where ``TRACKIO_SPACE_ID`` says (extra ``trackio``)."""
    project: str = "genaug"
    """Project of W&B and Trackio, experiment of MLflow."""
    entity: str | None = None
    """W&B user or team; null is the login's default."""
    tags: list[str] = field(default_factory=list)
    """W&B's tags besides data set, generator, mix, downstream and paper."""

    def check(self) -> None:
        """Raise ``GenaugError`` if a tracker is chosen whose extra is not installed."""
        for board in BOARDS:
            key = board.title.lower()
            if getattr(self, key) and importlib.util.find_spec(key) is None:
                raise GenaugError(
                    f"tracking.{key}=true needs {key}, which is not installed. Install it (pip install 'genaug[{key}]'), or "
                    "write tracking=local."
                )


class Record:
    """Takes everything that one run reports while it works."""

    def __init__(self, folder: Path, mirrors: "Sequence[Mirror]" = ()):
        self.folder, self.mirrors = folder, list(mirrors)
        self.seconds: dict[str, float] = {}
        self.running = ""
        """The stage that the run is in."""
        self.resumed: set[str] = set()
        """Rows of the step at which training goes on, some of which it logs again."""
        self.state: Callable[..., None] = lambda **facts: None
        """Takes what ``status.json`` is to say of the run: the stage that it is in, the artefacts that it needs."""

    def say(self, text: str) -> None:
        """A line for the person at the terminal and for ``log.txt``."""
        console.print(text, markup=False)
        self.note(text)

    def note(self, text: str) -> None:
        """A line for ``log.txt`` alone."""
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Numbers at a training step, to ``metrics.jsonl`` (what is not a number as null) and the trackers."""
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        line = json.dumps({"step": step, **finite})
        if line in self.resumed:
            return
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")
        self._mirror(lambda mirror: mirror.log(metrics, step))

    def _mirror(self, send: "Callable[[Mirror], Any]") -> None:
        """Hand something to every tracker. A failure there costs the tracker's page, never the run."""
        for mirror in list(self.mirrors):
            try:
                send(mirror)
            except Exception as error:
                self.mirrors.remove(mirror)
                self.say(
                    f"{mirror.title} failed ({first_line(error)}). The run goes on with its local record{mirror.later}."
                )

    def rewind(self, step: int) -> None:
        """Drop the rows after ``step``, at which an interrupted training goes on: it will log them again."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        rows = [row for row in read_rows(path, {"step": int}) if row["step"] <= step]
        kept = [json.dumps(row) for row in rows]
        self.resumed |= {line for row, line in zip(rows, kept, strict=True) if row["step"] == step}
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._mirror(lambda mirror: mirror.rewind(rows))

    def image(self, key: str, path: Path) -> None:
        """A picture from a file of the run's folder."""
        self._mirror(lambda mirror: mirror.image(key, path))

    def detections(self, key: str, found: "Sequence[tuple[Sample, Detections]]", names: "Sequence[str]") -> None:
        """Images with their labelled boxes and what was found in them, of classes ``names``."""
        self._mirror(lambda mirror: mirror.detections(key, found, names))

    def pool(self, folder: Path, is_new: bool) -> None:
        """The pool that the run trains on, and whether it has made images of it."""
        self._mirror(lambda mirror: mirror.pool(folder, is_new))

    @contextlib.contextmanager
    def stage(self, name: str):
        """Say in which stage the run is, and measure the stage's wall-clock seconds."""
        self.running = name
        self.state(stage=name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(time.perf_counter() - started)

    def add_seconds(self, seconds: float) -> None:
        """Count seconds for the stage that is running, those of interrupted attempts too."""
        self.seconds[self.running] = round(self.seconds.get(self.running, 0.0) + seconds, 3)

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Close the run's pages with its summary; they are finished before the next run starts."""
        self._mirror(lambda mirror: mirror.finish(summary, exit_code))


def open_record(tracking: Tracking, cell: Tracked, attempt: int) -> Record:
    """The record of one attempt at a run.

    Raises:
        GenaugError: if a tracker does not start.
    """
    record = Record(cell.folder)
    try:
        for board in BOARDS:
            key = board.title.lower()
            if getattr(tracking, key):
                with boundary(f"{board.title} did not start", f"Write tracking.{key}=false to go without it."):
                    record.mirrors.append(board(cell, tracking.project))
        if tracking.wandb:
            record.mirrors.append(open_wandb(tracking, cell, attempt, record))
    except GenaugError:
        record.finish({}, exit_code=1)  # the pages in those before it
        raise
    return record


def open_wandb(tracking: Tracking, cell: Tracked, attempt: int, record: Record) -> WandbRun:
    """The page of one attempt in W&B, offline where the server does not answer."""

    from genaug.tracking.wandb_sync import levels

    def start(mode: str, again: bool) -> WandbRun:
        # offline segments of one id overwrite each other when synced, so each attempt has its own
        run = start_run(
            mode=mode,
            project=tracking.project,
            entity=tracking.entity,
            group=cell.group,
            job_type=cell.config.task,
            name=cell.slug,
            id=f"{cell.fingerprint}-{attempt}" if again else cell.fingerprint,
            tags=run_tags(cell.names, cell.config.experiment, tracking.tags),
            config={**cell.resolved, "fingerprint": cell.fingerprint},
            dir=str(cell.config.paths.outputs),
        )
        has_pool = cell.config.pool_size > 0 and cell.config.task != "fit"
        run.summary.update(levels(cell.names, cell.resolved, has_pool))
        return WandbRun(run)

    if wandb_mode() != "online":
        return start(wandb_mode(), again=attempt > 0)
    try:
        return start("online", again=False)
    except GenaugError as error:
        record.say(f"{error} The run is recorded offline.")
        return start("offline", again=True)
