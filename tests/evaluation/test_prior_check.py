"""The prior check: what the shipped prior can draw is called so, what it cannot is said before results are believed."""

import json

import numpy as np
import pytest
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.evaluation.prior_check import LEVELS, NUMBERS, SHEET, check_prior, compare, source_identity, stored_check
from genaug.priors.config import PriorConfig


def prior_at(size):
    config = PriorConfig(name="tiny", image_size=size)
    return config, config.load("cpu")


def striped(count, size=64, boxes=False):
    """Fine stripes, which the shipped autoencoder blurs away."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        labelled = Boxes(
            xyxy=np.array([[4, 4, 30, 20]], dtype=np.float32), labels=np.array([i % 2]), crowd=np.array([False])
        )
        annotation = {"boxes": labelled} if boxes else {"label": {i % 2: 1.0}}
        samples.append(Sample(id=str(i), digest=f"{i:016d}", image=pixels, **annotation))
    task = "detection" if boxes else "classification"
    return Dataset(name="stripes", task=task, class_names=("a", "b"), train=tuple(samples), val=(), test=())


def test_digits_can_be_drawn(tmp_path):
    config, prior = prior_at(32)
    dataset = compose_typed(["dataset=digits"]).dataset.load()
    found = check_prior(prior, config, dataset, tmp_path, class_names=True)
    assert found.can_draw and "can draw" in found.sentence
    assert found.num_images == 16 and found.psnr_db > 20 and found.right > 0.7
    assert found.neighbour_db < found.psnr_db - 5
    assert json.loads((tmp_path / NUMBERS).read_text())["sentence"] == found.sentence
    with Image.open(tmp_path / SHEET) as sheet:
        assert sheet.width >= (2 + len(LEVELS)) * 64 and sheet.height >= 16 * 64


def test_a_blur_keeps_less_of_the_gradients_energy_and_noise_adds_some_that_is_wrong():
    pixels = np.random.default_rng(0).integers(60, 200, (32, 32, 3)).astype(np.uint8)
    original = Image.fromarray(pixels)
    blurred = original.resize((16, 16), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BILINEAR)
    other = Image.fromarray(np.random.default_rng(1).integers(60, 200, (32, 32, 3)).astype(np.uint8))
    _, kept, right = compare(original, blurred)
    assert kept < 0.2 and 0 < right < 0.4
    _, kept, right = compare(original, other)
    assert 0.8 < kept < 1.2 and right < -0.5
    assert compare(original, original)[1:] == (1.0, 1.0)


def test_photographs_cannot_be_drawn_at_64_pixels(tmp_path, shared):
    config, prior = prior_at(64)
    dataset = compose_typed(["dataset=image_folder", f"dataset.root={shared('custom_coco_256')}"]).dataset.load()
    found = check_prior(prior, config, dataset, tmp_path, class_names=True)
    assert not found.can_draw
    for word in (
        "cannot draw",
        "(the energy of their gradients; 60% would do)",
        "of it right (40% would do)",
        "nothing about the method",
        "prior=sd15",
        "GB of GPU memory",
        "H100",
    ):
        assert word in found.sentence


@pytest.mark.parametrize("boxes", [False, True])
def test_noise_cannot_be_drawn_with_labels_or_boxes(tmp_path, boxes):
    config, prior = prior_at(32)
    assert not check_prior(prior, config, striped(6, boxes=boxes), tmp_path, class_names=False).can_draw


def test_a_prior_whose_edges_are_wrong_cannot_draw(tmp_path):
    """Its pictures are full of edges, of which none is right."""
    config, prior = prior_at(32)
    dataset = compose_typed(["dataset=digits", "dataset.shots=2"]).dataset.load()
    decode = prior.decode
    prior.decode = lambda z: decode(z.flip(0).roll(2, -1)) * 3
    assert not check_prior(prior, config, dataset, tmp_path, class_names=True).can_draw


def test_images_without_any_edge_and_classes_of_one_image_are_no_fault(tmp_path):
    config, prior = prior_at(32)
    plain = [
        Sample(id=str(i), digest=f"{i:016d}", image=np.full((32, 32, 3), 60 * i, np.uint8), label={i: 1.0})
        for i in range(2)
    ]
    dataset = Dataset(name="plain", task="classification", class_names=("a", "b"), train=tuple(plain), val=(), test=())
    found = check_prior(prior, config, dataset, tmp_path, class_names=True)
    assert found.can_draw and found.neighbour_db is None and found.energy == 1


def test_a_data_set_is_checked_once_whatever_images_a_trial_draws(tmp_path):
    config, prior = prior_at(32)
    loads = []

    def load():
        loads.append(1)
        return prior

    trials = [compose_typed(["dataset=digits", "dataset.shots=2", f"seed={seed}"]).dataset for seed in (0, 1)]
    store = Store(tmp_path)
    found = [stored_check(store, config, source_identity(t), t.load(), load, True)[0] for t in trials]
    assert len(loads) == 1 and found[0] == found[1]
    other = PriorConfig(name="tiny", image_size=16)
    stored_check(store, other, source_identity(trials[0]), trials[0].load(), lambda: other.load("cpu"), True)
    assert len(list((tmp_path / "checks").iterdir())) == 2


def test_a_failure_is_a_sentence(tmp_path):
    config, _ = prior_at(32)
    dataset = compose_typed(["dataset=digits", "dataset.shots=2"]).dataset

    def load():
        raise RuntimeError("no memory left")

    with pytest.raises(GenaugError, match=r"was not checked \(no memory left\)"):
        stored_check(Store(tmp_path), config, source_identity(dataset), dataset.load(), load, True)
