"""Suggested settings compose, follow their rules, and shrink with the data and the machine."""

from dataclasses import replace

import numpy as np
import pytest

from genaug.composition import compose_typed
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.evaluation.prior_check import PriorCheck
from genaug.evaluation.suggestions import image_size, suggestions


def dataset(per_class, task="classification", classes=2):
    blank = np.zeros((8, 8, 3), dtype=np.uint8)
    one = Boxes(xyxy=np.array([[0, 0, 4, 4]], dtype=np.float32), labels=np.array([0]), crowd=np.array([False]))
    train = tuple(
        Sample(
            id=f"{c}/{i}",
            digest=f"{c}/{i}",
            image=blank,
            **({"boxes": one} if task == "detection" else {"label": {c: 1.0}}),
        )
        for c in range(classes)
        for i in range(per_class)
    )
    names = tuple(f"name {c}" for c in range(classes))
    return Dataset(name="some", task=task, class_names=names, train=train, val=(), test=())


def settings(*arguments):
    return dict(row.override.split("=") for row in suggestions(*arguments, batch=32))


def judged(right):
    return PriorCheck(
        prior="tiny",
        image_size=64,
        num_images=16,
        psnr_db=20.0,
        neighbour_db=10.0,
        energy=0.5,
        right=right,
        can_draw=True,
        sentence="",
    )


@pytest.mark.parametrize(
    ("median", "task", "device", "side"),
    [
        (500, "classification", "cpu", 64),
        (500, "classification", "cuda", 224),
        (500, "detection", "cuda", 480),
        (28, "classification", "cpu", 32),
        (50, "classification", "cuda", 32),
    ],
)
def test_images_are_not_enlarged_and_fit_the_machine(median, task, device, side):
    assert image_size(median, task, device) == side


def test_a_large_set_gets_few_shots_and_few_variants_on_a_cpu():
    small, large = (settings(dataset(n), 64, "cpu", None) for n in (10, 500))
    assert "dataset.shots" not in small and large["dataset.shots"] == "64"
    assert small["mix.m"] == "10" and large["mix.m"] == "7"
    assert small["downstream.num_steps"] == "200"
    assert settings(dataset(500), 64, "cuda", None)["downstream"] == "resnet50"


def test_a_large_set_with_a_class_of_two_images_keeps_a_share_of_all_and_none_of_its_classes_sets_the_shots():
    uneven = dataset(400)
    uneven = replace(uneven, train=uneven.train[:402])
    found = settings(uneven, 64, "cpu", None)
    assert "dataset.shots" not in found and found["dataset.fraction"] == "0.32"
    assert "dataset.fraction" not in settings(dataset(60), 64, "cpu", None)
    assert settings(dataset(500, "detection"), 64, "cpu", None)["dataset.fraction"] == "0.26"


def test_the_batch_is_no_larger_than_the_training_set_and_the_steps_follow_it():
    assert settings(dataset(10), 64, "cpu", None)["downstream.batch_size"] == "16"
    large = suggestions(dataset(64), 64, "cpu", None, 32)
    small = suggestions(dataset(64), 64, "cpu", None, 16)
    steps = [next(row.override for row in rows if "num_steps" in row.override) for rows in (large, small)]
    assert steps == ["downstream.num_steps=200", "downstream.num_steps=400"]


def test_a_prior_that_draws_badly_stays_near_the_source():
    assert settings(dataset(10), 64, "cpu", judged(0.8))["generator.t0"] == "0.5"
    assert settings(dataset(10), 64, "cpu", judged(0.3))["generator.t0"] == "0.25"


@pytest.mark.parametrize("count", [4, 500])
@pytest.mark.parametrize("task", ["classification", "detection"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_suggestions_compose(task, device, count):
    words = [row.override for row in suggestions(dataset(count, task), 300, device, judged(0.5), 16, 500)]
    data = (
        ["dataset=digit_scenes", "generator=psld"]
        if task == "detection"
        else ["dataset=digits", "generator=real_guidance"]
    )
    augment = ["augment=none"] if task == "detection" else []
    config = compose_typed([*data, *augment, *words])
    assert config.mix.m >= 1


def test_no_more_shots_are_suggested_than_every_class_has():
    """Of classes of 40 and 100 images a draw of 64 from each would be refused; of 10 and 100 it is a fraction of all."""
    even, uneven = dataset(100), dataset(100)
    first = [s for s in even.train if s.label == {0: 1.0}]
    second = [s for s in even.train if s.label == {1: 1.0}]
    even, uneven = (replace(even, train=(*first[:few], *second)) for few in (40, 10))
    assert settings(even, 500, "cpu", None)["dataset.shots"] == "40"
    drawn = settings(uneven, 500, "cpu", None)
    assert "dataset.shots" not in drawn and drawn.get("dataset.fraction") is None  # 110 are fewer than 2 x 64
