"""What all trainings share: one whose loss is no number has no result."""

import math

import pytest
import torch
from torch import nn

from genaug.core.errors import GenaugError
from genaug.downstream.base import Downstream
from genaug.downstream.training import Losses, fit


def test_a_training_that_diverges_fails_with_its_step_and_learning_rate(classify):
    """Weights that grow a hundredfold in each step: -99 = 1 - lr weight_decay."""
    with pytest.raises(GenaugError, match=r"training loss is (nan|inf) at step \d+ \(learning rate 100\)"):
        classify(lr=100.0, weight_decay=1.0, num_steps=30, optimizer="sgd", warmup_steps=0, schedule="constant")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_first_loss_that_is_no_number_is_named_although_several_are_looked_at_together(loss):
    losses = Losses()
    losses.unread = [(step, 0.1 * step, torch.tensor(value)) for step, value in ((3, 1.0), (4, loss), (5, math.nan))]
    with pytest.raises(GenaugError, match=rf"is {loss} at step 4 \(learning rate 0\.4\)"):
        losses.check()


def test_a_training_that_ends_with_broken_weights_has_no_result(tmp_path, record):
    """The last update comes after the last loss."""

    class Done:
        global_step, is_global_zero = 7, True

        def fit(self, model, **settings):
            nn.init.constant_(model.bias, math.nan)

    with pytest.raises(GenaugError, match="After step 7 weights are no numbers, bias first"):
        fit(Done(), nn.Linear(2, 2), tmp_path, record)  # type: ignore[arg-type]


def test_a_training_that_returns_nothing_that_tables_show_is_refused():
    model = Downstream(name="own", seed=0, image_size=8)
    model.check_outcome({"metrics": {"test/accuracy_macro": 0.5}})
    for outcome, told in ((0.5, "no metrics"), ({"metrics": {"accuracy": 0.5}}, "accuracy"), ({}, "no metrics")):
        with pytest.raises(
            GenaugError, match=f"downstream=own returns {told}, but tables show test/accuracy_macro: return"
        ):
            model.check_outcome(outcome)


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ({"metrics": {"test/accuracy_macro": "0.5"}}, "the text '0.5' for test/accuracy_macro: return a number"),
        ({"protocol": "last"}, "'last' for protocol: return a dictionary"),
        (
            {"predictions": {"a": 1}},
            "predictions that tables cannot read: return a list with a dictionary for each test image",
        ),
        ({"predictions": [{"target": 0, "predicted": 0}]}, "with id, target, predicted, or leave predictions out"),
    ],
)
def test_a_training_that_returns_what_tables_cannot_read_is_refused_when_it_ends(added, told):
    row = {"id": "a", "target": 0, "predicted": 1}
    outcome = {"metrics": {"test/accuracy_macro": 0.5}, "protocol": {"select": "last"}, "predictions": [row]}
    model = Downstream(name="own", seed=0, image_size=8)
    model.check_outcome(outcome)
    model.check_outcome(outcome | {"metrics": {"test/auc": 0.5, "test/accuracy_macro": 0.5}, "predictions": None})
    with pytest.raises(GenaugError, match=f"downstream=own returns .*{told}"):
        model.check_outcome(outcome | added)
