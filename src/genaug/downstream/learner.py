"""What the LightningModules of classifier and detector share: a network, its moving average, its learning rate."""

import math
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genaug.downstream.base import TrainingData
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from genaug.downstream.classification.config import Classifier
    from genaug.downstream.detection.config import Detector


class LightningLearner(pl.LightningModule):
    """Base: what is learned from the stream of ``data``, and an exponential moving average of it if one is kept."""

    def __init__(
        self,
        config: "Classifier | Detector",
        network: nn.Module,
        data: TrainingData,
        trainer_config: TrainerConfig,
    ):
        super().__init__()
        self.data, self.trainer_config, self.network = data, trainer_config, network
        self.average: AveragedModel | ModelEmaV3 | None = None
        if config.ema_warmup is not None:
            power = config.ema_warmup
            self.average = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True, warmup_power=power)
        elif config.ema_decay > 0:
            average = get_ema_multi_avg_fn(config.ema_decay)
            self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        if self.average is not None:
            self.average.requires_grad_(False)

    @property
    def scored(self) -> nn.Module:
        """The network whose predictions count: the moving average if there is one."""
        return self.network if self.average is None else self.average.module

    def on_fit_start(self) -> None:
        self.to(memory_format=self.trainer_config.memory_format())  # in place: the optimiser's weights are these

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.averaged(self.trainer.global_step + 1)

    def averaged(self, step: int) -> None:
        """Take the weights after optimiser step number ``step`` = 1, 2, … into the moving average."""
        if isinstance(self.average, ModelEmaV3):
            self.average.update(self.network, step)
        elif self.average is not None:
            self.average.update_parameters(self.network)


def scheduled(optimizer: torch.optim.Optimizer, config: "Classifier | Detector") -> dict[str, Any]:
    """What ``configure_optimizers`` returns: the optimiser with the learning rate's schedule, step by step."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate_factor(config: Any, step: int) -> float:
    """Share of the learning rate at ``step`` = 0 … num_steps - 1; ``steps`` is a schedule of the classifiers alone."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "steps":
        return config.lr_drop ** sum(step >= milestone for milestone in config.milestones)
    progress = (step - config.warmup_steps) / (config.num_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the CPU and ``device``; ``torch.manual_seed`` would also record a stack trace for a CUDA not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
