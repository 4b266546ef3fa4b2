"""Layer decay and the warm-up of the moving average: what each weight's rate is, what is averaged, and that both resume."""

import dataclasses

import pytest
import timm
import torch
from torch import nn

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.core.store import Store
from genaug.data.augmentation import Augment
from genaug.data.mixing import RealOnly
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.batches import decode
from genaug.downstream.classification.config import Classifier
from genaug.downstream.classification.module import LightningClassifier, Network
from genaug.downstream.detection.config import Detector
from genaug.downstream.learner import LightningLearner
from genaug.downstream.trainer import TrainerConfig

LAYERED = {"backbone": "test_vit", "image_size": 160, "layer_decay": 0.5, "lr": 0.01, "weight_decay": 0.1}


class Killed(Exception):
    """Stands for a SIGKILL between two steps."""


def classifier(**fields) -> Classifier:
    return Classifier(
        **{"seed": 0, "image_size": 32, "backbone": "test_byobnet", "num_steps": 6, "batch_size": 8, **fields}
    )


@pytest.fixture
def learner(digits, tmp_path):
    """An untrained classifier of the digits."""
    return lambda **fields: untrained(digits, tmp_path, **fields)


def untrained(digits, folder, **fields) -> LightningClassifier:
    config = classifier(**fields)
    data = TrainingData(dataset=digits, mix=RealOnly(), pool=None, augment=Augment())
    network = Network(config, len(digits.class_names))
    inputs = decode(digits.train[:2], config.image_size, config.resize, Store(folder))
    return LightningClassifier(config, network, data, inputs, TrainerConfig(accelerator="cpu"))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_each_block_has_its_share_of_the_rate_of_the_one_above(learner, optimizer):
    model = learner(**LAYERED, optimizer=optimizer)
    built = model.configure_optimizers()["optimizer"]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    assert type(built) is kind and not built.defaults.get("nesterov")
    rate = {id(w): group["initial_lr"] for group in built.param_groups for w in group["params"]}
    decay = {id(w): group["weight_decay"] for group in built.param_groups for w in group["params"]}
    names = dict(model.network.named_parameters())
    assert set(rate) == {id(weight) for weight in names.values()}  # each once, the head's too
    num_blocks = len(model.network.backbone.blocks)
    assert rate[id(names["head.weight"])] == rate[id(names["head.bias"])] == 0.01
    assert rate[id(names["backbone.norm.weight"])] == 0.005  # as the last block
    for i in range(num_blocks):
        expected = 0.01 * 0.5 ** (num_blocks - i)
        assert rate[id(names[f"backbone.blocks.{i}.attn.qkv.weight"])] == pytest.approx(expected)
    assert rate[id(names["backbone.patch_embed.proj.weight"])] == pytest.approx(0.01 * 0.5 ** (num_blocks + 1))
    for name, weight in names.items():
        exempt = weight.ndim <= 1 or name.endswith(("pos_embed", "cls_token"))
        assert decay[id(weight)] == (0.0 if exempt else 0.1), name


def test_without_layer_decay_the_groups_are_as_they_were(learner):
    new, backbone = learner(lr=0.01, backbone_lr_scale=0.1).configure_optimizers()["optimizer"].param_groups
    assert (new["initial_lr"], backbone["initial_lr"]) == (0.01, pytest.approx(0.001))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_rates_are_those_of_timms_own_model_with_a_head(learner, backbone):
    built = learner(backbone=backbone, layer_decay=0.5, lr=0.01)
    ours = built.configure_optimizers()["optimizer"]
    rate = {id(w): group["lr"] for group in ours.param_groups for w in group["params"]}
    whole = timm.create_model(backbone, num_classes=10)
    theirs = timm.optim.create_optimizer_v2(whole, "adamw", lr=0.01, weight_decay=0.05, layer_decay=0.5)
    scale = {id(w): group["lr_scale"] for group in theirs.param_groups for w in group["params"]}
    own = dict(built.network.backbone.named_parameters())
    shared = [(weight, own[name]) for name, weight in whole.named_parameters() if name in own]
    assert len(shared) == len(own)
    assert all(rate[id(mine)] == pytest.approx(0.01 * scale[id(weight)]) for weight, mine in shared)
    assert len({scale[id(weight)] for weight, _ in shared}) > 2


def test_a_backbone_without_an_order_of_layers_is_refused():
    with pytest.raises(GenaugError, match="layer_decay=null"):
        classifier(backbone="wrn28_10_cifar", layer_decay=0.5).check("classification")


def test_the_average_forgets_its_first_weights_as_timm_has_it():
    """With one weight that is s at step s: after step 1 the average is 1, then decay d(s) = min(ema_decay, 1 - s'^-p)."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    model = LightningLearner(
        classifier(ema_decay=0.6, ema_warmup=0.75),
        network,
        None,  # type: ignore[arg-type]
        TrainerConfig(accelerator="cpu"),
    )
    expected = 0.0
    for step in range(1, 9):
        nn.init.constant_(network.weight, step)
        model.averaged(step)
        decay = 0.0 if step == 1 else min(0.6, 1 - step**-0.75)
        expected = decay * expected + (1 - decay) * step
        assert model.scored.weight.item() == pytest.approx(expected, rel=1e-6)
    assert 1 - 3**-0.75 < 0.6 < 1 - 4**-0.75  # both sides of the minimum were met
    assert not any(weight.requires_grad for weight in model.average.parameters())


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_resumed_run_with_layer_decay_and_warm_up_ends_bit_for_bit_as_an_unbroken_one(classify, tmp_path, killed_at):
    armed = False

    def interpolate(images, weights, step):
        if armed and step == killed_at:
            raise Killed
        return images, weights

    def run(name: str):
        fields = {**LAYERED, "lr": 0.001, "ema_decay": 0.9, "ema_warmup": 0.75, "select": "best_val", "eval_every": 2}
        return classify(folder=tmp_path / name, trainer={"checkpoint_every": 2}, interpolate=interpolate, **fields)

    expected = run("whole")
    armed = True
    with pytest.raises(Killed):
        run("killed")
    armed = False
    assert run("killed") == expected
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "killed")
    )
    assert any(key.startswith("average.module.") for key in one)
    assert all(torch.equal(one[key], other[key]) for key in one)
    averages = {key.removeprefix("average.module."): value for key, value in one.items() if key.startswith("average.")}
    assert any(not torch.equal(value, one[f"network.{key}"]) for key, value in averages.items())


def test_what_is_null_leaves_no_trace_in_the_identity():
    for config in (classifier(), Detector(name="d", seed=0, image_size=64)):
        assert not {"layer_decay", "ema_warmup", "backbone_name"} & set(canonical(config))
    assert canonical(classifier(ema_decay=0.9)) != canonical(classifier(ema_decay=0.9, ema_warmup=0.75))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layer_decay": 0.5, "mode": "linear_probe"}, "mode=finetune"),
        ({"layer_decay": 0.5, "mode": "finetune", "backbone_lr_scale": 0.1}, "backbone_lr_scale=1"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        ({"ema_warmup": 0.75}, "ema_decay=0.999"),
    ],
)
def test_options_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(GenaugError, match=said):
        classifier(**fields)
    if "ema_warmup" in fields:
        with pytest.raises(GenaugError, match=said):
            dataclasses.replace(Detector(name="d", seed=0, image_size=64), **fields)


@pytest.mark.parametrize("name", ["probe_vit", "probe_dinov2", "probe_dinov3", "vit_b16"])
def test_names_sizes_and_statistics_of_the_presets_are_those_of_timm(name):
    from genaug.composition import compose_typed
    from genaug.data.augmentation import NORMALIZATIONS

    config = compose_typed([f"downstream={name}", "dataset=digits"]).downstream
    config.check("classification")
    about = timm.get_pretrained_cfg(config.backbone)
    mean, std = NORMALIZATIONS[config.normalize]
    assert tuple(mean) == pytest.approx(about.mean) and tuple(std) == pytest.approx(about.std)
    if name == "probe_dinov2":
        assert config.image_size % 14 == 0
    else:
        assert config.image_size == about.input_size[-1]
