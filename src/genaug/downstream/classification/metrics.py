"""Accuracies from predictions, and the rule that selects a training step."""

from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

NUM_RESAMPLED = 6400  # 32 x 200 draws: one evaluation of DA-Fusion's and DALDA's code


def resampled_counts(num_images: int, seed: int) -> np.ndarray:
    """How often each image is drawn in ``NUM_RESAMPLED`` draws with replacement: int64 [num_images]."""
    drawn = np.random.default_rng(seed).integers(num_images, size=NUM_RESAMPLED)
    return np.bincount(drawn, minlength=num_images)


def confusion_matrix(
    targets: torch.Tensor, predicted: torch.Tensor, num_classes: int, counts: np.ndarray | None = None
) -> torch.Tensor:
    """int64 [target class, predicted class]; image i is counted ``counts[i]`` times, or once."""
    if counts is not None:
        repeats = torch.from_numpy(counts)
        targets, predicted = targets.repeat_interleave(repeats), predicted.repeat_interleave(repeats)
    return multiclass_confusion_matrix(predicted, targets, num_classes)


def accuracies(confusion: torch.Tensor, empty_class: str) -> dict[str, Any]:
    """Macro, micro and per-class accuracy.

    Args:
        confusion: int64 [target class, predicted class].
        empty_class: a class without any target is left out of the macro mean (``skip``) or counts as 0 (``zero``, as in
            DA-Fusion's code, train_classifier.py:237-241).
    """
    correct, total = confusion.diagonal().double(), confusion.sum(dim=1).double()
    per_class = (correct / total.clamp(min=1)).tolist()
    known = [value for value, count in zip(per_class, total.tolist(), strict=True) if count or empty_class == "zero"]
    return {
        "accuracy_macro": sum(known) / len(known),
        "accuracy_micro": float(correct.sum() / total.sum()),
        "accuracy_per_class": [
            value if count else None for value, count in zip(per_class, total.tolist(), strict=True)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def classification_metrics(
    log_probabilities: torch.Tensor, targets: torch.Tensor, evaluation: str = "full", seed: int = 0
) -> dict[str, Any]:
    """All metrics of one evaluation in which every image was scored once.

    Args:
        log_probabilities: float [n, classes].
        targets: int64 [n].
        evaluation: ``full`` counts each image once; ``resampled`` counts 6,400 draws with replacement, and a class that
            was never drawn as 0.
        seed: of these draws.
    """
    num_classes = log_probabilities.shape[1]
    predicted = log_probabilities.argmax(dim=1)
    counts = resampled_counts(len(targets), seed) if evaluation == "resampled" else None
    confusion = confusion_matrix(targets, predicted, num_classes, counts)
    loss = -log_probabilities.gather(1, targets[:, None]).double().mean()
    metrics = {
        **accuracies(confusion, "zero" if evaluation == "resampled" else "skip"),
        "cross_entropy": float(loss),
    }
    if num_classes > 5 and evaluation == "full":
        in_top5 = (log_probabilities.topk(5, dim=1).indices == targets[:, None]).any(dim=1)
        metrics["accuracy_top5"] = float(in_top5.double().mean())
    return metrics


def select_step(history: list[dict[str, float]], select: str, metric: str) -> int:
    """The step whose weights are kept: the last, or the first of those with the highest ``metric``.

    Args:
        history: one row per evaluation with ``step`` and metrics, in order of the steps.
        select: ``last``, ``best_val`` or ``oracle``; the last two differ in which split the rows come from.
        metric: name of the metric in the rows.
    """
    if select == "last":
        return int(history[-1]["step"])
    return int(max(history, key=lambda row: row[metric])["step"])  # max keeps the first of equals
