"""The downstream detector: torchvision's Faster R-CNN, RetinaNet and FCOS, those of transformers, and a small FCOS that learns
on a laptop."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.cost import LEARNING, ForwardPasses, forward_gflop
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, probability
from genaug.core.identity import CONTENT, NOT_IDENTITY, OPTIONAL
from genaug.core.registry import component
from genaug.data.mixing import Mix
from genaug.data.sample import Dataset, without_objects
from genaug.downstream.base import Downstream, TrainingData
from genaug.downstream.detection.auto import AutoModel
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch

    from genaug.data.augmentation import Augment
    from genaug.data.detections import Detections
    from genaug.tracking.record import Record


ARCHITECTURES = ("tiny", "faster_rcnn", "retinanet", "fcos", "faster_rcnn_v2", "retinanet_v2", "auto")


@component("downstream", "detector")
@dataclass(kw_only=True, slots=True)
class Detector(Downstream):
    """Trains on boxes for a fixed number of steps; scores every test image once by COCO's evaluator.

    Steps are fixed, so real images repeated to the size of a mix are the plain baseline: each real image is seen as often.
    """

    architecture: str = choice("tiny", ARCHITECTURES)
    """``faster_rcnn``, ``retinanet`` or ``fcos`` with a ResNet-50 FPN (torchvision); ``faster_rcnn_v2`` (arXiv 2111.11429) and
    ``retinanet_v2`` (1912.02424): torchvision's stronger ones; ``auto``: transformers' in ``auto.path``; or ``tiny``:
    an FCOS with a backbone of 0.2 million weights for images of about 64 px."""
    weights: str = choice("none", ("none", "backbone", "coco"))
    """``none``: random. ``backbone``: ImageNet's in the ResNet. ``coco``: a detector of COCO with a new class layer; for
    ``auto`` whatever the folder's were trained on."""
    weights_path: str | None = field(default=None, metadata=CONTENT)
    """File of those weights (torchvision's state dict) for machines without a network; null downloads them."""
    trainable_layers: int = count(5, 0, 5)
    """Stages of the ResNet that learn, 0 to 5, counted from the end."""
    backbone: str | None = field(default=None, metadata=OPTIONAL)
    """Any network of timm with features (``convnext_tiny.fb_in22k``) in place of the ResNet-50 of ``faster_rcnn``,
    ``retinanet`` or ``fcos``, below a feature pyramid; null is torchvision's ResNet-50. ``weights_path`` is then in timm's
    layout."""
    auto: AutoModel | None = field(default=None, metadata=OPTIONAL)
    """The model of ``architecture=auto``; null for the others."""

    optimizer: str = choice("adamw", ("adamw", "sgd"))
    """``adamw`` or ``sgd``."""
    lr: float = bounded(0.002, 0, 100, above=True)
    """Peak learning rate."""
    weight_decay: float = bounded(0.05, 0, 100)
    """Of all weights; decoupled in ``adamw``."""
    momentum: float = bounded(0.9, 0, 1, below=True)
    """Of ``sgd``."""
    clip_norm: float = bounded(10.0, 0)
    """Largest norm of the gradient; 0 is no limit."""
    num_steps: int = count(300)
    """Optimiser steps, whatever alpha, M and the size of the data set."""
    batch_size: int = count(16)
    """Images per step, over all devices together."""
    schedule: str = choice("cosine", ("cosine", "constant"))
    """``cosine`` to zero, or ``constant``; after the warm-up."""
    warmup_steps: int = count(20, 0)
    """Steps of linear warm-up from zero."""
    ema_decay: float = bounded(0.0, 0, 1, below=True)
    """Decay of the moving average of the weights that is scored instead of them, in [0, 1); 0 is off."""
    ema_warmup: float | None = bounded(None, 0, 1, above=True, metadata=OPTIONAL)
    """Power p of the average's warm-up by timm's ``ModelEmaV3``: the decay after step s is at most 1 - s^-p (2/3 or 3/4 for
    long trainings), so that the first weights are soon forgotten; null has no warm-up."""
    sampling: str = choice("shuffled", ("shuffled", "with_replacement"))
    """``shuffled`` epochs, or uniform draws ``with_replacement``."""
    repeat_factor: float = probability(0.0)
    """t of repeat-factor sampling (LVIS, arXiv 1908.03195, appendix B.2): an image of a class that is in a share f of the
    images is repeated max(1, sqrt(t / f)) times in the real data; 0 is off. A baseline without synthetic images."""
    mosaic_prob: float = probability(0.0)
    """Probability that a training image is a mosaic of four draws (YOLOv4, arXiv 2004.10934), in [0, 1]."""
    min_score: float = bounded(0.01, 0, 1, below=True)
    """Detections below this score are dropped, in [0, 1)."""
    max_detections: int = count(100)
    """Most detections per image; COCO's evaluator reads 100."""

    select: str = choice("last", ("last", "best_val", "oracle"))
    """Which step is scored: ``last``; ``best_val``, by AP on the validation split; or ``oracle``, by that on the test split,
    which every table marks."""
    eval_every: int | None = count(None)
    """Steps between evaluations on the split that ``select`` reads (validation for ``last``); null for none."""

    evaluator: str = choice("pycocotools", ("pycocotools", "faster"), metadata=NOT_IDENTITY)
    """``pycocotools``, or ``faster``: faster-coco-eval (extra ``coco``), the same numbers in a quarter of the time."""

    version: ClassVar[int] = 1
    task: ClassVar[str] = "detection"
    metric: ClassVar[str] = "test/map"

    def __post_init__(self) -> None:
        if self.warmup_steps >= self.num_steps:
            raise GenaugError(
                f"downstream.warmup_steps={self.warmup_steps} must be below num_steps={self.num_steps}; of the detector that "
                "looks at generated images they are generator.teacher.warmup_steps and generator.teacher.num_steps."
            )
        if (self.architecture == "auto") != (self.auto is not None):
            raise GenaugError(
                f"downstream.architecture={self.architecture} with downstream.auto={self.auto and self.auto.path}: the section "
                "downstream.auto belongs to architecture=auto, and to it alone. Write downstream=detector_auto "
                "downstream.auto.path=FOLDER, or downstream.auto=null."
            )
        if self.architecture == "auto" and (
            self.weights == "backbone" or self.weights_path or self.trainable_layers != 5
        ):
            raise GenaugError(
                "downstream.architecture=auto takes its weights from downstream.auto.path: write downstream.weights=coco for "
                "all of them or none for random ones, downstream.weights_path=null and downstream.trainable_layers=5 "
                "(downstream.auto.freeze_backbone keeps the backbone as it is)."
            )
        if self.backbone is not None:
            if self.architecture not in ("faster_rcnn", "retinanet", "fcos"):
                raise GenaugError(
                    f"downstream.backbone={self.backbone} does not go with downstream.architecture={self.architecture}: write "
                    "downstream.architecture=faster_rcnn, retinanet or fcos, or downstream.backbone=null."
                )
            if self.weights == "coco" or 0 < self.trainable_layers < 5:
                raise GenaugError(
                    f"downstream.backbone={self.backbone} learns as a whole (downstream.trainable_layers=5) or not at all (0), "
                    "and there are no COCO weights for it: write downstream.weights=backbone for timm's own, or none."
                )
        if self.architecture == "tiny" and self.weights != "none":
            raise GenaugError(
                f"downstream.architecture=tiny has no pretrained weights: write downstream.weights=none, not {self.weights}."
            )
        if self.weights == "none" and self.weights_path is not None:
            raise GenaugError(
                f"downstream.weights=none reads no file, but downstream.weights_path={self.weights_path}. "
                "Write downstream.weights=backbone or coco, or downstream.weights_path=null."
            )
        if self.ema_warmup is not None and not self.ema_decay:
            raise GenaugError(
                f"downstream.ema_warmup={self.ema_warmup} needs a moving average: write e.g. downstream.ema_decay=0.999, or "
                "downstream.ema_warmup=null."
            )
        if self.select != "last" and self.eval_every is None:
            raise GenaugError(
                f"downstream.select={self.select} compares evaluations, but downstream.eval_every=null makes none. "
                "Write e.g. downstream.eval_every=100, or downstream.select=last."
            )

    def check(self, task: str) -> None:
        """Also the folder of ``auto``, the name of ``backbone`` and the package of ``evaluator``."""
        Downstream.check(self, task)
        if self.evaluator == "faster" and importlib.util.find_spec("faster_coco_eval") is None:
            raise GenaugError(
                "downstream.evaluator=faster needs faster-coco-eval, which is not installed. Install it (pip install "
                "'genaug[coco]'), or write downstream.evaluator=pycocotools."
            )
        if self.backbone is not None:
            from genaug.downstream.classification.backbones import check_backbone

            pretrained = self.weights != "none"
            check_backbone(self.backbone, pretrained, self.weights_path, scratch="downstream.weights=none")
        if self.auto is not None:
            self.auto.check()

    def check_training(self, mix: Mix, augment: "Augment", trainer: TrainerConfig, *, online: bool) -> None:
        """Also the number of devices."""
        Downstream.check_training(self, mix, augment, trainer, online=online)
        if self.auto is not None and trainer.devices > 1:
            raise GenaugError(
                "downstream.architecture=auto trains on one device: some of its weights have no gradient in some steps, which "
                "torch's data-parallel training does not allow. Write trainer.devices=1."
            )

    def check_dataset(self, dataset: Dataset) -> None:
        """Also that there is something to detect, and the split that ``select`` reads."""
        Downstream.check_dataset(self, dataset)
        if self.select == "best_val" and not dataset.val:
            raise GenaugError(
                f"downstream.select=best_val needs validation images, but {dataset.name} has none. "
                "Write dataset.val_fraction=0.2 or downstream.select=last."
            )
        if faults := without_objects(dataset, "train", "test", *(["val"] if self.select == "best_val" else [])):
            raise GenaugError(faults[0])
        if (
            self.weights != "none" or self.auto is not None
        ):  # weights that cannot be had are said before anything is generated
            from genaug.downstream.detection.network import build_network

            build_network(self, len(dataset.class_names))

    @property
    def network(self) -> str:
        if self.auto is not None:
            return self.auto.name
        if self.backbone is not None:
            return f"{self.architecture} on {self.backbone.partition('.')[0]}"
        return "detector_tiny" if self.architecture == "tiny" else self.architecture

    def learn(self, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
        """Train as an auditor (``generators.base.Auditor``) on the training images alone."""
        from genaug.downstream.detection.audit import train_auditor

        return train_auditor(self, dataset, folder, device)

    def eye(
        self, num_classes: int, folder: Path, device: "torch.device | str"
    ) -> "Callable[[str, np.ndarray], Detections]":
        """What ``learn`` wrote, as a function from an image to its detections."""
        from genaug.downstream.detection.audit import trained_eye

        return trained_eye(self, num_classes, folder, device)

    def forward_passes(self) -> ForwardPasses:
        side = self.image_size if self.auto is None else self.auto.input_size or self.image_size
        gflop = forward_gflop(self.network, side)
        return ForwardPasses(
            network=self.network, count=self.num_steps * self.batch_size, gflop=gflop, relative_cost=LEARNING
        )

    def train(self, data: TrainingData, trainer: TrainerConfig, folder: Path, record: "Record") -> dict[str, Any]:
        from genaug.downstream.detection.module import train_detector

        return train_detector(self, data, trainer, folder, record)
