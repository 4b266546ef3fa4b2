"""Splits: DA-Fusion's nested few-shot draw, and validation splits that no listing order can change."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.core.identity import fingerprint
from genaug.data.sample import Boxes, Dataset, Sample, check_disjoint, check_samples
from genaug.data.sources.published import drop_repeats
from genaug.data.splits import carve, few_shot, fraction_of

PIXEL = np.zeros((1, 1, 3), dtype=np.uint8)
SIZES = (20, 17, 31)


def samples_of(sizes: tuple[int, ...] = SIZES) -> list[Sample]:
    return [
        Sample(id=f"{c}/{i:03d}", digest=f"{c}/{i}", image=PIXEL, label={c: 1.0})
        for c, size in enumerate(sizes)
        for i in range(size)
    ]


def dataset_of(samples: list[Sample]) -> Dataset:
    return Dataset(
        name="toy", task="classification", class_names=("a", "b", "c"), train=tuple(samples), val=(), test=()
    )


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_the_draw_is_default_rng_permutation_per_class_in_order(shots: int):
    rng = np.random.default_rng(3)
    expected = [f"{c}/{i:03d}" for c, size in enumerate(SIZES) for i in rng.permutation(size)[:shots]]
    assert [sample.id for sample in few_shot(dataset_of(samples_of()), shots, seed=3).train] == expected


def test_the_draw_does_not_depend_on_how_classes_are_interleaved():
    samples = samples_of()
    interleaved = sorted(samples, key=lambda s: s.id[2:])  # the order within each class stays
    draw = lambda train: [s.id for s in few_shot(dataset_of(train), 4, seed=0).train]
    assert draw(samples) == draw(interleaved)


def test_fewer_shots_are_a_subset_of_more():
    dataset = dataset_of(samples_of())
    chosen = [{s.id for s in few_shot(dataset, shots, seed=1).train} for shots in (1, 2, 4, 8, 16)]
    assert all(small < large for small, large in itertools.pairwise(chosen))
    assert chosen[2] != {s.id for s in few_shot(dataset, 4, seed=2).train}


def test_a_class_with_too_few_images_is_named_with_the_remedy():
    with pytest.raises(GenaugError, match=r"dataset.shots=18.*'b'.*17.*dataset.shots=17"):
        few_shot(dataset_of(samples_of()), 18, seed=0)
    assert sum(s.class_index == 1 for s in few_shot(dataset_of(samples_of()), 17, seed=0).train) == 17
    with pytest.raises(GenaugError, match=r"'b'.* 0 training.*dataset.shots=1 or less"):
        few_shot(dataset_of(samples_of((20, 0, 31))), 2, seed=0)


def test_fractions_are_nested_and_rounded_up():
    dataset = dataset_of(samples_of())
    tenth, half = (fraction_of(dataset, f, seed=0).train for f in (0.1, 0.5))
    assert (len(tenth), len(half)) == (7, 34)  # of 68
    assert half[:7] == tenth
    assert len(fraction_of(dataset_of(samples_of((100,))), 0.07, seed=0).train) == 7  # 0.07 * 100 is 7.000000000000001


def test_what_a_draw_does_not_take_is_kept_apart():
    dataset = dataset_of(samples_of())
    for drawn in (few_shot(dataset, 4, seed=1), fraction_of(dataset, 0.3, seed=1)):
        assert sorted(s.id for s in (*drawn.train, *drawn.undrawn)) == sorted(s.id for s in dataset.train)
    assert not dataset.undrawn


def test_carving_takes_a_share_of_each_class_and_ignores_the_listing_order():
    samples = samples_of()
    kept, carved = carve(samples, 3, 0.25, seed=0)
    assert [sum(s.class_index == c for s in carved) for c in range(3)] == [5, 4, 8]
    assert sorted(s.id for s in (*kept, *carved)) == [s.id for s in samples]
    shuffled = random.Random(0).sample(samples, len(samples))
    assert carve(shuffled, 3, 0.25, seed=0) == (kept, carved)


def test_carving_never_empties_a_class():
    kept, carved = carve(samples_of((1, 2, 3)), 3, 0.9, seed=0)
    assert [sum(s.class_index == c for s in kept) for c in range(3)] == [1, 1, 1]
    assert len(carved) == 3


def test_a_test_image_in_train_is_refused_by_content():
    copy = Sample(id="elsewhere", digest="0/0", image=PIXEL, label={0: 1.0})
    dataset = Dataset(
        name="toy", task="classification", class_names=("a", "b", "c"), train=tuple(samples_of()), val=(), test=(copy,)
    )
    with pytest.raises(GenaugError, match=r"1 image\(s\) of the test split.*elsewhere"):
        check_disjoint(dataset)


def test_two_splits_share_no_id():
    copy = Sample(id="0/000", digest="other", image=PIXEL, label={0: 1.0})
    with pytest.raises(GenaugError, match=r"1 image\(s\) of the val split.*0/000 is 0/000"):
        check_disjoint(replace(dataset_of(samples_of()), val=(copy,)))


def test_what_a_generator_sees_of_an_image_is_its_identity():
    sample = samples_of()[0]
    boxes = Boxes(xyxy=np.float32([[0, 0, 1, 1]]), labels=np.int64([0]), crowd=np.array([False]))
    others = [
        replace(sample, digest="x"),
        replace(sample, label={1: 1.0}),
        replace(sample, white=4095.0),
        replace(sample, mask=np.ones((1, 1), bool)),
        replace(sample, mask=np.zeros((1, 1), bool)),
        *(replace(sample, boxes=replace(boxes, **{key: getattr(boxes, key) + 1})) for key in ("xyxy", "labels")),
        replace(sample, boxes=boxes),
        sample,
    ]
    assert len({fingerprint(other.identity()) for other in others}) == len(others)
    assert replace(sample, id="x").identity() == sample.identity()
    dataset = dataset_of([sample])
    assert replace(dataset, class_names=("a", "b", "d")).train_identity() != dataset.train_identity()


def test_an_image_has_the_class_of_its_largest_box_that_is_no_crowd():
    corners, crowd = np.float32([[0, 0, 9, 9], [0, 0, 2, 2], [0, 0, 4, 1]]), np.array([True, False, False])
    boxes = Boxes(xyxy=corners, labels=np.int64([0, 1, 2]), crowd=crowd)
    assert Sample(id="x", digest="x", image=PIXEL, boxes=boxes).class_index == 1


def test_of_a_published_set_only_the_test_keeps_repeated_images():
    train = samples_of()
    copies = {
        split: tuple(
            Sample(id=f"{split}/{i}", digest=train[i].digest, image=PIXEL, label=train[i].label) for i in range(n)
        )
        for split, n in (("val", 5), ("test", 3))
    }
    dataset = drop_repeats(
        Dataset(name="toy", task="classification", class_names=("a", "b", "c"), train=tuple(train), **copies)
    )
    check_disjoint(dataset)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (len(train) - 5, 2, 3)
    assert dataset.notes == {
        "train_images_repeated_in_val_or_test_dropped": 5,
        "val_images_repeated_in_test_dropped": 3,
    }


def test_too_few_training_images_are_explained_by_what_was_carved_from_them():
    groups = {"train": 19, "val": 5}
    samples = {
        split: tuple(
            Sample(id=f"{split}{c}{i}", digest=f"{split}{c}{i}", image=np.zeros((1, 1, 3), np.uint8), label={c: 1.0})
            for c in range(2)
            for i in range(count)
        )
        for split, count in groups.items()
    }
    fields = {"name": "x", "task": "classification", "class_names": ("a", "b"), "test": (), **samples}
    with pytest.raises(GenaugError, match=r"19 training image\(s\), as 5 for validation .* carved from its 24\."):
        few_shot(Dataset(**fields, carved=("val",)), 24, seed=0)
    with pytest.raises(GenaugError, match=r"19 training image\(s\)\. Write dataset\.shots=19"):
        few_shot(Dataset(**fields), 24, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((8, 8, 3))}, r"the image of x is float64 \[8, 8, 3\]: give a pathlib\.Path, or pixels as"),
        ({"image": np.zeros((8, 8), np.uint8)}, r"is uint8 \[8, 8\]"),
        ({"image": np.zeros((3, 8, 8), np.uint8)}, r"is uint8 \[3, 8, 8\]"),
        ({"image": "x.png"}, "is str: give a pathlib"),
        ({"label": 1}, r"x \(train\) has the label 1: write the weights of classes, which sum to 1, .* from 0 to 1"),
        ({"label": {"a": 1.0}}, "has the label {'a': 1.0}"),
        ({"label": {2: 1.0}}, "has the label {2: 1.0}"),
        ({"label": {0: 1.0, 1: 1.0}}, "which sum to 1"),
        ({"label": {}}, "has the label {}"),
        ({"id": "y", "digest": "other"}, "two images of train have the id y"),
    ],
)
def test_what_a_data_set_of_ones_own_gives_wrong_is_named(change, message):
    good = Sample(id="x", digest="x", image=np.zeros((8, 8, 3), np.uint8), label={0: 0.5, 1: 0.5})
    other = replace(good, id="y", digest="y", image=Path("y.png"))
    about = {"name": "d", "task": "classification", "class_names": ("a", "b"), "val": (), "test": ()}
    check_samples(Dataset(**about, train=(good, other, other)))
    with pytest.raises(GenaugError, match=message):
        check_samples(Dataset(**about, train=(replace(good, **change), other)))
    with pytest.raises(GenaugError, match=r"d has no training images\."):
        check_samples(Dataset(**about, train=()))
