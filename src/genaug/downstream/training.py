"""What all downstream models share around Lightning: a quiet, resumable Trainer, evaluations by step, the record."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from timm.layers import convert_sync_batchnorm
from torch import nn

from genaug.core.checkpoints import Pace, WholeCheckpoints, read_checkpoint, save_checkpoint
from genaug.core.device import best_device
from genaug.core.errors import GenaugError
from genaug.core.interruption import Interrupted, deferred, pending
from genaug.core.progress import Progress
from genaug.downstream.classification.metrics import select_step
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from genaug.tracking.record import Record

RESUME_NAME = "resume.ckpt"  # below checkpoints/
SELECTED_NAME = "selected.pt"  # checkpoints/selected.pt: weights of the best evaluation so far
ROWS_PER_RUN = 50  # training losses that are recorded
REMEDY = "Write a smaller learning rate (downstream.lr), or trainer.precision=32-true if it is lower."


class RecordLogger(Logger):
    """Hands Lightning's metrics to the run's record."""

    def __init__(self, record: "Record"):
        super().__init__()
        self.record = record

    @property
    def name(self) -> str:
        return "record"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is in the run's folder already."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if numbers:
            self.record.log(numbers, step or 0)


class Bar(Callback):
    """While training: steps, steps per second, time left."""

    def __init__(self, title: str):
        self.title = title

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress = Progress(self.title, trainer.max_steps, completed=trainer.global_step)
        self.progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.progress.update(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "progress"):
            self.progress.stop()


class Losses(Callback):
    """Records what ``training_step`` returns every few steps, without the cost of Lightning's own logging at every one, and
    ends a training whose loss is no number.

    Losses are looked at together, every few steps, since each look waits for the GPU.
    """

    def __init__(self):
        self.unread: list[tuple[int, float, torch.Tensor]] = []
        """Step, learning rate and loss since the last look."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RecordLogger):
                logger.record.rewind(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        step = trainer.global_step
        self.unread.append((step, trainer.optimizers[0].param_groups[0]["lr"], outputs["loss"]))
        if step % max(1, trainer.max_steps // ROWS_PER_RUN) == 0 or step == trainer.max_steps:
            self.check()
        if step % max(1, trainer.max_steps // ROWS_PER_RUN) == 0:
            for logger in trainer.loggers:
                logger.log_metrics({f"train/{key}": float(term) for key, term in outputs.items()}, step)

    def check(self) -> None:
        """Raise ``GenaugError`` at the first loss since the last look that is NaN or infinite."""
        unread, self.unread = self.unread, []
        finite = torch.isfinite(torch.stack([loss.detach() for _, _, loss in unread])).tolist()
        for (step, rate, loss), is_finite in zip(unread, finite, strict=True):
            if not is_finite:
                raise GenaugError(
                    f"The training loss is {float(loss):g} at step {step} (learning rate {rate:g}): the training has "
                    f"diverged. {REMEDY}"
                )


class Checkpoints(Callback):
    """Writes the state from which an interrupted run resumes: every so many steps, every minute, and when it is to end."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self.on_sigterm = signal.getsignal(signal.SIGTERM)
        self.seconds_before = 0.0
        """What interrupted attempts have spent on training."""

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds_before + time.perf_counter() - self.started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pace, self.started = Pace(self.every), time.perf_counter()
        # Lightning's handler, which by now stands before ours, would wait for the other devices in the middle of their work
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_sigterm)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        signum = pending() or 0
        last = trainer.global_step == trainer.max_steps  # an interrupted scoring goes on from here
        due = self.pace.due(trainer.global_step) or last or signum > 0
        if trainer.world_size > 1:  # all devices write and end together or none
            both = torch.tensor([int(due), signum], device=trainer.strategy.root_device)
            due, signum = trainer.strategy.reduce(both, reduce_op="max").tolist()  # type: ignore[union-attr]
        if due:
            trainer.save_checkpoint(self.path)
        if signum:
            raise Interrupted(signum)


class Evaluations(Callback):
    """Scores the model every ``every`` steps and at the last one, and keeps the weights of the best evaluation.

    The history is part of the checkpoint from which a run resumes; an evaluation is in it before the checkpoint of the
    same step is written.
    """

    def __init__(
        self,
        every: int | None,
        score: Callable[[pl.Trainer], dict[str, float]],
        network: Callable[[], nn.Module],
        select: str,
        metric: str,
        checkpoints: Path,
    ):
        self.every, self.score, self.network, self.select, self.metric = every, score, network, select, metric
        self.path = checkpoints / SELECTED_NAME
        self.history: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        step = trainer.global_step
        if self.every is None or (step % self.every and step != trainer.max_steps):
            return
        metrics = self.score(trainer)
        self.history.append({"step": step, **metrics})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
        if self.select != "last" and select_step(self.history, self.select, self.metric) == step:
            self.save(self.network().state_dict())

    def save(self, state: dict[str, Any]) -> None:
        """Replace the selected weights; a reader sees the old file or the new one."""
        save_checkpoint(state, self.path)

    def restore(self) -> int:
        """Load the selected weights into the network; returns their step, for ``last`` without touching the weights."""
        if self.select != "last":
            self.network().load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        return select_step(self.history, self.select, self.metric)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]


class TogetherStrategy(DDPStrategy):
    """Lightning's data-parallel training without its launcher, which would start the user's program again: the processes of
    the other devices are there already (``genaug.following``)."""

    def _configure_launcher(self) -> None:
        self._launcher = None


class SharedStatistics(LayerSync):
    """Batch normalisation over the images of all GPUs; timm's way, which keeps the activations inside its layers."""

    def apply(self, model: nn.Module) -> nn.Module:
        return convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return model


def build_trainer(
    config: TrainerConfig, num_steps: int, folder: Path, record: "Record", title: str, callbacks: list[Callback]
) -> pl.Trainer:
    """A Trainer of a fixed number of optimiser steps that writes nothing but checkpoints, below ``folder``.

    With several devices, the process of the first one alone looks at losses and evaluates.
    """
    resume = Checkpoints(folder / "checkpoints" / RESUME_NAME, config.checkpoint_every)
    config.device()  # sets the number of threads
    environment = LightningEnvironment()  # also under SLURM: the leader starts the followers
    leads = environment.local_rank() == 0
    shared = [SharedStatistics()] if config.devices > 1 and best_device(config.accelerator) == "cuda" else []
    return pl.Trainer(
        **config.lightning(),
        strategy=TogetherStrategy() if config.devices > 1 else "auto",
        max_steps=num_steps,
        logger=RecordLogger(record),
        callbacks=[Bar(title), Losses(), *callbacks, resume] if leads else [resume],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # Lightning's own callback: ours writes by time, too
        plugins=[WholeCheckpoints(), environment, *shared],
        use_distributed_sampler=False,  # batches are shared out by StreamBatches
        num_sanity_val_steps=0,
    )


def fit(trainer: pl.Trainer, model: pl.LightningModule, folder: Path, record: "Record") -> None:
    """Train to the last step, from the checkpoint of an interrupted run if there is one that can be read.

    A process that trains for another device ends here: the first one scores the model.

    Raises:
        GenaugError: if the loss or a weight becomes NaN or infinite.
    """
    checkpoint = folder / "checkpoints" / RESUME_NAME
    started = time.perf_counter()
    with deferred():
        trainer.fit(model, ckpt_path=checkpoint if _resumes(trainer, checkpoint, record) else None, weights_only=True)
    if not trainer.is_global_zero:
        raise SystemExit
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise GenaugError(f"After step {trainer.global_step} weights are no numbers, {broken[0]} first. {REMEDY}")
    record.add_seconds(sum(c.seconds_before for c in trainer.callbacks if isinstance(c, Checkpoints)))  # type: ignore[attr-defined]
    record.say(f"trained to step {trainer.global_step} in {time.perf_counter() - started:.1f} s")


def _resumes(trainer: pl.Trainer, checkpoint: Path, record: "Record") -> bool:
    """Whether the checkpoint can be read, and the selected weights of its evaluations."""
    state = read_checkpoint(checkpoint, record.say)
    if state is None:
        return False
    evaluated = bool(state["callbacks"].get(Evaluations.__qualname__, {}).get("history"))
    selects = any(isinstance(callback, Evaluations) and callback.select != "last" for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return not (evaluated and selects) or read_checkpoint(checkpoint.with_name(SELECTED_NAME), record.say) is not None
