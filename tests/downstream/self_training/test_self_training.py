"""AMST and its peers at tiny size: phases, what may reach the weights, resumption, reports, and what is refused."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.augmentation import Augment
from genaug.data.mixing import RealOnly, Separate, Stream
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.batches import class_weights, decode
from genaug.downstream.self_training.batches import Labelled, SelfTrainingBatches
from genaug.downstream.self_training.config import LABELS, SelfTraining
from genaug.downstream.self_training.module import MultiHeadNetwork
from genaug.downstream.trainer import TrainerConfig
from genaug.runs.cell import Cell
from tests.downstream.conftest import ListRecord

CONF = Path(__file__).parents[3] / "conf" / "downstream"
PRESETS = (
    "amst", "amst_scratch", "amst_tiny", "amst_figure", "real_images", "seed_label", "soft_label", "fixmatch", "flexmatch",
    "debiasmatch", "dst", "multi_head_co_training",
)  # fmt: skip
JITTER = Augment(shift=0.1, rotation=10.0)


class Killed(Exception):
    pass


class Record(ListRecord):
    """Fails at one step if told to."""

    def __init__(self, killed_at=None):
        super().__init__()
        self.killed_at = killed_at

    def log(self, metrics, step):
        if self.killed_at is not None and step == self.killed_at and any(key.startswith("train/") for key in metrics):
            raise Killed
        super().log(metrics, step)


def self_training(**fields):
    defaults = {
        "name": "self_training", "seed": 0, "image_size": 32, "backbone": "test_resnet", "num_steps": 8, "batch_size": 8,
        "num_rounds": 2, "tau": 0.15, "tau_c": 0.15, "dst_width": 16, "lr": 0.003,
    }  # fmt: skip
    return SelfTraining(**(defaults | fields))


@pytest.fixture
def train(digits, pool, tmp_path):
    def run(config=None, folder="cell", dataset=digits, pool=pool, record=None, checkpoint_every=1000, mix=None):
        data = TrainingData(dataset=dataset, mix=mix or Separate(m=2), pool=pool, augment=JITTER)
        trainer = TrainerConfig(accelerator="cpu", checkpoint_every=checkpoint_every)
        (tmp_path / folder).mkdir(exist_ok=True)
        return (config or self_training()).train(data, trainer, tmp_path / folder, record or Record())

    return run


def test_the_phases_share_out_the_steps():
    config = self_training(num_steps=103, pretrain_fraction=0.25, num_rounds=3)
    assert (config.pretrain_steps, config.round_starts()) == (26, [26, 51, 77])
    assert self_training(label="fixmatch", num_steps=103).round_starts() == [0]


@pytest.mark.parametrize("label", ["pseudo", "none"])
def test_nothing_accepted_and_no_unlabelled_loss_is_plain_training_bit_for_bit(train, classify, tmp_path, label):
    nothing = {"lambda_c": 0.0, "lambda_aux": 0.0, "pretrain_fraction": 0.0, "tau": 0.999999}
    mine = train(self_training(label=label, **nothing))
    shared = {"backbone": "test_resnet", "num_steps": 8, "lr": 0.003, "augment": JITTER}
    plain = classify(RealOnly(), folder=tmp_path / "plain", **shared)
    assert mine["predictions"] == plain["predictions"]
    assert mine["metrics"] == plain["metrics"]
    assert all(row["accepted"] == 0 for row in mine["protocol"]["rounds"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_takes_a_main_head_that_learns_only_after_pretraining(train, optimizer):
    assert train(self_training(optimizer=optimizer, pretrain_fraction=0.25))["protocol"]["num_steps"] == 8


@pytest.mark.parametrize(
    "label", ["pseudo", "soft", "fixmatch", "flexmatch", "debiasmatch", "dst", "multi_head_co_training"]
)
def test_the_labels_of_the_sources_never_reach_the_weights(train, pool, label):
    def hidden(sample, i):
        return dataclasses.replace(sample, label={i % 10: 1.0})

    moved = dataclasses.replace(pool, samples=tuple(hidden(s, i) for i, s in enumerate(pool.samples)))
    expected = train(self_training(label=label), "true")
    assert train(self_training(label=label), "moved", pool=moved)["predictions"] == expected["predictions"]


def test_the_labels_of_the_sources_do_teach_where_they_are_asked_for(train, pool):
    moved = dataclasses.replace(
        pool, samples=tuple(dataclasses.replace(s, label={i % 10: 1.0}) for i, s in enumerate(pool.samples))
    )
    config = self_training(label="seed")
    assert train(config, "true")["predictions"] != train(config, "moved", pool=moved)["predictions"]


@pytest.fixture(scope="module")
def uninterrupted():
    """Result and weights by label of runs that are never killed, kept by the first test that makes them."""
    return {}


@pytest.mark.parametrize(("label", "killed_at"), [("pseudo", k) for k in range(1, 8)] + [("soft", 4), ("flexmatch", 4)])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(train, tmp_path, uninterrupted, label, killed_at):
    """Pretraining is steps 0 and 1, the rounds begin at 2 and 5; a checkpoint is written at every second step."""
    config = self_training(label=label, num_steps=9, pretrain_fraction=0.2, ema_decay=0.5, accumulate=True)

    def weights(folder):
        return torch.load(tmp_path / folder / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"]

    if label not in uninterrupted:
        uninterrupted[label] = train(config, "whole", checkpoint_every=2), weights("whole")
    result, expected = uninterrupted[label]
    with pytest.raises(Killed):
        train(config, "killed", record=Record(killed_at), checkpoint_every=2)
    assert train(config, "killed", checkpoint_every=2) == result
    resumed = weights("killed")
    assert resumed.keys() == expected.keys() and all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_loss_terms_are_logged_one_by_one_in_their_phases(train):
    record = Record()
    train(self_training(lambda_div=0.1, lambda_strong=0.1), record=record)
    by_step = {}
    for step, row in record.rows:
        by_step.setdefault(step, {}).update(row)
    terms = lambda step: {key for key in by_step[step] if key.startswith("train/")}
    assert terms(1) == {"train/auxiliary", "train/divergence", "train/loss"}
    everything = {"train/supervised", "train/unlabelled", "train/accepted"} | terms(1)
    assert terms(8) == everything
    parts = [by_step[8][f"train/{key}"] for key in ("supervised", "unlabelled", "auxiliary", "divergence")]
    assert sum(parts) == pytest.approx(by_step[8]["train/loss"], rel=1e-5)
    assert any("labels/accepted" in row for _, row in record.rows)


@pytest.mark.parametrize("label", LABELS)
def test_every_source_of_labels_trains_any_backbone(train, label):
    result = train(
        self_training(
            label=label, backbone="test_efficientnet", num_steps=4, head_views="independent", head_data="bootstrap"
        )
    )
    assert 0 <= result["metrics"]["test/accuracy_macro"] <= 1
    assert result["protocol"]["label"] == label
    assert len(result["protocol"]["rounds"]) == (2 if label in ("pseudo", "soft") else 0)


def test_the_main_head_alone_decides_unless_heads_vote():
    images = torch.rand(4, 3, 32, 32)
    for label, alone in (("pseudo", True), ("multi_head_co_training", False)):
        network = MultiHeadNetwork(self_training(label=label), 10).eval()
        before = network(images)
        with torch.no_grad():
            network.auxiliary[0].bias += torch.arange(10.0)
        assert torch.equal(network(images), before) == alone


def test_every_auxiliary_head_starts_from_its_own_seed():
    first, again = (MultiHeadNetwork(self_training(), 10) for _ in range(2))
    weights = [head.weight for head in first.auxiliary]
    assert len(weights) == 4
    assert all(not torch.equal(weights[a], weights[b]) for a in range(4) for b in range(a))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first.auxiliary, again.auxiliary, strict=True))
    assert abs(float(torch.cat(weights).detach().std()) - 0.01) < 1e-3


def batches(digits, pool, config, parts, num_given=0):
    inputs = decode((*digits.train, *pool.samples), 32, "squash", Store(Path(tempfile.mkdtemp())))
    targets = class_weights(digits.train, 10)
    rows = torch.arange(len(digits.train))
    unlabelled = torch.arange(len(pool.samples)) + len(rows)
    given = class_weights(pool.samples[:num_given], 10)
    labelled = Labelled(torch.cat([rows, unlabelled[:num_given]]), torch.cat([targets, given]), len(rows))
    return SelfTrainingBatches(config, inputs, labelled, unlabelled, JITTER.images_transform(), frozenset(parts))


@pytest.mark.parametrize(("views", "expected"), [("shared", 2), ("independent", 4)])
def test_heads_share_a_view_or_have_their_own(digits, pool, views, expected):
    config = self_training(head_views=views)
    images = batches(digits, pool, config, {"auxiliary"})[3]["auxiliary"].view(expected, 8, 3, 32, 32)
    assert len(config.auxiliary_views()) == expected
    assert all(not torch.equal(images[a], images[b]) for a in range(expected) for b in range(a))


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "pseudo"},
        {"label": "seed"},
        {"label": "pseudo", "head_views": "independent", "lambda_strong": 0.1, "mu": 2},
        {"label": "multi_head_co_training", "head_views": "independent"},
    ],
)
def test_the_plan_knows_the_images_of_a_training(digits, pool, fields):
    config = self_training(**fields)
    phases = [(-1, config.pretrain_steps), (0, config.num_steps - config.pretrain_steps)]
    total = 0
    for number, steps in phases:
        batch = batches(digits, pool, config, config.parts(number), num_given=4)[0]
        names = ("labelled", "labelled_strong", "auxiliary", "weak", "strong")
        total += steps * sum(len(batch[name]) for name in names if name in batch)
    assert config.images_trained() == total


def test_bootstrap_counts_resample_the_real_images(digits, pool):
    source = batches(digits, pool, self_training(head_data="bootstrap"), {"auxiliary"})
    everything = source.bootstrap_weights(torch.arange(len(digits.train)))
    assert everything.sum(dim=1).tolist() == [len(digits.train)] * 4
    assert len({tuple(row) for row in everything.tolist()}) == 4
    assert torch.equal(
        batches(digits, pool, self_training(), {"auxiliary"}).bootstrap_weights(torch.arange(3)), torch.ones(4, 3)
    )


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_share_of_real_images_is_as_asked(digits, pool, share):
    source = batches(digits, pool, self_training(fraction_real=share), {"supervised"}, num_given=30)
    n = 4000
    real = sum(source.labelled_index(d) < len(digits.train) for d in range(n)) / n
    assert abs(real - share) <= 4 * (share * (1 - share) / n) ** 0.5  # four standard deviations of a binomial


def test_a_batch_is_a_function_of_its_step_alone(digits, pool):
    one, other = (
        batches(digits, pool, self_training(mu=2), {"supervised", "auxiliary", "unlabelled"}, 5) for _ in range(2)
    )
    other[0], other[9]
    first, second = one[4], other[4]
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert len(first["weak"]) == len(first["strong"]) == 16


def test_real_unlabelled_images_serve_as_well_or_besides(train, digits):
    unlabelled = tuple(dataclasses.replace(sample, label={}) for sample in digits.val[:12])
    more = dataclasses.replace(digits, val=digits.val[12:], unlabelled=unlabelled)
    for choice, count in (("real", 12), ("both", 12 + 2 * (len(digits.train) - 1))):
        protocol = train(self_training(unlabelled=choice), choice, dataset=more)["protocol"]
        assert protocol["num_unlabelled"] == count
    assert (
        train(self_training(unlabelled="real"), "alone", dataset=more, pool=None)["protocol"]["rounds"][0][
            "seed_agreement"
        ]
        is None
    )
    with pytest.raises(GenaugError, match="has no unlabelled images"):
        self_training(unlabelled="real").check_dataset(digits)


def test_two_runs_of_one_cell_are_equal(train):
    assert train(self_training(), "one") == train(self_training(), "two")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tau": 0.0}, "downstream.tau"),
        ({"tau": 1.0}, "downstream.tau"),
        ({"tau": 95.0}, "downstream.tau"),
        ({"tau_c": 1.5}, "downstream.tau_c"),
        ({"pretrain_fraction": 1.0}, "pretrain_fraction"),
        ({"debias_momentum": 1.0}, "debias_momentum"),
        ({"lambda_c": -1.0}, "lambda_c"),
        ({"num_rounds": 0}, "num_rounds"),
        ({"num_rounds": 9}, "more steps or fewer rounds"),
        ({"mu": 0}, "downstream.mu"),
        ({"num_weak_heads": 1, "num_strong_heads": 0}, "at least two heads"),
        ({"num_weak_heads": -1}, "num_weak_heads"),
        ({"fraction_real": 0.0}, "fraction_real"),
        ({"label": "teacher"}, "downstream.label"),
        ({"batch_size": 1}, "batch_size"),
    ],
)
def test_bad_values_are_refused_by_name(fields, named):
    with pytest.raises(GenaugError, match=named):
        self_training(**fields)


@pytest.mark.parametrize("samples", [None, ()])
def test_a_pool_without_images_is_refused(train, pool, samples):
    empty = None if samples is None else dataclasses.replace(pool, samples=samples)
    with pytest.raises(GenaugError, match="the pool has none"):
        train(pool=empty)
    assert train(self_training(label="none"), pool=empty)["protocol"]["num_unlabelled"] == 0


def test_one_class_is_refused(digits):
    with pytest.raises(GenaugError, match="one class only"):
        self_training().check_dataset(dataclasses.replace(digits, class_names=("digit",)))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ("mix=separate augment=mixup", r"augment\.mixup_alpha=0"),
        ("mix=separate augment.manifold_alpha=2", r"augment\.manifold_alpha=0"),
        ("mix=separate trainer.devices=2", r"trainer\.devices=1"),
        ("mix=separate generator=latent_interpolation generator.online=true", r"generator\.online=false"),
        ("mix=separate downstream=classifier_tiny", "mix=separate.*classifier_tiny.*mix=replace or mix=concat"),
        ("mix=separate downstream=classifier_tiny generator=none", "mix=separate.*classifier_tiny"),
    ],
)
def test_what_self_training_cannot_use_is_refused_before_anything_is_generated(overrides, named):
    with pytest.raises(GenaugError, match=named):
        compose_typed(["downstream=amst_tiny", *overrides.split()]).check()


def test_only_m_of_a_mix_tells_cells_of_self_training_apart():
    """The pool is a set of its own whatever alpha says, so a sweep over alpha is one cell and is computed once."""

    def cell(*overrides):
        config = compose_typed(["downstream=amst_tiny", *overrides])
        config.check()
        return Cell.of(config)

    one = cell("mix.alpha=0.3")
    assert one.names["mix"] == "separate"
    assert one.fingerprint == cell("mix.alpha=0.7").fingerprint == cell("mix=separate").fingerprint
    assert one.fingerprint == cell("mix=concat").fingerprint != cell("mix.m=7").fingerprint
    assert cell("generator=none").names["mix"] == cell("mix.alpha=0").names["mix"] == "real_only"


def test_a_plain_classifier_cannot_use_separate_sets(digits, pool):
    with pytest.raises(GenaugError, match="mix=replace"):
        Stream(Separate(m=2), digits.train, pool, 0)
    with pytest.raises(GenaugError, match=r"mix\.m"):
        Separate(m=0)


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_is_a_valid_configuration(name):
    values = {}
    while name != "_self_training":  # a preset may build on another
        values = {**OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")), **values}
        name = values.pop("defaults")[0]
    config = SelfTraining(seed=0, **({"image_size": 32} | values))
    assert {key: getattr(config, key) for key in values} == values
