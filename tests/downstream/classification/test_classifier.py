"""The classifier: repeatable, resumable, honest about the split it reads, and a probe leaves its backbone alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from genaug.core.errors import GenaugError
from genaug.data.augmentation import Augment
from genaug.data.mixing import Concat, Replace
from genaug.downstream.classification import module
from genaug.downstream.classification.batches import StreamBatches
from genaug.downstream.classification.config import Classifier
from genaug.downstream.classification.module import Network
from genaug.downstream.classification.scoring import Split
from genaug.downstream.learner import learning_rate_factor

CONF = Path(__file__).parents[3] / "conf" / "downstream"
BUSY = Augment(rotation=10.0, policy="trivialaugment", mixup_alpha=0.2, cutmix_alpha=1.0)
PROBE = {"backbone": "test_byobnet", "mode": "linear_probe", "optimizer": "adam", "lr": 0.01}


class Killed(Exception):
    """Stands for the end of the process."""


def test_the_same_cell_twice_and_with_workers_gives_equal_results(classify, pool, tmp_path):
    run = lambda name, **trainer: classify(
        Replace(alpha=0.5, m=2), pool, BUSY, folder=tmp_path / name, trainer=trainer, eval_every=3
    )
    first = run("first")
    assert run("again") == first
    assert run("workers", num_workers=2) == first


def test_batches_that_the_training_step_augments_as_on_a_gpu_are_the_same(classify, pool, tmp_path, monkeypatch):
    busy = Augment(crop_min_area=0.3, rotation=10.0, horizontal_flip_prob=0.5, erasing_prob=0.5, mixup_alpha=0.2)
    run = lambda name: classify(Replace(alpha=0.5, m=2), pool, busy, folder=tmp_path / name)
    by_the_loader, lengths, get = run("loader"), [], StreamBatches.__getitem__

    def noted(batches, step):
        lengths.append(len(get(batches, step)))
        return get(batches, step)

    monkeypatch.setattr(module, "best_device", lambda accelerator: "cuda")
    monkeypatch.setattr(StreamBatches, "__getitem__", noted)
    assert run("step") == by_the_loader
    assert set(lengths) == {3}  # images, class weights, seeds


@pytest.mark.parametrize(("select", "eval_every", "expected"), [("last", 3, 3), ("last", 4, 3), ("best_val", 1, 7)])
def test_no_weights_are_scored_twice_on_a_split(classify, monkeypatch, select, eval_every, expected):
    """Six steps: validation when it is due and at the last step, whose weights the result is about, and the test split."""
    scored, log_probabilities = [], Split.log_probabilities

    def counted(split, network, trainer):
        scores = log_probabilities(split, network, trainer)
        scored.append((split, scores))
        return scores

    monkeypatch.setattr(Split, "log_probabilities", counted)
    result = classify(select=select, eval_every=eval_every, lr=0.05)
    selected = result["protocol"]["selected_step"]
    assert len(scored) == expected + (selected != 6)  # weights of an earlier step are scored again
    history = {row["step"]: row["val/accuracy_macro"] for row in result["protocol"]["history"]}
    assert result["metrics"]["val/accuracy_macro"] == history[selected]


def test_alpha_zero_with_a_pool_is_the_baseline_bit_for_bit(classify, pool, tmp_path):
    baseline = classify(augment=BUSY, folder=tmp_path / "baseline")
    assert classify(Replace(alpha=0.0, m=2), pool, BUSY, folder=tmp_path / "zero") == baseline
    assert classify(Replace(alpha=0.5, m=2), pool, BUSY, folder=tmp_path / "half") != baseline


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(classify, pool, tmp_path, record, killed_at):
    armed = False

    def interpolate(images, weights, step):
        if armed and step == killed_at:
            raise Killed
        return images, weights

    def run(name: str):
        return classify(
            Replace(alpha=0.5, m=2),
            pool,
            BUSY,
            folder=tmp_path / name,
            record=record,
            trainer={"checkpoint_every": 2},
            interpolate=interpolate,
            select="best_val",
            eval_every=2,
            ema_decay=0.5,
            warmup_steps=2,
        )

    expected = run("whole")
    armed = True
    with pytest.raises(Killed):
        run("killed")
    assert record.seconds == 0
    armed = False
    resumed = run("killed")
    assert resumed == expected
    assert record.seconds > 0  # of the attempt that was killed
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "killed")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_finished_training_that_was_killed_while_scoring_trains_no_more(classify, record, tmp_path):
    first = classify(trainer={"checkpoint_every": 3}, eval_every=3)
    steps = []
    interpolate = lambda images, weights, step: steps.append(step) or (images, weights)
    assert classify(trainer={"checkpoint_every": 3}, eval_every=3, interpolate=interpolate, record=record) == first
    assert steps == []


def test_each_test_image_is_scored_exactly_once(classify, digits):
    result = classify()
    rows = result["predictions"]
    assert [row["id"] for row in rows] == [sample.id for sample in digits.test]
    assert [row["target"] for row in rows] == [sample.class_index for sample in digits.test]
    assert all(0 <= row["probability"] <= 1 for row in rows)
    confusion = torch.tensor(result["metrics"]["test/confusion_matrix"])
    assert int(confusion.sum()) == len(digits.test)
    correct = sum(row["predicted"] == row["target"] for row in rows)
    assert result["metrics"]["test/accuracy_micro"] == pytest.approx(correct / len(rows))


@pytest.mark.parametrize("mix", [Replace(alpha=0.5, m=2), Replace(alpha=1.0, m=1), Concat(m=2)])
def test_the_number_of_optimiser_steps_is_fixed_whatever_alpha_and_m(classify, pool, mix):
    steps = []
    interpolate = lambda images, weights, step: steps.append(step) or (images, weights)
    result = classify(mix, pool, interpolate=interpolate, num_steps=4)
    assert steps == [0, 1, 2, 3]
    assert result["protocol"]["num_steps"] == 4


def test_the_online_hook_sees_images_in_unit_range_before_mixing(classify):
    seen = []

    def interpolate(images, weights, step):
        seen.append((images, weights))
        return images, weights

    classify(augment=Augment(mixup_alpha=1.0), interpolate=interpolate, num_steps=2)
    for images, weights in seen:
        assert images.shape == (8, 3, 32, 32)
        assert 0 <= images.min() and 0.5 < images.max() <= 1
        assert set(weights.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("select", "split", "oracle"), [("best_val", "val", False), ("oracle", "test", True)])
def test_selection_takes_the_best_evaluation_of_its_split(classify, tmp_path, select, split, oracle):
    metric = f"{split}/accuracy_macro"
    result = classify(select=select, eval_every=2, num_steps=12, lr=0.02)
    history = result["protocol"]["history"]
    assert [row["step"] for row in history] == [2, 4, 6, 8, 10, 12]
    best = max(row[metric] for row in history)
    step = next(row["step"] for row in history if row[metric] == best)
    assert result["protocol"]["selected_step"] == step
    assert result["protocol"]["oracle"] is oracle
    assert result["metrics"][metric] == best  # the weights of that step are scored
    last = classify(select="last", eval_every=2, num_steps=12, lr=0.02, folder=tmp_path / "last")
    assert last["protocol"]["selected_step"] == 12
    assert last["metrics"]["val/accuracy_macro"] == last["protocol"]["history"][-1]["val/accuracy_macro"]


def test_the_oracle_of_resampled_draws_reports_the_draws_that_it_selected_on(classify):
    result = classify(select="oracle", evaluation="resampled", sampling="with_replacement", eval_every=2)
    best = max(row["test/accuracy_macro"] for row in result["protocol"]["history"])
    assert result["metrics"]["test/accuracy_macro"] == best
    assert sum(map(sum, result["metrics"]["test/confusion_matrix"])) == 6400
    assert len(result["predictions"]) == 60
    assert 0 <= result["metrics"]["test_full/accuracy_macro"] <= 1


def backbone_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoints" / "resume.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("network.backbone."): value for key, value in state.items() if ".backbone." in key}


@pytest.mark.parametrize("bn_mode", ["train", "frozen"])
def test_a_probe_leaves_weights_alone_and_running_statistics_when_frozen(classify, weights_path, tmp_path, bn_mode):
    classify(
        augment=BUSY,
        folder=tmp_path,
        trainer={"checkpoint_every": 6},
        weights_path=weights_path,
        bn_mode=bn_mode,
        **PROBE,
    )
    before, after = torch.load(weights_path, weights_only=True), backbone_of(tmp_path)
    assert any("running_mean" in key for key in after)
    for key, value in after.items():
        drifts = bn_mode == "train" and ("running_" in key or "num_batches" in key)
        assert torch.equal(value, before[key]) != drifts, key


def test_fine_tuning_with_frozen_statistics_moves_the_weights_only(classify, weights_path, tmp_path):
    classify(
        folder=tmp_path, trainer={"checkpoint_every": 6}, weights_path=weights_path, mode="finetune", bn_mode="frozen"
    )
    before, after = torch.load(weights_path, weights_only=True), backbone_of(tmp_path)
    assert all(torch.equal(after[key], before[key]) for key in after if "running_" in key)
    assert not any(torch.equal(after[key], before[key]) for key in after if key.endswith("conv.weight"))


def test_no_gradient_reaches_the_backbone_of_a_probe(weights_path):
    fields = {"seed": 0, "image_size": 32, "weights_path": weights_path} | PROBE
    network = Network(Classifier(**fields), num_classes=10)
    network(torch.rand(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


def test_cached_features_give_the_probe_that_encoding_at_every_step_gives(classify, weights_path, tmp_path):
    fields = {"weights_path": weights_path, "bn_mode": "frozen", "num_steps": 20} | PROBE
    cached = classify(folder=tmp_path / "cached", **fields)
    fresh = classify(folder=tmp_path / "fresh", interpolate=lambda images, weights, step: (images, weights), **fields)
    assert cached["protocol"]["cached_features"] and not fresh["protocol"]["cached_features"]
    for row, other in zip(cached["predictions"], fresh["predictions"], strict=True):
        # other batch shapes round differently
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_with_augmentation_nothing_is_cached(classify, weights_path):
    result = classify(augment=BUSY, weights_path=weights_path, bn_mode="frozen", **PROBE)
    assert not result["protocol"]["cached_features"]


def test_training_learns_the_digits_it_saw(classify, digits, tmp_path):
    seen = dataclasses.replace(digits, test=digits.train)
    result = classify(dataset=seen, num_steps=60, batch_size=20, lr=0.005)
    assert result["metrics"]["test/accuracy_macro"] == 1.0


def test_the_schedules_in_closed_form():
    shape = lambda **fields: [
        learning_rate_factor(Classifier(seed=0, image_size=32, **fields), step) for step in range(fields["num_steps"])
    ]
    assert shape(num_steps=4, schedule="constant") == [1, 1, 1, 1]
    assert shape(num_steps=4, schedule="cosine") == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert shape(num_steps=5, schedule="constant", warmup_steps=3) == [0.25, 0.5, 0.75, 1, 1]


def test_nothing_but_checkpoints_and_no_advice_is_written(classify, tmp_path, capsys, record, recwarn):
    classify(folder=tmp_path / "cell", trainer={"checkpoint_every": 3}, eval_every=3, record=record)
    assert [path.name for path in (tmp_path / "cell").rglob("*") if path.is_file()] == ["resume.ckpt"]
    printed = capsys.readouterr()
    assert printed.out.strip() == printed.err.strip() == ""
    assert [str(warning.message) for warning in recwarn] == []
    assert {key for _, row in record.rows for key in row} >= {"train/loss", "val/accuracy_macro"}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"mode": "probe"}, "downstream.mode=probe must be one of finetune, scratch, linear_probe"),
        ({"mode": "scratch", "weights_path": "w.pth"}, "mode=finetune or linear_probe"),
        ({"mode": "scratch", "bn_mode": "frozen"}, "bn_mode=train"),
        ({"mode": "linear_probe", "backbone_lr_scale": 0.1}, "backbone_lr_scale=1"),
        ({"select": "best_val"}, "eval_every=200"),
        ({"batch_size": 1}, "downstream.batch_size=1"),
        ({"num_steps": 10, "warmup_steps": 10}, "downstream.warmup_steps=10"),
        ({"lr": 0.0}, "downstream.lr=0.0"),
    ],
)
def test_contradictions_are_refused_with_what_would_do(fields, match):
    with pytest.raises(GenaugError, match=match):
        Classifier(seed=0, image_size=32, **fields)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"backbone": "resnet5"}, "Did you mean resnet5"),
        ({"backbone": "resnet50.a1_in2k"}, "a1_in1k"),
        ({"mode": "finetune", "backbone": "resnet50", "weights_path": "/nowhere.pth"}, "/nowhere.pth is not a file"),
        ({"mode": "finetune", "backbone": "test_convnext3x"}, "is no model of timm"),
    ],
)
def test_unknown_backbones_and_weights_are_refused_before_anything_is_loaded(fields, match):
    with pytest.raises(GenaugError, match=match):
        Classifier(seed=0, image_size=32, **fields).check("classification")


def test_a_data_set_without_the_split_that_selection_reads_is_refused(classify, digits):
    with pytest.raises(GenaugError, match=r"select=best_val.*select=last"):
        classify(dataset=dataclasses.replace(digits, val=()), select="best_val", eval_every=2)
    with pytest.raises(GenaugError, match="no test images"):
        classify(dataset=dataclasses.replace(digits, test=()))
    classify(dataset=dataclasses.replace(digits, val=()), eval_every=2)


def test_another_task_is_refused():
    with pytest.raises(GenaugError, match="is for classification"):
        Classifier(name="tiny", seed=0, image_size=32).check("detection")


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_accepted_and_its_backbone_exists(path: Path):
    fields = OmegaConf.to_container(OmegaConf.load(path))
    if fields.pop("defaults") != ["_classifier", "_self_"]:
        return  # another downstream model
    assert fields["name"] == path.stem
    classifier = Classifier(**({"seed": 0, "image_size": 32} | fields))
    classifier.check("classification")


def test_the_learning_rate_drops_at_its_milestones():
    config = Classifier(name="x", seed=0, image_size=32, schedule="steps", milestones=[2, 4], lr_drop=0.1, num_steps=6)
    assert [learning_rate_factor(config, step) for step in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for fields in ({"schedule": "steps"}, {"milestones": [3]}):
        with pytest.raises(GenaugError, match="milestones belong to schedule=steps"):
            Classifier(name="x", seed=0, image_size=32, **fields)
