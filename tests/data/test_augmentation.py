"""Classic augmentation: seeded per image, labels stay distributions, and nothing asked for is left out in silence."""

from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.augmentation import Augment, seeded

CONF = Path(__file__).parents[2] / "conf" / "augment"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))
IMAGE = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def preset(name: str) -> Augment:
    return compose_typed([f"augment={name}"]).augment


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_keeps_size_and_type_and_depends_on_its_seed_alone(name: str):
    transform = preset(name).image_transform(32)
    if transform is None:
        assert name in ("none", "mixup", "cutmix", "manifold_mixup")  # those change whole batches, not images
        return
    outputs = []
    for seed in (1, 2, 3, 1):
        torch.rand(seed)  # what was drawn before must not matter
        with seeded(seed):
            outputs.append(transform(IMAGE))
    assert all(output.shape == IMAGE.shape and output.dtype == torch.uint8 for output in outputs)
    assert torch.equal(outputs[0], outputs[3])
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:3])


def test_the_classic_augmentations_are_there():
    assert {"none", "flip_crop", "randaugment", "trivialaugment", "mixup", "cutmix", "random_erasing"} <= set(PRESETS)


def test_seeded_restores_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_defaults_do_nothing():
    assert Augment().image_transform(32) is None
    assert Augment().batch_transform() is None
    assert Augment(mixup_alpha=1.0, mix_prob=0.0).batch_transform() is None


def test_rotation_is_uniform_within_its_range_about_the_centre():
    with seeded(3):
        ours = Augment(rotation=15.0, interpolation="nearest").image_transform(32)(IMAGE)
    with seeded(3):
        angle = float(torch.empty(1).uniform_(-15, 15))
    reference = v2.functional.rotate(IMAGE, -angle)  # an affine angle turns clockwise, a rotation the other way
    assert (ours == reference).float().mean() > 0.99  # the two formulas round differently at a few pixel borders


def test_mixup_keeps_labels_distributions_and_mixes_images_by_the_same_share():
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 8, 8)[:, :3].contiguous()
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.3, 0.7], [0.5, 0.5, 0]])
    with seeded(0):
        mixed, labels = Augment(mixup_alpha=1.0).batch_transform()(images, weights)
    share = mixed[0, 0, 0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0))
    torch.testing.assert_close(labels, share * weights + (1 - share) * weights.roll(1, 0))
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))


def test_cutmix_gives_each_class_the_share_of_its_area():
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    with seeded(2):
        mixed, labels = Augment(cutmix_alpha=1.0).batch_transform()(images, torch.eye(2))
    area = mixed[0].mean()
    assert 0 < area < 1
    torch.testing.assert_close(labels[0], torch.stack([1 - area, area]))


def test_mix_prob_is_the_share_of_mixed_batches():
    mix = Augment(mixup_alpha=1.0, cutmix_alpha=1.0, mix_prob=0.3).batch_transform()
    images, weights = torch.rand(2, 3, 4, 4), torch.eye(2)
    mixed = 0
    for seed in range(500):
        with seeded(seed):
            mixed += not torch.equal(mix(images, weights)[0], images)
    assert 0.22 < mixed / 500 < 0.38  # 4 standard deviations: 0.02 each


def test_boxes_move_with_the_image():
    image = tv_tensors.Image(IMAGE)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 8, 16]], format="XYXY", canvas_size=(32, 32))  # type: ignore[call-arg]
    _, flipped = Augment(horizontal_flip_prob=1.0).image_transform(32)(image, boxes)
    assert flipped.tolist() == [[24, 0, 32, 16]]


@pytest.mark.parametrize(
    "fields", [{"policy": "randaugment"}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.2}, {"manifold_alpha": 2.0}]
)
def test_what_detection_cannot_do_is_refused(fields: dict):
    with pytest.raises(GenaugError, match=f"augment.{next(iter(fields))}"):
        Augment(**fields).check("detection")
    Augment(**fields).check("classification")


@pytest.mark.parametrize(
    "fields",
    [
        {"policy": "autoaugment"},
        {"horizontal_flip_prob": 1.5},
        {"crop_min_area": 0.0},
        {"rotation": 200.0},
        {"zoom": 1.0},
        {"randaugment_magnitude": 31},
        {"cutmix_alpha": -1.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(fields: dict):
    key, value = next(iter(fields.items()))
    with pytest.raises(GenaugError, match=f"augment.{key}={value}"):
        Augment(**fields)
