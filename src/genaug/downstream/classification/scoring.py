"""Scoring: every image of a split exactly once, by whatever network."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genaug.data.sample import Sample
from genaug.downstream.classification.batches import Inputs
from genaug.downstream.classification.metrics import classification_metrics
from genaug.downstream.decoded import Decoded

SCORING_BATCH = 128  # images per forward pass when nothing is learned


def apply_in_batches(
    network: nn.Module, function: Callable[[Tensor], Tensor], values: Decoded | np.ndarray, trainer: pl.Trainer
) -> Tensor:
    """``function`` of all rows of ``values`` in order, with ``network`` in evaluation mode: float32 on CPU."""
    was_training, outputs = network.training, []
    network.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for first in range(0, len(values), SCORING_BATCH):
            rows = torch.from_numpy(values[first : first + SCORING_BATCH])
            outputs.append(function(rows.to(trainer.strategy.root_device)).float().cpu())
    network.train(was_training)
    return torch.cat(outputs)


def encode(inputs: Inputs, network: nn.Module, features: Callable[[Tensor], Tensor], trainer: pl.Trainer) -> None:
    """Put the features of the images in their place."""
    network.to(trainer.strategy.root_device)
    inputs.values = apply_in_batches(network, features, inputs.values, trainer).numpy()


class Split:
    """The samples of one split with their decoded images (or features), row by row."""

    def __init__(self, samples: Sequence[Sample], inputs: Inputs):
        if len(inputs.rows) != len(samples):
            raise AssertionError("two samples of one split have the same id")
        self.samples, self.inputs = samples, inputs
        self.targets = torch.tensor([sample.class_index for sample in samples])

    def log_probabilities(self, network: nn.Module, trainer: pl.Trainer) -> Tensor:
        """float32 [n, classes]."""
        return apply_in_batches(network, network, self.inputs.values, trainer).log_softmax(dim=1)

    def metrics(self, prefix: str, scores: Tensor, evaluation: str, seed: int) -> dict[str, Any]:
        """Metrics by name, of ``log_probabilities``; with ``resampled`` also the accuracies of the full split, as
        ``<prefix>_full/…``."""
        metrics = {
            f"{prefix}/{key}": value
            for key, value in classification_metrics(scores, self.targets, evaluation, seed).items()
        }
        if evaluation != "full":
            full = classification_metrics(scores, self.targets)
            metrics |= {f"{prefix}_full/{key}": full[key] for key in ("accuracy_macro", "accuracy_micro")}
        return metrics

    def predictions(self, scores: Tensor) -> list[dict[str, Any]]:
        """One row per image, of ``log_probabilities``: its id, target, predicted class and the probability of the target."""
        probabilities = scores.gather(1, self.targets[:, None])[:, 0].exp()
        rows = zip(
            self.samples, self.targets.tolist(), scores.argmax(dim=1).tolist(), probabilities.tolist(), strict=True
        )
        return [
            {"id": sample.id, "target": target, "predicted": predicted, "probability": probability}
            for sample, target, predicted, probability in rows
        ]
