"""Images are decoded once, exactly, and batches do not depend on workers or devices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.augmentation import Augment
from genaug.data.mixing import Replace, Stream
from genaug.data.sample import Sample
from genaug.downstream.classification import batches as images
from genaug.downstream.classification.batches import StreamBatches, class_weights, decode, resized, step_loader
from genaug.downstream.trainer import TrainerConfig


@pytest.fixture
def batches(digits, pool, tmp_path):
    def make(**options) -> StreamBatches:
        stream = Stream(Replace(alpha=0.5, m=2), digits.train, pool, seed=0)
        inputs = decode(stream.samples(), 32, "squash", tmp_path)
        transform = Augment(policy="randaugment", rotation=10).images_transform()
        return StreamBatches(stream, inputs, 10, batch_size=8, transform=transform, **options)

    return make


def test_decoding_keeps_every_pixel_and_each_sample_once(digits, tmp_path):
    inputs = decode([*digits.train, *digits.train], 32, "squash", tmp_path)
    assert inputs.values.shape == (20, 3, 32, 32)
    assert torch.equal(inputs.of([digits.train[3]])[0], torch.from_numpy(digits.train[3].image).permute(2, 0, 1))


def test_a_large_set_lies_in_a_file_that_leaves_nothing_behind(digits, tmp_path, monkeypatch):
    expected = decode(digits.train, 32, "squash", tmp_path).values
    monkeypatch.setattr(images, "MEMORY_LIMIT", 1000)
    values = decode(digits.train, 32, "squash", tmp_path).values
    assert isinstance(values, np.memmap)
    assert np.array_equal(values, expected)
    assert list(tmp_path.iterdir()) == []


def test_squash_is_the_bilinear_resize_of_the_whole_image_and_crop_that_of_its_central_square():
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    squashed = np.asarray(wide.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    centre = np.asarray(wide.crop((20, 0, 60, 40)).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(resized(wide, 16, "squash"), squashed)
    assert np.array_equal(resized(wide, 16, "crop"), centre)


def test_a_broken_file_is_named(tmp_path: Path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(GenaugError, match=r"broken\.png"):
        decode([Sample(id="a", digest="a", image=path, label={0: 1.0})], 32, "squash", tmp_path)


def test_labels_are_class_weights_hard_two_hot_and_soft_alike():
    labels = [{2: 1.0}, {0: 0.4, 1: 0.6}, {0: 0.2, 1: 0.3, 2: 0.5}]
    samples = [Sample(id=str(i), digest=str(i), image=Path("x"), label=label) for i, label in enumerate(labels)]
    weights = class_weights(samples, 3)
    torch.testing.assert_close(weights, torch.tensor([[0, 0, 1], [0.4, 0.6, 0], [0.2, 0.3, 0.5]]))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_batches_do_not_depend_on_workers_or_on_where_a_run_starts(batches):
    alone = list(step_loader(batches(), 0, 6, TrainerConfig(num_workers=0)))
    workers = list(step_loader(batches(), 0, 6, TrainerConfig(num_workers=2)))
    resumed = list(step_loader(batches(), 4, 6, TrainerConfig(num_workers=2)))
    assert len(alone) == len(workers) == 6
    for other, expected in ((workers, alone), (resumed, alone[4:])):
        for (pixels, weights), (expected_pixels, expected_weights) in zip(other, expected, strict=True):
            assert torch.equal(pixels, expected_pixels)
            assert torch.equal(weights, expected_weights)


def test_several_devices_share_out_the_very_batch_of_one(batches):
    whole, _ = batches()[3]
    shares = [batches(rank=rank, num_ranks=2)[3][0] for rank in (0, 1)]
    assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), whole)
