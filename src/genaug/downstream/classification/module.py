"""How the classifier learns and is scored: the LightningModule of ``classifier.Classifier``."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from genaug.core.device import best_device
from genaug.core.lightning import quiet_lightning
from genaug.core.seeding import derive
from genaug.core.store import Store
from genaug.data.augmentation import NORMALIZATIONS
from genaug.data.sample import Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.backbones import make_backbone, num_features
from genaug.downstream.classification.batches import Inputs, StreamBatches, decode, step_loader
from genaug.downstream.classification.config import Classifier
from genaug.downstream.classification.manifold_mixup import manifold_mixup
from genaug.downstream.classification.scoring import Split, encode
from genaug.downstream.learner import LightningLearner, scheduled, seed_device
from genaug.downstream.trainer import TrainerConfig
from genaug.downstream.training import Evaluations, build_trainer, fit

if TYPE_CHECKING:
    from genaug.tracking.record import Record


class Network(nn.Module):
    """Normalisation, a timm backbone and a linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Classifier, num_classes: int):
        super().__init__()
        self.is_probe = config.mode == "linear_probe"
        self.frozen_statistics = config.bn_mode == "frozen"
        mean, std = NORMALIZATIONS[config.normalize]
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.backbone = make_backbone(config.backbone, config.image_size, config.mode != "scratch", config.weights_path)
        self.backbone.requires_grad_(not self.is_probe)
        self.head = nn.Linear(num_features(self.backbone), num_classes)
        self.train()  # Lightning keeps the modes that it finds

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        if self.frozen_statistics:
            if self.is_probe:
                self.backbone.eval()
            for layer in self.backbone.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images in [0, 1], float [b, 3, h, w], or uint8, to features [b, d]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_probe):
            return self.backbone((to_unit(images) - self.mean) / self.std)

    def new_parameters(self) -> list[nn.Parameter]:
        """What starts from random weights also in a pretrained network."""
        return list(self.head.parameters())

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [b, classes] of images, or of features [b, d] that were computed before."""
        return self.head(inputs if inputs.ndim == 2 else self.features(inputs))


def to_unit(images: Tensor) -> Tensor:
    """uint8 to float in [0, 1]; floats stay."""
    return images if images.is_floating_point() else images.float() / 255


class LightningClassifier(LightningLearner):
    """Soft-label cross-entropy on the batches of a stream."""

    def __init__(
        self, config: Classifier, network: Network, data: TrainingData, inputs: Inputs, trainer_config: TrainerConfig
    ):
        super().__init__(config, network, data, trainer_config)
        self.config, self.network, self.inputs = config, network, inputs
        self.mix = data.augment.batch_transform()
        self.transform = None if inputs.are_features else data.augment.images_transform()
        # a GPU crops and turns a batch faster than all cores; policies go image by image
        self.transforms_on_device = (
            self.transform is not None
            and self.transform.policy is None
            and best_device(trainer_config.accelerator) == "cuda"
        )

    def train_dataloader(self) -> Any:
        config, dataset = self.config, self.data.dataset
        batches = StreamBatches(
            self.data.stream(config.seed, config.sampling == "with_replacement"),
            self.inputs,
            num_classes=len(dataset.class_names),
            batch_size=config.batch_size,
            transform=self.transform,
            rank=self.trainer.global_rank,
            num_ranks=self.trainer.world_size,
            later=self.transforms_on_device,
        )
        return step_loader(batches, self.trainer.global_step, config.num_steps, self.trainer_config)

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        inputs, weights, *seeds = batch
        if seeds:
            assert self.transform is not None
            inputs = self.transform(inputs, seeds[0])
        # mixing and dropout of a step depend on its number alone, so a resumed run goes on as if never interrupted
        seed_device(self.device, derive(self.config.seed, "batch", self.global_step))
        if not self.inputs.are_features:
            inputs = to_unit(inputs)
            if self.data.interpolate is not None:
                inputs, weights = self.data.interpolate(inputs, weights, self.global_step)
            if self.mix is not None:
                inputs, weights = self.mix(inputs, weights)
        augment = self.data.augment
        if self.inputs.are_features or augment.manifold_alpha == 0:
            return self._loss(self.network(inputs), weights)
        seed = derive(self.config.seed, "batch", self.global_step)
        with manifold_mixup(
            self.network.backbone, weights, augment.manifold_alpha, augment.manifold_layers, seed
        ) as mixed_weights:
            return self._loss(self.network(inputs), mixed_weights)

    def _loss(self, logits: Tensor, weights: Tensor) -> Tensor:
        return functional.cross_entropy(logits, weights, label_smoothing=self.config.label_smoothing)

    def protocol(self) -> dict[str, Any]:
        """Further facts for the result, once training is over."""
        return {}

    def configure_optimizers(self) -> Any:
        config = self.config
        if config.layer_decay is not None:
            return scheduled(self._layered(config.layer_decay), config)
        groups: list[dict[str, Any]] = [{"params": self.network.new_parameters(), "lr": config.lr}]
        if config.mode != "linear_probe":
            backbone = list(self.network.backbone.parameters())
            groups.append({"params": backbone, "lr": config.lr * config.backbone_lr_scale})
        optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            # not fused: that one fails where a weight's first gradient comes late, as the main head's in self-training
            optimizer = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
        elif config.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, weight_decay=config.weight_decay, fused=True)
        else:
            optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        return scheduled(optimizer, config)

    def _layered(self, layer_decay: float) -> torch.optim.Optimizer:
        """timm's optimiser of the backbone, whose blocks have rates of their own, and of what is above it at the full rate."""
        config = self.config
        optimizer = create_optimizer_v2(
            Layers(self.network),
            opt="momentum" if config.optimizer == "sgd" else config.optimizer,  # timm's sgd is Nesterov's
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            layer_decay=layer_decay,
        )
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["lr_scale"]  # timm leaves this to its own schedules
        return optimizer


class Layers(nn.Module):
    """The weights of a backbone by their own names, and above them the new ones: what timm's layer decay looks at."""

    def __init__(self, network: Network):
        super().__init__()
        backbone = network.backbone
        self._modules |= backbone._modules
        self._parameters |= backbone._parameters
        self.new_parameters = nn.ParameterList(network.new_parameters())
        self.group_matcher, self.no_weight_decay = backbone.group_matcher, getattr(backbone, "no_weight_decay", set)


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What a model brings that learns in its own way from the same backbone: AMST and its peers."""

    network: Callable[[], Network]
    model: Callable[[Any, Inputs, dict[str, Split]], "LightningClassifier"]
    """From that network, the decoded images of ``samples`` and the splits that are scored."""
    samples: Sequence[Sample]
    """Every sample that training may read."""


def train_classifier(
    config: Classifier,
    data: TrainingData,
    trainer_config: TrainerConfig,
    folder: Path,
    record: "Record",
    learner: Learner | None = None,
) -> dict[str, Any]:
    """Train, select and score; see ``Downstream.train``."""
    with torch.random.fork_rng(devices=[]), quiet_lightning(), tempfile.TemporaryDirectory() as scratch:
        store = data.store or Store(Path(scratch))
        return _train(config, data, trainer_config, folder, record, learner, store)


def _train(
    config: Classifier,
    data: TrainingData,
    trainer_config: TrainerConfig,
    folder: Path,
    record: "Record",
    learner: Learner | None,
    store: Store,
) -> dict[str, Any]:
    dataset = data.dataset
    torch.manual_seed(derive(config.seed, "init"))
    network = learner.network() if learner is not None else Network(config, len(dataset.class_names))

    def decoded(samples: Sequence[Sample]) -> Inputs:
        return decode(samples, config.image_size, config.resize, store)

    inputs = decoded(learner.samples if learner is not None else data.stream(config.seed).samples())
    splits = {
        name: Split(samples, decoded(samples))
        for name, samples in (("test", dataset.test), ("val", dataset.val))
        if samples
    }
    selection = "test" if config.select == "oracle" else "val"

    scored: dict[str, tuple[int, Tensor]] = {}
    """Split to the step at which it was last scored, and its log-probabilities: the end of a training is scored once."""

    def scores(name: str, step: int, trainer: pl.Trainer) -> Tensor:
        if name not in scored or scored[name][0] != step:
            scored[name] = step, splits[name].log_probabilities(model.scored, trainer)
        return scored[name][1]

    def score(name: str, step: int, trainer: pl.Trainer) -> dict[str, Any]:
        seed = derive(config.seed, "resample", step)
        return splits[name].metrics(name, scores(name, step, trainer), config.evaluation, seed)

    def score_for_selection(trainer: pl.Trainer) -> dict[str, float]:
        metrics = score(selection, trainer.global_step, trainer)
        return {key: value for key, value in metrics.items() if isinstance(value, float)}

    evaluations = Evaluations(
        every=config.eval_every if selection in splits else None,
        score=score_for_selection,
        network=lambda: model.scored,
        select=config.select,
        metric=f"{selection}/accuracy_macro",
        checkpoints=folder / "checkpoints",
    )
    trainer = build_trainer(trainer_config, config.num_steps, folder, record, config.name, [evaluations])
    if learner is None and caches_features(config, data):
        network.to(memory_format=trainer_config.memory_format())  # type: ignore[call-overload]
        for read in (inputs, *(split.inputs for split in splits.values())):
            encode(read, network, network.features, trainer)
        record.say(f"the frozen backbone's features of {len(inputs.rows)} training images are computed once")
    if learner is not None:
        model = learner.model(network, inputs, splits)
    else:
        model = LightningClassifier(config, network, data, inputs, trainer_config)
    fit(trainer, model, folder, record)

    model.to(trainer.strategy.root_device)
    step = evaluations.restore() if config.select != "last" else config.num_steps
    metrics: dict[str, Any] = {}
    for name in splits:
        metrics |= score(name, step, trainer)
    return {
        "metrics": metrics,
        "protocol": {
            "select": config.select,
            "oracle": config.select == "oracle",
            "selected_step": step,
            "num_steps": config.num_steps,
            "batch_size": config.batch_size,
            "evaluation": config.evaluation,
            "cached_features": inputs.are_features,
            "history": evaluations.history,
            **model.protocol(),
        },
        "predictions": splits["test"].predictions(scores("test", step, trainer)),
    }


def caches_features(config: Classifier, data: TrainingData) -> bool:
    """Whether each image always has the same features: nothing in front of the linear layer changes during training."""
    is_fixed = config.mode == "linear_probe" and config.bn_mode == "frozen"
    augment = data.augment
    is_augmented = augment.changes_images or augment.mixes or augment.manifold_alpha > 0
    return is_fixed and not is_augmented and data.interpolate is None
