"""The downstream classifier: any timm backbone, fine-tuned, from scratch or probed, for a fixed number of steps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.cost import LEARNING, ForwardPasses, forward_gflop
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count
from genaug.core.identity import CONTENT, OPTIONAL
from genaug.core.registry import component
from genaug.data.augmentation import NORMALIZATIONS, RESIZES
from genaug.data.sample import Dataset
from genaug.downstream.base import Downstream, TrainingData
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from genaug.tracking.record import Record


@component("downstream", "classifier")
@dataclass(kw_only=True, slots=True)
class Classifier(Downstream):
    """Trains on class weights (hard, two-hot or soft labels) by cross-entropy; scores every test image once."""

    backbone: str = "test_resnet"
    """Any name of timm (``timm.list_models()``), e.g. ``resnet50.a1_in1k``; after the point, the weights."""
    mode: str = choice("scratch", ("finetune", "scratch", "linear_probe"))
    """``scratch``: random weights. ``finetune``: all of a pretrained network. ``linear_probe``: a linear layer on a
    pretrained network that learns nothing."""
    weights_path: str | None = field(default=None, metadata=CONTENT)
    """Checkpoint of the pretrained backbone (.safetensors or .pth in timm's layout) for machines without a network;
    null downloads timm's."""
    bn_mode: str = choice("train", ("train", "frozen"))
    """``train``: BatchNorm uses the batch's statistics and its running ones follow, also under a linear probe, as in
    DA-Fusion's code. ``frozen``: the pretrained running statistics are used and stay."""
    normalize: str = choice("imagenet", tuple(NORMALIZATIONS))
    """``imagenet`` statistics, or ``half``: mean and standard deviation 0.5."""
    resize: str = choice("squash", RESIZES)
    """To the square training size: ``squash`` ignores the aspect, ``crop`` keeps the central square."""

    optimizer: str = choice("adamw", ("adam", "adamw", "sgd"))
    """``adam``, ``adamw`` or ``sgd``."""
    lr: float = bounded(0.002, 0, 100, above=True)
    """Learning rate of the linear layer, and of the backbone times ``backbone_lr_scale``."""
    backbone_lr_scale: float = bounded(1.0, 0, 1000, above=True)
    """Backbone's share of the learning rate."""
    layer_decay: float | None = bounded(None, 0, 1, above=True, metadata=OPTIONAL)
    """Share of the learning rate that each block of the backbone has of the one above it, in (0, 1], by timm's optimiser
    factory (BEiT, arXiv 2106.08254); biases and norms are then without weight decay. Null is one rate for the backbone."""
    weight_decay: float = bounded(0.05, 0, 100)
    """Of all weights; decoupled in ``adamw``."""
    momentum: float = bounded(0.9, 0, 1, below=True)
    """Of ``sgd``; the others use betas 0.9 and 0.999."""
    num_steps: int = count(400)
    """Optimiser steps, whatever alpha, M and the size of the data set."""
    batch_size: int = count(32, 2)
    """Images per step, over all devices together."""
    schedule: str = choice("cosine", ("cosine", "constant", "steps"))
    """``cosine`` to zero, ``constant``, or times ``lr_drop`` at each of the ``milestones`` (``steps``); after the warm-up."""
    milestones: list[int] = count([])
    """Steps from which the learning rate is lower, for ``steps``."""
    lr_drop: float = bounded(0.1, 0, 1, above=True)
    """Factor of each milestone, in (0, 1]."""
    warmup_steps: int = count(0, 0)
    """Steps of linear warm-up from zero."""
    label_smoothing: float = bounded(0.0, 0, 1, below=True)
    """Weight shared out over all classes, in [0, 1)."""
    ema_decay: float = bounded(0.0, 0, 1, below=True)
    """Decay of the moving average of the weights that is scored instead of them, in [0, 1); 0 is off."""
    ema_warmup: float | None = bounded(None, 0, 1, above=True, metadata=OPTIONAL)
    """Power p of the average's warm-up by timm's ``ModelEmaV3``: the decay after step s is at most 1 - s^-p (2/3 or 3/4 for
    long trainings), so that the first weights are soon forgotten; null has no warm-up."""
    sampling: str = choice("shuffled", ("shuffled", "with_replacement"))
    """``shuffled`` epochs, or uniform draws ``with_replacement``."""

    select: str = choice("last", ("last", "best_val", "oracle"))
    """Which step is scored: ``last``; ``best_val``, by macro accuracy on the validation split; or ``oracle``, by that
    on the test split itself, a protocol of some papers that every table marks."""
    eval_every: int | None = count(None)
    """Steps between evaluations on the split that ``select`` reads (validation for ``last``); null for none."""
    evaluation: str = choice("full", ("full", "resampled"))
    """``full``: each image counts once. ``resampled``: as often as it comes up in 6,400 draws with replacement, and a
    class that never does counts as 0 (DA-Fusion's and DALDA's code)."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (self.schedule == "steps") != bool(self.milestones):
            raise GenaugError(
                f"downstream.schedule={self.schedule} with downstream.milestones={self.milestones}: milestones belong to "
                "schedule=steps, which needs at least one."
            )
        if self.warmup_steps >= self.num_steps:
            raise GenaugError(f"downstream.warmup_steps={self.warmup_steps} must be below num_steps={self.num_steps}.")
        if self.mode == "scratch" and self.weights_path is not None:
            raise GenaugError(
                f"downstream.mode=scratch starts from random weights, but downstream.weights_path={self.weights_path} "
                "names some. Write downstream.mode=finetune or linear_probe, or downstream.weights_path=null."
            )
        if self.mode == "scratch" and self.bn_mode == "frozen":
            raise GenaugError(
                "downstream.bn_mode=frozen keeps pretrained statistics, but downstream.mode=scratch has none. "
                "Write downstream.bn_mode=train, or downstream.mode=finetune or linear_probe."
            )
        if self.mode == "linear_probe" and self.backbone_lr_scale != 1:
            raise GenaugError(
                f"downstream.backbone_lr_scale={self.backbone_lr_scale} means nothing to downstream.mode=linear_probe, "
                "whose backbone learns nothing. Write downstream.backbone_lr_scale=1, or downstream.mode=finetune."
            )
        if self.ema_warmup is not None and not self.ema_decay:
            raise GenaugError(
                f"downstream.ema_warmup={self.ema_warmup} needs a moving average: write e.g. downstream.ema_decay=0.999, or "
                "downstream.ema_warmup=null."
            )
        if self.layer_decay is not None and (self.mode == "linear_probe" or self.backbone_lr_scale != 1):
            raise GenaugError(
                f"downstream.layer_decay={self.layer_decay} gives each block of a backbone that learns its own rate. Write "
                "downstream.mode=finetune and downstream.backbone_lr_scale=1, or downstream.layer_decay=null."
            )
        if self.select != "last" and self.eval_every is None:
            raise GenaugError(
                f"downstream.select={self.select} compares evaluations, but downstream.eval_every=null makes none. "
                "Write e.g. downstream.eval_every=200, or downstream.select=last."
            )

    def check(self, task: str) -> None:
        """Also the backbone's name and the file of its weights."""
        # the zero-argument super() fails in a slotted dataclass on Python 3.11, which replaces the class
        Downstream.check(self, task)
        from genaug.downstream.classification.backbones import check_backbone, check_layers

        check_backbone(self.backbone, pretrained=self.mode != "scratch", weights_path=self.weights_path)
        if self.layer_decay is not None:
            check_layers(self.backbone)

    def check_dataset(self, dataset: Dataset) -> None:
        """Also the split that ``select`` reads."""
        Downstream.check_dataset(self, dataset)
        if self.select == "best_val" and not dataset.val:
            raise GenaugError(
                f"downstream.select=best_val needs validation images, but {dataset.name} has none. Give it a "
                "validation split (dataset.val_fraction or a val folder), or write downstream.select=last. "
                "downstream.select=oracle reads the test split and is marked in every table."
            )

    @property
    def network(self) -> str:
        """The backbone without the name of its weights."""
        return self.backbone.partition(".")[0]

    def images_trained(self) -> int:
        """Images that go through the backbone in one training."""
        return self.num_steps * self.batch_size

    def forward_passes(self) -> ForwardPasses:
        return ForwardPasses(
            network=self.network,
            count=self.images_trained(),
            gflop=forward_gflop(self.network, self.image_size),
            relative_cost=1.0 if self.mode == "linear_probe" else LEARNING,
        )

    def train(self, data: TrainingData, trainer: TrainerConfig, folder: Path, record: "Record") -> dict[str, Any]:
        from genaug.downstream.classification.module import train_classifier

        return train_classifier(self, data, trainer, folder, record)
