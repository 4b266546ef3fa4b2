import numpy as np
from sklearn.datasets import load_digits

from genaug.data.sources.digits import Digits


def test_splits_are_fixed_disjoint_and_complete():
    dataset = Digits(seed=0).read()
    sizes = {"train": len(dataset.train), "val": len(dataset.val), "test": len(dataset.test)}
    assert sizes == {"train": 809, "val": 269, "test": 719}
    assert len({s.id for part in (dataset.train, dataset.val, dataset.test) for s in part}) == 1797
    assert dataset.test[0].id == Digits(seed=5).read().test[0].id


def test_images_are_the_library_s_enlarged():
    dataset = Digits(seed=0).read()
    data = load_digits()
    sample = dataset.train[0]
    image = np.asarray(sample.open())
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    number = int(sample.id.split("/")[1])
    assert sample.label == {int(data.target[number]): 1.0}
    block = image[:, :, 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) / 255
    assert np.corrcoef(block.ravel(), data.images[number].ravel())[0, 1] > 0.97


def test_the_seed_is_identity_only_where_something_is_drawn():
    assert Digits(seed=0).identity() == Digits(seed=1).identity()
    for drawn in ({"shots": 2}, {"fraction": 0.5}):
        assert Digits(seed=0, **drawn).identity() != Digits(seed=1, **drawn).identity()


def test_masks_cover_the_ink_and_change_nothing_where_they_are_not_asked_for():
    plain, masked = Digits(name="digits", seed=0), Digits(name="digits", seed=0, masks=True)
    assert "masks" not in plain.identity()[0] and plain.identity() != masked.identity()
    assert all(sample.mask is None for sample in plain.load().train)
    for before, after in zip(plain.load().train, masked.load().train, strict=True):
        assert before.digest == after.digest and after.mask is not None
        grey = np.asarray(after.image)[:, :, 0]
        assert after.mask.any() and not after.mask.all()
        assert grey[after.mask].min() > grey[~after.mask].max()


def test_pictures_of_another_size_are_other_pictures():
    small, large = (Digits(name="digits", seed=0, image_size=size).read().train[0] for size in (32, 64))
    assert small.id == large.id and small.digest != large.digest
