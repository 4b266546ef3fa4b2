"""The local record of a run, which is the truth, and its mirrors in Weights & Biases and TensorBoard."""

import contextlib
import json
import math
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import PIL.Image

from genaug.core.console import console
from genaug.core.errors import GenaugError, boundary, first_line
from genaug.core.files import read_rows, write_text
from genaug.core.names import safe_name
from genaug.core.registry import component

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from genaug.data.detections import Detections
    from genaug.data.sample import Sample

ANSWER_TIME = 20.0  # seconds that W&B's server has to answer before a run goes on offline


@component("tracking", "tracking")
@dataclass(kw_only=True, slots=True)
class Tracking:
    """Where a run's metrics go besides its own folder."""

    wandb: bool = True
    """Mirror every run in W&B. Offline unless ``WANDB_MODE`` or a login says otherwise; never asks anything."""
    tensorboard: bool = False
    """Mirror every run in TensorBoard, below ``outputs/tensorboard`` (extra ``tensorboard``)."""
    project: str = "genaug"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null is the login's default."""
    tags: list[str] = field(default_factory=list)
    """Tags besides data set, generator, mix, downstream and paper."""


def wandb_mode() -> str:
    """``WANDB_MODE`` if set; online with a stored login or ``WANDB_API_KEY``; otherwise offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or _netrc_login() else "offline"


def _netrc_login() -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Record:
    """Takes everything that one run reports while it works."""

    def __init__(self, folder: Path, run: Any = None, board: Any = None):
        self.folder, self.run, self.board = folder, run, board
        self.seconds: dict[str, float] = {}
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
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Numbers at a training step, to ``metrics.jsonl`` (what is not a number as null) and W&B."""
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        line = json.dumps({"step": step, **finite})
        if line in self.resumed:
            return
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")
        self._mirror(lambda run: run.log({**metrics, "step": step}))
        self._to_board(lambda board: board.log_metrics(metrics, step))

    def _to_board(self, send: "Callable[[Any], Any]") -> None:
        """Hand something to TensorBoard. A failure there costs the mirror, never the run."""
        if self.board is None:
            return
        try:
            send(self.board)
        except Exception as error:
            self.board = None
            self.say(f"TensorBoard failed ({first_line(error)}). The run goes on with its local record.")

    def _mirror(self, send: "Callable[[Any], Any]") -> None:
        """Hand something to W&B. A failure there costs the mirror, never the run."""
        if self.run is None:
            return
        try:
            send(self.run)
        except Exception as error:
            self.run = None
            self.say(
                f"Weights & Biases failed ({first_line(error)}). The run goes on with its local record, from which genaug "
                "sync writes the W&B run."
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

        def again(board: Any) -> None:
            for row in rows:
                board.log_metrics(
                    {key: value for key, value in row.items() if key != "step" and value is not None}, row["step"]
                )

        self._to_board(again)

    def image(self, key: str, path: Path) -> None:
        """A picture from a file of the run's folder."""

        def send(run: Any) -> None:
            import wandb

            run.log({key: wandb.Image(str(path))})

        def draw(board: Any) -> None:
            with PIL.Image.open(path) as picture:
                board.experiment.add_image(key, np.asarray(picture.convert("RGB")), dataformats="HWC")

        self._mirror(send)
        self._to_board(draw)

    def detections(self, key: str, found: "Sequence[tuple[Sample, Detections]]", names: "Sequence[str]") -> None:
        """Images with their labelled boxes and what was found in them, of classes ``names``, which W&B filters by score."""

        def send(run: Any) -> None:
            import wandb

            from genaug.tracking.wandb_sync import boxes_of

            sets = [{"ground truth": sample.boxes, "prediction": detections} for sample, detections in found]
            images = [
                wandb.Image(sample.open(), boxes=boxes_of(s, names)) for (sample, _), s in zip(found, sets, strict=True)
            ]
            run.log({key: images})

        self._mirror(send)

    def pool(self, folder: Path) -> None:
        """A pool's manifest as a W&B table: source, variant, level, scores."""

        def send(run: Any) -> None:
            from genaug.tracking.wandb_sync import pool_table

            table = pool_table(folder)
            if table is not None:
                run.log({"pool": table})

        self._mirror(send)

    @contextlib.contextmanager
    def stage(self, name: str):
        """Say in which stage the run is, and measure the stage's wall-clock seconds."""
        self.state(stage=name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 3)

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Close the W&B run with its summary; it is finished before the next starts."""

        def send(run: Any) -> None:
            run.summary.update(summary)
            run.finish(exit_code=exit_code)

        def close(board: Any) -> None:
            numbers = {key: value for key, value in summary.items() if type(value) in (int, float)}
            names = {key: value for key, value in summary.items() if isinstance(value, str)}
            board.log_hyperparams(names, numbers)
            board.finalize("success" if exit_code == 0 else "failed")

        self._mirror(send)
        self._to_board(close)


class Tracked(Protocol):
    """What a record needs to know of its run."""

    config: Any
    fingerprint: str

    @property
    def folder(self) -> Path: ...
    @property
    def slug(self) -> str: ...
    @property
    def names(self) -> dict[str, str]: ...
    @property
    def resolved(self) -> dict[str, Any]: ...


def open_record(tracking: Tracking, cell: "Tracked", attempt: int) -> Record:
    """The record of one attempt at a run."""
    cfg = cell.config
    board = open_board(cfg.paths.outputs / "tensorboard", cell.folder.name) if tracking.tensorboard else None
    if not tracking.wandb:
        return Record(cell.folder, board=board)

    def start(mode: str, again: bool) -> Record:
        # offline segments of one id overwrite each other when synced, so each attempt has its own
        run = start_run(
            mode=mode,
            project=tracking.project,
            entity=tracking.entity,
            group=cfg.experiment or cfg.dataset.name,
            job_type=cfg.task,
            name=cell.slug,
            id=f"{cell.fingerprint}-{attempt}" if again else cell.fingerprint,
            tags=run_tags(cell.names, cfg.experiment, tracking.tags),
            config={**cell.resolved, "fingerprint": cell.fingerprint},
            dir=str(cfg.paths.outputs),
        )
        return Record(cell.folder, run, board)

    if wandb_mode() != "online":
        return start(wandb_mode(), again=attempt > 0)
    try:
        return start("online", again=False)
    except GenaugError as error:
        record = start("offline", again=True)
        record.say(f"{error} The run is recorded offline.")
        return record


def open_board(folder: Path, name: str) -> Any:
    """Lightning's logger for TensorBoard, writing to ``folder/name``; what an interrupted attempt wrote there goes, as
    ``Record.rewind`` writes the rows that count.

    Raises:
        GenaugError: if TensorBoard is not installed.
    """
    with boundary(
        "TensorBoard did not start", "Install it (pip install 'genaug[tensorboard]'), or write tracking=local."
    ):
        from pytorch_lightning.loggers import TensorBoardLogger

        shutil.rmtree(folder / name, ignore_errors=True)
        return TensorBoardLogger(folder, name="", version=name, default_hp_metric=False)


def run_tags(names: "Mapping[str, str]", experiment: str | None, others: "Sequence[str]" = ()) -> list[str]:
    """Tags of a W&B run: ``generator:none`` and so on for its components, ``paper:da_fusion``, and the user's own."""
    paper = {"paper": experiment.partition("/")[0]} if experiment else {}
    own = [f"{kind}:{name}" for kind, name in {**names, **paper}.items() if name]
    return sorted({safe_name(tag, "tag") for tag in (*own, *others)})


def start_run(*, mode: str, name: str, group: str, **settings: Any) -> Any:
    """A W&B run, ``online``, ``offline`` or as else ``WANDB_MODE`` may be, which asks and prints nothing.

    Raises:
        GenaugError: if W&B does not start.
    """
    import wandb

    with boundary("Weights & Biases did not start", "Write tracking=local, WANDB_MODE=offline, or log in."):
        run = wandb.init(
            name=safe_name(name, "wandb"),
            group=safe_name(group, "wandb"),
            resume="allow" if mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True, init_timeout=ANSWER_TIME
            ),
            **settings,
        )
        run.define_metric("*", step_metric="step")
    return run
