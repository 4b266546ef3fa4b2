"""Batches are augmented as torchvision augments images one by one: the same operations, parameters of the same distribution."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from genaug.core.seeding import derive, uniforms
from genaug.data.augmentation import IMAGENET_MEAN_COLOUR, Augment, seeded
from genaug.data.batch_augmentation import affine, crop_boxes, erased, erasing_boxes, resized_crops

SIDE, NUM = 32, 16
NOISE = torch.randint(0, 256, (NUM, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MANY = uniforms([derive("many", i) for i in range(20_000)], 22)
EVERYTHING = Augment(
    horizontal_flip_prob=0.5,
    vertical_flip_prob=0.5,
    crop_min_area=0.5,
    rotation=20.0,
    shift=0.1,
    zoom=0.2,
    policy="trivialaugment",
    erasing_prob=0.5,
)


def test_numbers_are_uniform_and_independent():
    assert MANY.min() >= 0 and MANY.max() < 1
    assert np.abs(MANY.mean(0) - 0.5).max() < 0.01  # five standard errors
    assert np.abs(np.corrcoef(MANY.T) - np.eye(22)).max() < 0.035
    assert np.array_equal(uniforms([7, 2**63 - 1], 5)[1], uniforms([2**63 - 1], 9)[0, :5])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotation_shift_and_zoom_are_torchvisions(interpolation):
    rng = np.random.default_rng(0)
    angles, zooms = rng.uniform(-180, 180, NUM), rng.uniform(0.7, 1.3, NUM)
    shifts = rng.integers(-6, 7, (NUM, 2)).astype(float)
    ours = affine(NOISE, angles, shifts, zooms, interpolation)
    for i in range(NUM):
        expected = F.affine(
            NOISE[i], angles[i], list(shifts[i]), zooms[i], [0.0, 0.0], interpolation=InterpolationMode(interpolation)
        )
        differences = (ours[i].int() - expected.int()).abs()
        assert differences.max() <= (1 if interpolation == "bilinear" else 0)  # rounding of a half


def test_crops_are_torchvisions_and_read_nothing_beyond_their_border():
    corners, sizes = crop_boxes(MANY[:NUM], SIDE, 0.1)
    ours = resized_crops(NOISE, corners, sizes)
    for i, ((left, top), (width, height)) in enumerate(zip(corners.tolist(), sizes.tolist(), strict=True)):
        expected = F.resized_crop(NOISE[i], top, left, height, width, [SIDE, SIDE], antialias=True)
        assert (ours[i].int() - expected.int()).abs().max() <= 2  # torchvision's uint8 kernel has integer weights


def test_erased_is_the_rectangle_alone():
    corners, sizes = erasing_boxes(MANY[:NUM], SIDE, 0.5)
    assert 0 < (sizes[:, 0] > 0).sum() < NUM
    ours = erased(NOISE, corners, sizes)
    for i, ((left, top), (width, height)) in enumerate(zip(corners.tolist(), sizes.tolist(), strict=True)):
        expected = NOISE[i].clone()
        colour = torch.tensor(IMAGENET_MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
        expected[:, top : top + height, left : left + width] = colour
        assert torch.equal(ours[i], expected)


@pytest.mark.parametrize(
    "boxes, transform, keys",
    [
        (
            crop_boxes(MANY, SIDE, 0.25),
            v2.RandomResizedCrop(SIDE, scale=(0.25, 1.0)),
            ("left", "top", "width", "height"),
        ),
        (erasing_boxes(MANY, SIDE, 1.0), v2.RandomErasing(1.0), ("j", "i", "w", "h")),
    ],
    ids=["crop", "erasing"],
)
def test_rectangles_are_distributed_as_torchvisions(boxes, transform, keys):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transform.make_params([NOISE[0]]) for _ in range(5000)]
    expected = np.asarray([[parameters[key] for key in keys] for parameters in drawn], dtype=float)
    ours = np.concatenate(boxes, axis=1)
    spread = expected.std(0)
    assert np.abs(ours.mean(0) - expected.mean(0)).max() < 0.08 * spread.max()
    assert np.abs(ours.std(0) - spread).max() < 0.05 * spread.max()


def test_an_image_depends_on_its_own_seed_alone():
    transform = EVERYTHING.images_transform()
    assert transform is not None
    seeds = [derive("test", i) for i in range(NUM)]
    whole = transform(NOISE, seeds)
    assert whole.dtype == torch.uint8 and whole.shape == NOISE.shape and not torch.equal(whole, NOISE)
    torch.rand(3)  # what was drawn before must not matter
    assert torch.equal(transform(NOISE[5:7], seeds[5:7]), whole[5:7])
    assert torch.equal(transform(NOISE.flip(0), seeds[::-1]), whole.flip(0))
    same = transform(NOISE[:1].expand(8, -1, -1, -1), seeds[:8])
    assert len({image.numpy().tobytes() for image in same}) == 8


@pytest.mark.parametrize("axis, key", [(-1, "horizontal_flip_prob"), (-2, "vertical_flip_prob")])
def test_flips_come_as_often_as_stated(axis, key):
    transform = Augment(**{key: 0.3}).images_transform()
    assert transform is not None
    images = NOISE[:1].expand(2000, -1, -1, -1)
    flipped = (transform(images, [derive(key, i) for i in range(2000)]) == images.flip(axis)).flatten(1).all(1)
    assert abs(flipped.float().mean() - 0.3) < 0.05


def test_the_two_flips_are_drawn_apart():
    transform = Augment(horizontal_flip_prob=0.5, vertical_flip_prob=0.5).images_transform()
    assert transform is not None
    made = transform(NOISE[:1].expand(50, -1, -1, -1), [derive("flips", i) for i in range(50)])
    assert len({image.numpy().tobytes() for image in made}) == 4


def test_an_erased_rectangle_has_the_mean_colour_in_batches_and_alone():
    augment = Augment(erasing_prob=1.0)
    together, alone = augment.images_transform(), augment.image_transform(SIDE)
    assert together is not None and alone is not None
    with seeded(0):
        images = [*together(NOISE[:4], [derive("erased", i) for i in range(4)]), alone(NOISE[4])]
    for image, before in zip(images, NOISE, strict=False):
        changed = (image != before).any(0)
        assert changed.any() and {tuple(colour) for colour in image[:, changed].T.tolist()} == {IMAGENET_MEAN_COLOUR}


def test_ranges_are_kept_and_defaults_do_nothing():
    assert Augment().images_transform() is None
    bright = torch.full((500, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    transform = Augment(shift=0.25, interpolation="nearest").images_transform()
    assert transform is not None
    columns = (transform(bright, [derive("shift", i) for i in range(500)])[:, 0] == 255).any(1).sum(1)
    assert columns.min() == SIDE - 8 and columns.max() == SIDE
