"""The local record of a cell, which is the truth, and its mirror in Weights & Biases."""

import contextlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from genaug.core.errors import boundary
from genaug.core.files import read_rows, write_text
from genaug.core.names import safe_name
from genaug.core.registry import component

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from genaug.runs.cell import Cell
    from genaug.tracking.wandb_sync import Box

console = Console(soft_wrap=True, highlight=False)


@component("tracking", "tracking")
@dataclass(kw_only=True, slots=True)
class Tracking:
    """Where a cell's metrics go besides its own folder."""

    wandb: bool = True
    """Mirror every cell as one W&B run. Offline unless ``WANDB_MODE`` or a login says otherwise; never asks anything."""
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
    """Takes everything that one cell reports while it runs."""

    def __init__(self, folder: Path, run: Any = None):
        self.folder, self.run = folder, run
        self.seconds: dict[str, float] = {}
        self.resumed: set[str] = set()
        """Rows of the step at which training goes on, some of which it logs again."""

    def say(self, text: str) -> None:
        """A line for the person at the terminal and for ``log.txt``."""
        console.print(text, markup=False)
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
        if self.run is not None:
            self.run.log({**metrics, "step": step})

    def rewind(self, step: int) -> None:
        """Drop the rows after ``step``, at which an interrupted training goes on: it will log them again."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        rows = [row for row in read_rows(path, {"step": int}) if row["step"] <= step]
        kept = [json.dumps(row) for row in rows]
        self.resumed |= {line for row, line in zip(rows, kept, strict=True) if row["step"] == step}
        write_text(path, "".join(f"{line}\n" for line in kept))

    def image(self, key: str, path: Path) -> None:
        """A picture from a file of the cell's folder."""
        if self.run is not None:
            import wandb

            self.run.log({key: wandb.Image(str(path))})

    def detections(
        self, key: str, images: "Sequence[tuple[Image, Mapping[str, Sequence[Box]]]]", names: "Sequence[str]"
    ) -> None:
        """Pictures with sets of boxes, of classes ``names``, that W&B draws and filters by score."""
        if self.run is not None:
            import wandb

            from genaug.tracking.wandb_sync import boxes_of

            self.run.log({key: [wandb.Image(image, boxes=boxes_of(sets, names)) for image, sets in images]})

    def pool(self, folder: Path) -> None:
        """A pool's manifest as a W&B table: source, variant, level, scores."""
        if self.run is not None:
            from genaug.tracking.wandb_sync import pool_table

            table = pool_table(folder)
            if table is not None:
                self.run.log({"pool": table})

    @contextlib.contextmanager
    def stage(self, name: str):
        """Measure the wall-clock seconds of one stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 3)

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Close the W&B run with its summary; every cell's run is finished before the next starts."""
        if self.run is not None:
            self.run.summary.update(summary)
            self.run.finish(exit_code=exit_code)


def open_record(tracking: Tracking, cell: "Cell", attempt: int) -> Record:
    """The record of one attempt at a cell."""
    if not tracking.wandb:
        return Record(cell.folder)
    # offline segments of one id overwrite each other when synced, so each attempt has its own
    again = attempt > 0 and wandb_mode() != "online"
    cfg = cell.config
    run = start_run(
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
    return Record(cell.folder, run)


def run_tags(names: "Mapping[str, str]", experiment: str | None, others: "Sequence[str]" = ()) -> list[str]:
    """Tags of a W&B run: ``generator:none`` and so on for its components, ``paper:da_fusion``, and the user's own."""
    paper = {"paper": experiment.partition("/")[0]} if experiment else {}
    own = [f"{kind}:{name}" for kind, name in {**names, **paper}.items() if name]
    return sorted({safe_name(tag, "tag") for tag in (*own, *others)})


def start_run(*, name: str, group: str, **settings: Any) -> Any:
    """A W&B run, online or offline as ``wandb_mode`` says, which asks and prints nothing.

    Raises:
        GenaugError: if W&B does not start.
    """
    import wandb

    mode = wandb_mode()
    with boundary("Weights & Biases did not start", "Write tracking=local, WANDB_MODE=offline, or log in."):
        run = wandb.init(
            name=safe_name(name, "wandb"),
            group=safe_name(group, "wandb"),
            resume="allow" if mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
            **settings,
        )
        run.define_metric("*", step_metric="step")
    return run
