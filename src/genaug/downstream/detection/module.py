"""How the detector learns and is scored: the LightningModule of ``detector.Detector``."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genaug.core.lightning import quiet_lightning
from genaug.core.seeding import derive
from genaug.core.store import Store
from genaug.data.augmentation import CopyPaste
from genaug.data.detections import Detections
from genaug.data.sample import Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.batches import step_loader
from genaug.downstream.detection.batches import BoxedBatches, BoxedImages
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.metrics import EVALUATORS, average_precision, repeated
from genaug.downstream.detection.network import build_network, first_label
from genaug.downstream.learner import LightningLearner, scheduled, seed_device
from genaug.downstream.trainer import TrainerConfig
from genaug.downstream.training import Evaluations, build_trainer, fit
from genaug.drawing.boxes import detection_sheet

if TYPE_CHECKING:
    from genaug.tracking.record import Record

SCORING_BATCH = 16  # images per forward pass when nothing is learned
NUM_SHOWN, SHOWN_SCORE = 16, 0.3  # test images whose boxes are drawn, and the least score of a drawn detection


class LightningDetector(LightningLearner):
    """The sum of the architecture's own losses on the batches of a stream."""

    def __init__(
        self, config: Detector, network: nn.Module, data: TrainingData, images: BoxedImages, trainer: TrainerConfig
    ):
        super().__init__(config, network, data, trainer)
        self.config, self.images = config, images

    def train_dataloader(self) -> Any:
        config = self.config
        batches = BoxedBatches(
            self.data.stream(config.seed, config.sampling == "with_replacement"),
            self.images,
            batch_size=config.batch_size,
            first_label=first_label(config),
            transform=self.data.augment.image_transform(config.image_size),
            mosaic_prob=config.mosaic_prob,
            paste=self.data.augment if isinstance(self.data.augment, CopyPaste) else None,
            rank=self.trainer.global_rank,
            num_ranks=self.trainer.world_size,
        )
        return step_loader(batches, self.trainer.global_step, config.num_steps, self.trainer_config)

    def training_step(self, batch: tuple[list[Tensor], list[dict[str, Tensor]]], batch_idx: int) -> Tensor:
        images, targets = batch
        # what a step draws (dropped anchors) depends on its number alone, so a resumed run goes on as if uninterrupted
        seed_device(self.device, derive(self.config.seed, "batch", self.global_step))
        losses = self.network([image.float() / 255 for image in images], targets)
        return torch.stack(list(losses.values())).sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.config.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)

    def configure_optimizers(self) -> Any:
        config = self.config
        weights: list[Any] = [weight for weight in self.network.parameters() if weight.requires_grad]
        if config.auto is not None and config.auto.backbone_lr_scale != 1:
            backbone = {id(weight) for weight in self.network.backbone.parameters()}  # type: ignore[operator,union-attr]
            rate = config.lr * config.auto.backbone_lr_scale
            weights = [
                {"params": [weight for weight in weights if id(weight) not in backbone]},
                {"params": [weight for weight in weights if id(weight) in backbone], "lr": rate},
            ]
        if config.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                weights, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            fused = self.device.type == "cuda"  # on a CPU it would round differently
            optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        return scheduled(optimizer, config)


@torch.no_grad()
def detect(
    network: nn.Module, samples: Sequence[Sample], images: BoxedImages, label_offset: int, device: torch.device | str
) -> list[Detections]:
    """Detections of each sample, best first, in pixels of the sample."""
    was_training = network.training
    network.eval()
    results: list[Detections] = []
    for first in range(0, len(samples), SCORING_BATCH):
        part = samples[first : first + SCORING_BATCH]
        loaded = [images.pixels(sample) for sample in part]
        inputs = [torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(device).float() / 255 for pixels, _ in loaded]
        for output, (_, scales) in zip(network(inputs), loaded, strict=True):
            results.append(
                Detections(
                    xyxy=(output["boxes"].float().cpu().numpy() / np.tile(scales, 2)).astype(np.float32),
                    labels=(output["labels"] - label_offset).cpu().numpy(),
                    scores=output["scores"].float().cpu().numpy(),
                )
            )
    network.train(was_training)
    return results


def make_model(
    config: Detector, data: TrainingData, images: BoxedImages, trainer_config: TrainerConfig
) -> LightningDetector:
    """An untrained model; its training reads the stream of ``data`` alone, neither validation nor test."""
    torch.manual_seed(derive(config.seed, "init"))
    network = build_network(config, len(data.dataset.class_names))
    return LightningDetector(config, network, data, images, trainer_config)


def train_detector(
    config: Detector, data: TrainingData, trainer_config: TrainerConfig, folder: Path, record: "Record"
) -> dict[str, Any]:
    """Train, select and score; see ``Downstream.train``."""
    with torch.random.fork_rng(devices=[]), quiet_lightning(), tempfile.TemporaryDirectory() as scratch:
        return _train(config, data, trainer_config, folder, record, data.store or Store(Path(scratch)))


def _train(
    config: Detector, data: TrainingData, trainer_config: TrainerConfig, folder: Path, record: "Record", store: Store
) -> dict[str, Any]:
    dataset = data.dataset
    if config.repeat_factor > 0:
        real = repeated(dataset.train, len(dataset.class_names), config.repeat_factor, derive(config.seed, "repeat"))
        record.say(f"repeat-factor sampling: {len(dataset.train)} real images count as {len(real)}")
        data = dataclasses.replace(data, dataset=dataclasses.replace(dataset, train=real))
    images = BoxedImages(
        config.image_size, (*data.stream(config.seed).samples(), *dataset.train, *dataset.val, *dataset.test), store
    )
    model = make_model(config, data, images, trainer_config)
    if dropped := getattr(model.network, "dropped", []):
        record.say(
            f"{len(dropped)} weights of other classes were dropped and learned from random ones: {', '.join(dropped)}"
        )
    splits = {name: samples for name, samples in (("test", dataset.test), ("val", dataset.val)) if samples}
    selection = "test" if config.select == "oracle" else "val"

    scored: dict[str, tuple[int, tuple[dict[str, Any], list[Detections]]]] = {}
    """Split to the step at which it was last scored, and what ``score`` gave: the end of a training is scored once."""

    def score(name: str, step: int, trainer: pl.Trainer) -> tuple[dict[str, Any], list[Detections]]:
        if name in scored and scored[name][0] == step:
            return scored[name][1]
        with trainer.precision_plugin.forward_context():
            found = detect(model.scored, splits[name], images, first_label(config), trainer.strategy.root_device)
        metrics = average_precision(splits[name], found, dataset.class_names, config.evaluator)
        scored[name] = step, ({f"{name}/{key}": value for key, value in metrics.items()}, found)
        return scored[name][1]

    def score_for_selection(trainer: pl.Trainer) -> dict[str, float]:
        return {
            key: value
            for key, value in score(selection, trainer.global_step, trainer)[0].items()
            if isinstance(value, float)
        }

    evaluations = Evaluations(
        every=config.eval_every if selection in splits else None,
        score=score_for_selection,
        network=lambda: model.scored,
        select=config.select,
        metric=f"{selection}/map",
        checkpoints=folder / "checkpoints",
    )
    trainer = build_trainer(trainer_config, config.num_steps, folder, record, config.name, [evaluations])
    fit(trainer, model, folder, record)

    model.to(trainer.strategy.root_device)
    step = evaluations.restore() if config.select != "last" else config.num_steps
    metrics: dict[str, Any] = {}
    found: dict[str, list[Detections]] = {}
    for name in splits:
        numbers, found[name] = score(name, step, trainer)
        metrics |= numbers
    pairs = list(zip(splits["test"], found["test"], strict=True))[:NUM_SHOWN]
    shown = [(sample, detections.at_least(SHOWN_SCORE)) for sample, detections in pairs]
    sheet = folder / "detections.png"
    detection_sheet(shown, dataset.class_names).save(sheet)
    record.image("detections", sheet)
    record.detections("test/boxes", shown, dataset.class_names)
    return {
        "metrics": metrics,
        "protocol": {
            "select": config.select,
            "oracle": config.select == "oracle",
            "selected_step": step,
            "num_steps": config.num_steps,
            "batch_size": config.batch_size,
            "repeat_factor": config.repeat_factor,
            "evaluator": EVALUATORS[config.evaluator],
            "history": evaluations.history,
        },
        "predictions": [
            {"id": sample.id, **_target(sample), **predicted.record()}
            for sample, predicted in zip(splits["test"], found["test"], strict=True)
        ],
    }


def _target(sample: Sample) -> dict[str, Any]:
    boxes = sample.boxes
    if boxes is None:
        return {"target_boxes": [], "target_labels": [], "target_crowd": []}
    return {
        "target_boxes": boxes.xyxy.tolist(),
        "target_labels": boxes.labels.tolist(),
        "target_crowd": boxes.crowd.tolist(),
    }
