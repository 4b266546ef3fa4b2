"""MNIST's idx files in their usual places, and what is wrong with damaged ones."""

import gzip
import struct

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.data.sources import mnist as module
from genaug.data.sources.mnist import IMAGES, LABELS, Mnist

COUNTS = {"train": 40, "t10k": 20}


def write_idx(folder, packed: bool, counts=COUNTS):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in counts.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, header, values in (
            (f"{prefix}-images-idx3-ubyte", struct.pack(">iiii", IMAGES, count, 28, 28), images),
            (f"{prefix}-labels-idx1-ubyte", struct.pack(">ii", LABELS, count), labels),
        ):
            data = header + values.tobytes()
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)


def mnist(root, **fields) -> Mnist:
    return Mnist(**{"name": "mnist", "root": str(root), "image_size": 32, "seed": 0, "val_fraction": 0.25, **fields})


def test_packed_plain_and_torchvision_layouts_are_one_data_set(tmp_path):
    write_idx(tmp_path / "packed", packed=True)
    write_idx(tmp_path / "plain", packed=False)
    write_idx(tmp_path / "torchvision" / "MNIST" / "raw", packed=False)
    sources = [mnist(tmp_path / name) for name in ("packed", "plain", "torchvision")]
    assert len({str(source.identity()) for source in sources}) == 1
    datasets = [source.load() for source in sources]
    assert len({dataset.train_identity() for dataset in datasets}) == 1
    assert [len(split) for split in (datasets[0].train, datasets[0].val, datasets[0].test)] == [30, 10, 20]


def test_padding_keeps_the_pixels_and_resizing_fills_the_image(tmp_path):
    write_idx(tmp_path, packed=True)
    padded, resized = (mnist(tmp_path, enlarge=way).load().test[0].image for way in ("pad", "resize"))
    assert padded.shape == resized.shape == (32, 32, 3)
    assert not padded[:2].any() and not padded[:, -2:].any() and padded[2:-2, 2:-2].any() and resized[:2].any()
    assert mnist(tmp_path, image_size=33).load().test[0].image.shape == (33, 33, 3)


def test_shots_are_drawn_by_seed(tmp_path):
    write_idx(tmp_path, packed=True)
    first, second = (mnist(tmp_path, shots=1, seed=seed).load() for seed in (0, 1))
    assert len(first.train) == 10 and {s.id for s in first.train} != {s.id for s in second.train}


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(GenaugError, match="holds no train-images-idx3-ubyte"):
        mnist(tmp_path).load()
    write_idx(tmp_path, packed=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    with pytest.raises(GenaugError, match=r"train-images.* cannot be read"):
        mnist(tmp_path).load()
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    with pytest.raises(GenaugError, match="header says"):
        mnist(tmp_path).load()
    images.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(GenaugError, match="begins with 2049 instead of 2051"):
        mnist(tmp_path).load()


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_would_unpack_to_more_than_any_set_holds_is_refused(tmp_path, monkeypatch, packed):
    write_idx(tmp_path, packed)
    monkeypatch.setattr(module, "MOST_BYTES", 16 + 40 * 28 * 28)
    mnist(tmp_path).load()
    monkeypatch.setattr(module, "MOST_BYTES", 16 + 40 * 28 * 28 - 1)
    module._read_idx.cache_clear()
    with pytest.raises(GenaugError, match=r"train-images.* cannot be read \(it holds more than 31375 bytes\)"):
        mnist(tmp_path).load()


def test_wrong_values_are_refused(tmp_path):
    with pytest.raises(GenaugError, match="enlarge=resize"):
        mnist(tmp_path, image_size=16)
    with pytest.raises(GenaugError, match="enlarge=stretch must be one of"):
        mnist(tmp_path, enlarge="stretch")


def test_the_whole_of_mnist(shared):
    dataset = mnist(shared("mnist"), val_fraction=1 / 12).load()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (54_999, 5_001, 10_000)
    # the classes of the test split, as published with the files
    counts = np.bincount([sample.class_index for sample in dataset.test])
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
