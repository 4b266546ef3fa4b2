"""Accuracies on tables worked out by hand, and the selection rule."""

import numpy as np
import pytest
import torch

from genaug.downstream.classification.metrics import (
    accuracies,
    classification_metrics,
    confusion_matrix,
    resampled_counts,
    select_step,
)

TARGETS = torch.tensor([0, 0, 0, 0, 1, 1])
PREDICTED = torch.tensor([0, 0, 0, 2, 1, 0])  # class 2 has no target
LOG_PROBABILITIES = torch.log_softmax(torch.nn.functional.one_hot(PREDICTED, 3).float() * 4, dim=1)


def test_macro_micro_and_per_class_accuracy():
    metrics = accuracies(confusion_matrix(TARGETS, PREDICTED, 3), empty_class="skip")
    assert metrics["confusion_matrix"] == [[3, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert metrics["accuracy_per_class"] == [0.75, 0.5, None]
    assert metrics["accuracy_macro"] == pytest.approx((0.75 + 0.5) / 2)
    assert metrics["accuracy_micro"] == pytest.approx(4 / 6)


def test_an_undrawn_class_counts_as_zero_only_when_resampled():
    full = classification_metrics(LOG_PROBABILITIES, TARGETS)
    resampled = classification_metrics(LOG_PROBABILITIES, TARGETS, "resampled", seed=1)
    counts = resampled_counts(6, seed=1)
    first = counts[:3].sum() / counts[:4].sum()
    second = counts[4] / counts[4:].sum()
    assert full["accuracy_macro"] == pytest.approx(0.625)
    assert resampled["accuracy_macro"] == pytest.approx((first + second + 0) / 3)
    assert np.sum(resampled["confusion_matrix"]) == 6400
    assert np.sum(full["confusion_matrix"]) == 6


def test_resampling_depends_on_its_seed_alone():
    assert np.array_equal(resampled_counts(50, seed=3), resampled_counts(50, seed=3))
    assert not np.array_equal(resampled_counts(50, seed=3), resampled_counts(50, seed=4))
    assert resampled_counts(50, seed=3).sum() == 6400


def test_cross_entropy_is_that_of_the_target_class():
    metrics = classification_metrics(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
    assert metrics["cross_entropy"] == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


HISTORY = [
    {"step": 200, "val/accuracy_macro": 0.5, "test/accuracy_macro": 0.6},
    {"step": 400, "val/accuracy_macro": 0.7, "test/accuracy_macro": 0.8},
    {"step": 600, "val/accuracy_macro": 0.7, "test/accuracy_macro": 0.9},
    {"step": 800, "val/accuracy_macro": 0.6, "test/accuracy_macro": 0.7},
]


@pytest.mark.parametrize(
    ("select", "metric", "step"),
    [
        ("last", "val/accuracy_macro", 800),
        ("best_val", "val/accuracy_macro", 400),  # the first of equals
        ("oracle", "test/accuracy_macro", 600),
    ],
)
def test_selection_on_a_table_made_by_hand(select: str, metric: str, step: int):
    assert select_step(HISTORY, select, metric) == step


def test_the_top_five_of_more_than_five_classes():
    scores = torch.arange(8).float().log_softmax(dim=0).repeat(4, 1)
    metrics = classification_metrics(scores, torch.tensor([7, 3, 2, 0]))
    assert metrics["accuracy_top5"] == 0.5
    assert "accuracy_top5" not in classification_metrics(scores[:, :5].log_softmax(dim=1), torch.tensor([0, 1, 2, 3]))
