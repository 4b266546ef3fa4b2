"""Each setting of self-training reaches what it names, and no other: seen in the numbers that a training leaves."""

import dataclasses

import pytest
import torch

from genaug.core.seeding import derive
from genaug.data.mixing import Separate
from genaug.downstream.base import TrainingData
from genaug.downstream.self_training import pseudo_labels
from genaug.downstream.trainer import TrainerConfig
from tests.downstream.self_training.test_self_training import JITTER, Record, batches, self_training
from tests.downstream.self_training.test_self_training import MultiHeadNetwork as Heads

SURE, UNSURE = 0.9999, 0.1  # thresholds that hardly trained heads never reach, and that ten classes always do


@pytest.fixture
def train(digits, pool, tmp_path):
    """``train(**settings)``: the result, the rows by step, and the checkpoint's state."""

    def run(pool=pool, folder="cell", **fields):
        config, record = self_training(**fields), Record()
        data = TrainingData(dataset=digits, mix=Separate(m=2), pool=pool, augment=JITTER)
        (tmp_path / folder).mkdir()
        trainer = TrainerConfig(accelerator="cpu", checkpoint_every=config.num_steps)
        result = config.train(data, trainer, tmp_path / folder, record)
        rows = {}
        for step, row in record.rows:
            rows.setdefault(step, {}).update(row)
        state = torch.load(tmp_path / folder / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"]
        return result, rows, state

    return run


@pytest.mark.parametrize(("tau", "tau_c"), [(SURE, UNSURE), (UNSURE, SURE)])
def test_tau_decides_the_labels_and_tau_c_the_consistency(train, tau, tau_c):
    result, rows, _ = train(tau=tau, tau_c=tau_c, num_weak_heads=1, num_strong_heads=1)
    labelled = [facts["accepted"] for facts in result["protocol"]["rounds"]]
    consistent = [row["train/accepted"] for row in rows.values() if "train/accepted" in row]
    assert (max(labelled) > 0) == (tau == UNSURE)
    assert (max(consistent) > 0) == (tau_c == UNSURE)


def test_lambda_c_weighs_the_loss_on_unlabelled_images(train):
    first = {
        weight: train(folder=str(weight), label="fixmatch", tau_c=UNSURE, lambda_c=weight)[1][1]
        for weight in (0.0, 1.0, 2.5)
    }
    assert first[1.0]["train/unlabelled"] > 0
    assert first[0.0].get("train/unlabelled", 0) == 0
    assert first[2.5]["train/unlabelled"] == pytest.approx(2.5 * first[1.0]["train/unlabelled"], rel=1e-5)
    assert first[2.5]["train/loss"] - first[1.0]["train/loss"] == pytest.approx(
        1.5 * first[1.0]["train/unlabelled"], rel=1e-4
    )


@pytest.mark.parametrize("views", ["shared", "independent"])
def test_weak_heads_learn_from_weak_views_and_strong_heads_from_strong_ones(train, digits, pool, views):
    """L_pre of the first step, written out with one head after the other."""
    fields = {"head_views": views, "num_weak_heads": 1, "num_strong_heads": 2}
    _, rows, _ = train(**fields)
    config = self_training(**fields)
    batch = batches(digits, pool, config, {"auxiliary"})[0]
    kinds = [kind for kind, _ in config.auxiliary_views()]
    assert kinds == (["weak", "strong"] if views == "shared" else ["weak", "strong", "strong"])
    torch.manual_seed(derive(config.seed, "init"))
    network = Heads(config, 10)
    features = network.features(batch["auxiliary"]).detach().split(config.batch_size)  # one set of batch statistics
    views_of = dict(zip(config.auxiliary_views(), features, strict=True))
    seen = [("weak", 0), ("strong", 0), ("strong", 0 if views == "shared" else 1)]

    def loss(places):
        losses = [
            torch.nn.functional.cross_entropy(head(views_of[place]), batch["auxiliary_targets"])
            for head, place in zip(network.auxiliary, places, strict=True)
        ]
        return float(torch.stack(losses).mean())

    logged = rows[1]["train/auxiliary"]
    assert logged == pytest.approx(loss(seen), rel=1e-6)
    swapped = [("strong", 0), ("weak", 0), ("weak", 0)]
    assert logged != pytest.approx(loss(swapped), rel=1e-6)


@pytest.mark.parametrize("accumulate", [False, True])
def test_labels_of_earlier_rounds_are_kept_only_where_they_accumulate(train, pool, monkeypatch, accumulate):
    n, rounds = len(pool.samples), []

    def halves(heads, tau, rule):
        """The first round accepts the first half, the second the others; validation images do not matter."""
        count = heads.shape[1]
        if count == n:
            rounds.append(len(rounds))
        first = torch.arange(count) < count // 2
        return first if len(rounds) < 2 else ~first, torch.zeros(count, dtype=torch.long)

    monkeypatch.setattr(pseudo_labels, "accept", halves)
    _, _, state = train(accumulate=accumulate)
    given = state["given"].sum(dim=1)
    assert rounds == [0, 1]
    assert given[n // 2 :].all()
    assert bool(given[: n // 2].any()) == accumulate


def test_two_files_of_one_content_are_two_unlabelled_images_of_one_row(train, pool):
    twice = dataclasses.replace(pool, samples=(*pool.samples, pool.samples[3]))
    result, _, state = train(pool=twice, tau=UNSURE)
    assert result["protocol"]["num_unlabelled"] == len(pool.samples) + 1
    assert state["given"].shape[0] == len(pool.samples) + 1
    assert torch.equal(state["given"][-1], state["given"][3])
