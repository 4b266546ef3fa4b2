"""The plain torch classes, used in plain torch loops."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.mixed import FixedShareBatches, MixedDataset
from genaug.data.sample import Dataset, SyntheticSample
from genaug.generators.publishing import make_pool
from tests.data.test_export import classes, pool_of, sample, scenes
from tests.generators.test_publishing import Noise


def everything(tmp_path, m=3):
    dataset = classes()
    generator = Noise(name="noise", seed=0)
    return dataset, make_pool(
        Store(tmp_path), generator, dataset, None, "fitted", lambda: None, m, say=lambda text: None
    )


def generated(images, epochs=200):
    """Share of generated images over epochs."""
    count = 0
    for epoch in range(epochs):
        images.set_epoch(epoch)
        count += sum(isinstance(images.sample(i), SyntheticSample) for i in range(len(images)))
    return count / (epochs * len(images))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_is_the_share_of_generated_images(tmp_path, alpha):
    images = MixedDataset(*everything(tmp_path), alpha=alpha)
    assert generated(images) == pytest.approx(alpha, abs=0.04) and len(images) == 6


def test_a_real_image_gives_way_to_its_own_first_m_variants_only(tmp_path):
    real, pool = everything(tmp_path)
    images = MixedDataset(real, pool, alpha=1.0, m=2)
    seen = set()
    for epoch in range(50):
        images.set_epoch(epoch)
        for i in range(len(images)):
            drawn = images.sample(i)
            assert drawn.source_id == real.train[i].id
            seen.add((i, drawn.index))
    assert seen == {(i, j) for i in range(6) for j in (0, 1)}


def test_an_image_depends_on_seed_epoch_and_index_alone(tmp_path):
    real, pool = everything(tmp_path)
    first, second, other = (MixedDataset(real, pool, seed=seed) for seed in (0, 0, 1))
    orders = [[images.sample(i).digest for i in order] for images, order in ((first, range(6)), (second, range(6)))]
    assert orders[0] == orders[1]
    differ = 0
    for epoch in range(10):
        for images in (first, other):
            images.set_epoch(epoch)
        differ += sum(
            isinstance(first.sample(i), SyntheticSample) != isinstance(other.sample(i), SyntheticSample)
            for i in range(6)
        )
    assert differ > 0
    assert first.sample(-1) is first.sample(5)


def test_a_rejected_image_is_never_drawn(tmp_path):
    dataset = classes()
    pool = pool_of(tmp_path, dataset)  # every second variant is rejected
    images = MixedDataset(dataset, pool, alpha=None)
    assert images.num_generated == 6 and len(images) == 12
    assert {images.sample(i).id for i in range(12)} == {s.id for s in (*dataset.train, *pool.samples)}
    assert images.sample(-1) is images.sample(11)


def test_a_classifier_trains_in_a_plain_loop(tmp_path):
    torch.manual_seed(0)
    images = MixedDataset(*everything(tmp_path), alpha=0.5, soft=True)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    losses = []
    for epoch in range(20):
        images.set_epoch(epoch)
        for pictures, weights in DataLoader(images, batch_size=6, shuffle=True):
            loss = torch.nn.functional.cross_entropy(network(pictures), weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert pictures.shape == (6, 3, 8, 8) and weights.shape == (6, 2) and losses[-1] < losses[0] / 2


def test_boxes_are_targets_that_a_detector_of_torchvision_takes(tmp_path):
    dataset = scenes()
    pool = pool_of(tmp_path, dataset)
    images = MixedDataset(dataset, pool, alpha=1.0, first_label=1)
    for i in range(len(images)):
        picture, target = images[i]
        assert isinstance(images.sample(i), SyntheticSample) and picture.shape == (3, 8, 8)
        assert (
            target["boxes"].tolist() == (dataset.train[i].boxes.xyxy + 1).tolist()
        )  # the pool moves boxes by one pixel
        assert set(target["labels"].tolist()) <= {1, 2} and target["labels"].dtype == torch.int64

    def flipped(image, target):
        return np.asarray(image)[:, ::-1], target

    turned, _ = MixedDataset(dataset, pool, alpha=0.0, transforms=flipped)[0]
    assert (turned == np.asarray(dataset.train[0].open())[:, ::-1]).all()


def test_every_batch_has_its_share_of_real_images_and_all_images_are_shown(tmp_path):
    images = MixedDataset(*everything(tmp_path), alpha=None)
    batches = FixedShareBatches(images.num_real, images.num_generated, batch_size=4, real_share=0.25)
    shown: Counter[int] = Counter()
    for epoch in range(3):
        batches.set_epoch(epoch)
        for pictures, labels in DataLoader(images, batch_sampler=batches):
            assert pictures.shape == (4, 3, 8, 8) and labels.shape == (4,)
        for batch in batches:
            assert sum(index < 6 for index in batch) == 1
            shown.update(batch)
    assert set(shown) == set(range(24)) and all(shown[i] == 3 for i in range(6))
    assert {shown[i] for i in range(6, 24)} == {3}  # 3 epochs x 6 batches x 3 of 18 generated images


def test_fewer_real_images_than_a_batch_needs_come_again_in_it():
    batches = FixedShareBatches(num_real=3, num_generated=2, batch_size=8, real_share=0.5)
    shown: Counter[int] = Counter()
    for epoch in range(6):
        batches.set_epoch(epoch)
        (batch,) = batches
        assert len(batch) == 8 and sum(index < 3 for index in batch) == 4 and set(batch) == set(range(5))
        shown.update(batch)
    assert {shown[i] for i in range(3)} == {8} and {shown[i] for i in (3, 4)} == {12}


def test_an_interrupted_epoch_goes_on_with_the_batches_that_were_not_shown():
    whole, rest = (FixedShareBatches(17, 30, batch_size=6, real_share=1 / 3, seed=5) for _ in range(2))
    whole.set_epoch(2)
    rest.set_epoch(2, first_batch=3)
    assert len(whole) == 8 and len(rest) == 5 and list(rest) == list(whole)[3:]
    rest.set_epoch(3)
    assert len(rest) == 8 and next(iter(rest)) != next(iter(whole))
    other = FixedShareBatches(17, 30, batch_size=6, real_share=1 / 3, seed=6)
    (*first, _), (*second, _) = (
        [batch[2:] for batch in batches] for batches in (FixedShareBatches(17, 30, 6, 1 / 3, 5), other)
    )
    assert first != second  # the generated ones


def test_workers_that_live_on_draw_the_variants_of_the_next_epoch_too(tmp_path):
    images = MixedDataset(*everything(tmp_path, m=5), alpha=1.0)
    loader = DataLoader(images, batch_size=6, num_workers=2, persistent_workers=True)
    drawn = []
    for epoch in range(3):
        images.set_epoch(epoch)
        ((pictures, _),) = loader
        assert torch.equal(pictures, torch.stack([images[i][0] for i in range(6)]))
        drawn.append(pictures)
    assert not torch.equal(drawn[0], drawn[1])


def test_images_of_all_sizes_become_one_size_and_their_boxes_follow(tmp_path):
    scene = scenes()
    wide = tuple(replace(s, image=np.tile(s.image, (1, 2, 1))) for s in scene.train)
    dataset = replace(scene, train=(*scene.train, *wide))
    images = MixedDataset(dataset, None, image_size=24)
    for i, real in enumerate(dataset.train):
        picture, target = images[i]
        assert picture.shape == (3, 24, 24)
        scale = [24 / real.open().width, 24 / real.open().height] * 2
        assert np.allclose(target["boxes"], real.boxes.xyxy * scale) and target["boxes"].dtype == torch.float32
    labelled, _ = everything(tmp_path / "other")
    assert MixedDataset(labelled, None, image_size=5)[-1][0].shape == (3, 5, 5)


def test_shares_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(GenaugError, match="real_share=0"):
        FixedShareBatches(6, 6, 4, 0)
    with pytest.raises(GenaugError, match="batch_size=0"):
        FixedShareBatches(6, 6, 0)
    with pytest.raises(GenaugError, match="no real image"):
        FixedShareBatches(0, 6, 4)
    with pytest.raises(GenaugError, match="no generated image"):
        FixedShareBatches(6, 0, 4, 0.5)
    assert all(len(batch) == 4 for batch in FixedShareBatches(6, 0, 4, real_share=1))
    assert FixedShareBatches(6, 6, 4, real_share=0.01).real_per_batch == 1
    with pytest.raises(GenaugError, match="alpha=2"):
        MixedDataset(*everything(tmp_path), alpha=2)
    with pytest.raises(GenaugError, match=r"m=0 must be 1 or more.*None for the pool"):
        MixedDataset(*everything(tmp_path), m=0)
    with pytest.raises(GenaugError, match="image_size=0"):
        MixedDataset(*everything(tmp_path), image_size=0)
    _, pool = everything(tmp_path)
    other = Dataset(name="o", task="classification", class_names=("a",), train=(sample("x", 0),), val=(), test=())
    with pytest.raises(GenaugError, match="belongs to these real images"):
        MixedDataset(other, pool)


def test_an_own_transform_gets_the_picture(tmp_path):
    images = MixedDataset(*everything(tmp_path), alpha=0.0, transform=lambda image: image.size)
    assert isinstance(images.sample(0).open(), Image.Image) and images[0] == ((8, 8), 0)
