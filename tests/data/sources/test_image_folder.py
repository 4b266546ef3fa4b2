import os

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.sources.image_folder import ImageFolder


def write(root, classes=("cat", "tv_remote"), count=8, split=""):
    rng = np.random.default_rng(0)
    for name in classes:
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return root


def source(root, **kwargs):
    return ImageFolder(root=str(root), seed=0, image_size=16, name="mine", **kwargs)


def test_without_split_folders_every_class_is_split_by_seed(tmp_path):
    dataset = source(write(tmp_path)).read()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (10, 2, 4)
    assert dataset.class_names == ("cat", "tv remote")
    again = source(tmp_path).read()
    assert [s.id for s in again.test] == [s.id for s in dataset.test]
    other = source(tmp_path, split_seed=1).read()
    assert [s.id for s in other.test] != [s.id for s in dataset.test]


def test_split_folders_are_used_and_val_is_carved_from_train(tmp_path):
    write(tmp_path, split="train-val")
    rng = np.random.default_rng(1)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(tmp_path / "test" / "cat" / "x.png")
    dataset = source(tmp_path).load()
    assert [s.id for s in dataset.test] == ["test/cat/x.png"]
    assert len(dataset.val) == 4 and len(dataset.train) == 12


def test_exif_rotation_palette_grey_and_transparency_become_upright_rgb(tmp_path):
    write(tmp_path)
    tall = Image.new("RGB", (20, 10), "red")
    exif = tall.getexif()
    exif[0x0112] = 6  # rotate by a quarter turn
    tall.save(tmp_path / "cat" / "exif.jpg", exif=exif)
    Image.new("P", (10, 10), 3).save(tmp_path / "cat" / "palette.png")
    Image.fromarray(np.full((10, 10), 40000, dtype=np.uint16)).save(tmp_path / "cat" / "grey16.png")
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "cat" / "clear.png")
    dataset = source(tmp_path).read()
    images = {s.id: s.open() for part in (dataset.train, dataset.val, dataset.test) for s in part}
    assert all(image.mode == "RGB" for image in images.values())
    assert images["cat/exif.jpg"].size == (10, 20)
    assert np.asarray(images["cat/clear.png"]).min() == 255
    assert abs(int(np.asarray(images["cat/grey16.png"])[0, 0, 0]) - round(40000 / 65535 * 255)) <= 1


def test_class_folders_that_read_as_one_name_are_refused(tmp_path):
    write(tmp_path, classes=("cat", "dog a", "dog_a"))
    with pytest.raises(GenaugError, match=r"class 1 \(e\.g\. dog a/.*class 2 \(e\.g\. dog_a/.*both called 'dog a'"):
        source(tmp_path).load()


def test_identity_follows_content_not_place(tmp_path):
    first = source(write(tmp_path / "a"))
    second = source(write(tmp_path / "b"))
    assert first.identity() == second.identity()
    Image.new("RGB", (12, 10)).save(tmp_path / "b" / "cat" / "00.png")
    assert first.identity() != second.identity()
    before = first.identity()
    (tmp_path / "a" / "cat").rename(tmp_path / "a" / "car")
    assert first.identity() != before


def test_a_corrupt_image_is_named_and_can_be_skipped(tmp_path):
    write(tmp_path)
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"\xff\xd8not a picture")
    with pytest.raises(GenaugError, match=r"cat/broken\.jpg.*skip_corrupt=true"):
        source(tmp_path).read()
    dataset = source(tmp_path, skip_corrupt=True).read()
    assert dataset.notes == {"corrupt_images_skipped": 1}


def test_a_folder_without_images_or_classes_is_explained(tmp_path):
    with pytest.raises(GenaugError, match="0 image"):
        source(tmp_path).read()
    with pytest.raises(GenaugError, match="not a folder"):
        source(tmp_path / "absent").read()
    (tmp_path / "labels.json").touch()
    with pytest.raises(GenaugError, match=rf"labels\.json is a file: write the folder that it lies in, {tmp_path}\."):
        source(tmp_path / "labels.json").read()


def test_too_many_shots_name_the_class_and_the_most_that_would_do(tmp_path):
    with pytest.raises(GenaugError, match=r"class 'cat'.*dataset\.shots=5"):
        source(write(tmp_path), shots=6).load()


def test_a_copy_of_a_test_image_in_train_is_refused(tmp_path):
    write(tmp_path, split="train")
    write(tmp_path, split="test", classes=("cat",), count=1)
    with pytest.raises(GenaugError, match=r"also in train, e\.g\. test/cat/00\.png is train/cat/00\.png"):
        source(tmp_path).load()
    for seed in range(4):  # whatever the few-shot draw takes
        with pytest.raises(GenaugError, match="also in train"):
            ImageFolder(root=str(tmp_path), seed=seed, shots=1, image_size=16).load()


def test_a_copy_of_a_validation_image_in_test_is_refused(tmp_path):
    write(tmp_path, split="train")
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8))
    for name in ("val/cat/a.png", "test/cat/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        image.save(tmp_path / name)
    with pytest.raises(GenaugError, match=r"test split are also in val, e\.g\. test/cat/b\.png is val/cat/a\.png"):
        source(tmp_path).load()


def test_hidden_files_and_folders_are_no_data(tmp_path):
    write(tmp_path / ".home" / "set")  # hidden above the root: no matter
    identity = source(tmp_path / ".home" / "set").identity()
    write(tmp_path / ".home" / "set", classes=(".ipynb_checkpoints", "cat/.thumbnails"), count=2)
    dataset = source(tmp_path / ".home" / "set").load()
    assert dataset.class_names == ("cat", "tv remote")
    assert not any(".thumbnails" in sample.id for sample in (*dataset.train, *dataset.val, *dataset.test))
    assert source(tmp_path / ".home" / "set").identity() == identity


@pytest.mark.parametrize(
    ("mode", "pixels"),
    [
        ("I;16", np.linspace(0, 65535, 96, dtype="<u2")),
        ("I;16B", np.linspace(0, 65535, 96, dtype=">u2")),
        ("F", np.linspace(0, 1, 96, dtype=np.float32)),
        ("F", np.linspace(0, 255, 96, dtype=np.float32)),
    ],
)
def test_grey_images_of_more_than_8_bits_keep_their_levels(tmp_path, mode, pixels):
    write(tmp_path)
    height, width = 8, 12
    image = Image.frombytes(mode, (width, height), pixels.tobytes())
    image.save(tmp_path / "cat" / "deep.tif")
    with Image.open(tmp_path / "cat" / "deep.tif") as file:
        assert file.mode == mode
    dataset = source(tmp_path).read()
    sample = next(s for part in (dataset.train, dataset.val, dataset.test) for s in part if s.id == "cat/deep.tif")
    grey = np.asarray(sample.open())[..., 0].reshape(-1).astype(int)
    assert abs(grey - np.linspace(0, 255, 96)).max() <= 1  # rounding to 8 bits


@pytest.mark.parametrize("pixels", [[-1.0, 0.5], [0.0, 1e6], [0.0, float("nan")]])
def test_floats_without_a_known_white_are_refused(tmp_path, pixels):
    write(tmp_path)
    values = np.resize(np.asarray(pixels, dtype=np.float32), (8, 8))
    Image.fromarray(values).save(tmp_path / "cat" / "deep.tif")
    with pytest.raises(GenaugError, match=r"cat/deep\.tif.*as floats, 0 to 1"):
        source(tmp_path).read()


def test_the_order_of_a_directory_listing_does_not_matter(tmp_path, monkeypatch):
    dataset = source(write(tmp_path)).read()
    scandir = os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

    monkeypatch.setattr(os, "scandir", lambda path: Reversed(reversed(list(scandir(path)))))
    assert [s.id for s in source(tmp_path).read().test] == [s.id for s in dataset.test]


def test_real_photographs_are_read(shared):
    dataset = source(shared("custom_coco_256"), shots=4).load()
    assert len(dataset.class_names) == 23 and len(dataset.train) == 92 and len(dataset.test) == 366
    assert "potted plant" in dataset.class_names
