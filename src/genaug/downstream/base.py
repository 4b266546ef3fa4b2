"""What every downstream model offers: ``train`` on a stream, select without the test split, score the test split once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError, lacks
from genaug.core.fields import count, seed
from genaug.core.identity import NOT_IDENTITY
from genaug.core.store import Store
from genaug.data.mixing import Mix, Paste, Separate, Stream
from genaug.data.pool import Pool
from genaug.data.sample import NO_TEST, Dataset
from genaug.downstream.trainer import TrainerConfig

MOST_SIDE = 8192
"""Pixels of the longest side that training can be asked for."""
PREDICTION_KEYS = {
    "test/accuracy_macro": ("id", "target", "predicted"),
    "test/map": ("id", "target_boxes", "target_labels", "target_crowd", "boxes", "labels", "scores"),
}
"""What a row of the predictions holds, by metric: tables resample the test images of these two."""

if TYPE_CHECKING:
    from genaug.data.augmentation import Augment
    from genaug.tracking.record import Record


@dataclass(kw_only=True, slots=True)
class TrainingData:
    """What a downstream model is given. It does not know which generator made the pool."""

    dataset: Dataset
    mix: Mix
    pool: Pool | None
    augment: "Augment"
    interpolate: Callable[..., Any] | None = None
    """Batch augmentation learned by an online generator: ``(images [b, 3, h, w] in [0, 1], weights [b, classes], step)``
    to the same pair; None where there is none."""
    store: Store | None = None
    """Where decoded images are shared with other runs; None decodes them for one training alone."""

    def stream(self, seed: int, with_replacement: bool = False) -> Stream:
        """The training stream of ``mix`` over real and synthetic samples."""
        return Stream(self.mix, self.dataset.train, self.pool, seed, with_replacement)


@dataclass(kw_only=True, slots=True)
class Downstream:
    """Base of all downstream models."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in folders and tables."""
    seed: int = seed()
    """Initialisation, data order and augmentation. Follows the trial's seed."""
    image_size: int = count(II("dataset.image_size"), 8, MOST_SIDE)
    """Side in pixels at which images are trained on and scored."""
    batch_size: int = count(32)
    """Images per step, over all devices together."""

    version: ClassVar[int] = 1
    task: ClassVar[str] = "classification"
    metric: ClassVar[str] = "test/accuracy_macro"
    """The metric that tables show unless they name another."""

    def check(self, task: str) -> None:
        """Raise ``GenaugError`` if this model cannot be trained for ``task``; called before any model is loaded."""
        if task != self.task:
            raise GenaugError(f"downstream={self.name} is for {self.task}, but the data set is for {task}.")

    def used_mix(self, mix: Mix) -> Mix:
        """The mix as this model uses it: two runs that differ only in what it ignores are one run."""
        return mix

    def check_training(self, mix: Mix, augment: "Augment", trainer: TrainerConfig, *, online: bool) -> None:
        """Raise ``GenaugError`` for a mix, augmentation or machine that this model cannot use; called before generating.

        Args:
            mix: how real and synthetic images meet.
            augment: classic augmentation.
            trainer: hardware and numerics.
            online: whether the generator augments batches instead.
        """
        augment.check(self.task)
        trainer.check(self.batch_size)
        if isinstance(mix, Separate):
            raise GenaugError(
                f"mix=separate leaves the pool unlabelled, which downstream={self.name} cannot learn from. "
                "Write mix=replace or mix=concat, or choose a model that labels the pool itself, such as downstream=amst."
            )

        if isinstance(mix, Paste) and not augment.pastes:
            raise GenaugError(
                f"mix={mix.name} lends the pool's objects to augment=copy_paste, and augment={augment.name} pastes none. Write "
                "augment=copy_paste with a detector, or mix=replace or mix=concat."
            )

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ``GenaugError`` if ``dataset`` lacks a split that is needed; called before anything is generated."""
        if not dataset.test:
            raise GenaugError(NO_TEST.format(name=dataset.name))

    def forward_passes(self) -> ForwardPasses:
        """Forward passes of one training, for ``genaug plan``; evaluations are not counted."""
        raise lacks(self, "forward_passes")

    def train(self, data: TrainingData, trainer: TrainerConfig, folder: Path, record: "Record") -> dict[str, Any]:
        """Train, select, and score every test image exactly once.

        Args:
            data: samples and the policy that mixes them.
            trainer: hardware and numerics.
            folder: the run's own folder; ``checkpoints/`` below it survives an interruption and is resumed from.
            record: takes metrics while training.

        Returns:
            metrics by name (``test/…``, ``val/…``: numbers, or lists for per-class values), ``protocol`` (how they were
            obtained: selection, steps, ``oracle``) and ``predictions`` (per test image, for bootstraps).
        """
        raise lacks(self, "train")

    def check_outcome(self, outcome: dict[str, Any]) -> None:
        """Raise ``GenaugError`` for what ``train`` of a model of one's own returns that no table could show."""
        metrics = outcome.get("metrics") if isinstance(outcome, dict) else None
        if not isinstance(metrics, dict) or self.metric not in metrics:
            there = ", ".join(metrics) if isinstance(metrics, dict) else "no metrics"
            raise GenaugError(
                f"The training of downstream={self.name} returns {there}, but tables show {self.metric}: return "
                f'{{"metrics": {{"{self.metric}": NUMBER, …}}, …}}, or name another one in metric: ClassVar[str].'
            )
        returns = f"The training of downstream={self.name} returns"
        for name, value in metrics.items():
            if isinstance(value, str):
                raise GenaugError(f"{returns} the text {value!r} for {name}: return a number, e.g. float(value).")
        if not isinstance(outcome.get("protocol", {}), dict):
            raise GenaugError(
                f"{returns} {outcome['protocol']!r} for protocol: return a dictionary, e.g. {{'select': 'last'}}."
            )
        needed = next((keys for name, keys in PREDICTION_KEYS.items() if name in metrics), ("id",))
        rows = outcome.get("predictions") or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= {*needed} for row in rows):
            raise GenaugError(
                f"{returns} predictions that tables cannot read: return a list with a dictionary for each test image, with "
                f"{', '.join(needed)}, or leave predictions out."
            )
