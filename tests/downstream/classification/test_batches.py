"""Images are decoded once, exactly, and batches do not depend on workers or devices."""

import resource
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.files import write_text
from genaug.core.store import Store
from genaug.data.augmentation import Augment
from genaug.data.mixing import Replace, Stream
from genaug.data.sample import Sample, SyntheticSample
from genaug.downstream import decoded
from genaug.downstream.classification.batches import StreamBatches, class_weights, decode, step_loader
from genaug.downstream.decoded import CHECKS, PIXELS, resized
from genaug.downstream.trainer import TrainerConfig


@pytest.fixture
def files(tmp_path):
    """Four pictures in files."""
    samples = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        samples.append(Sample(id=str(i), digest=f"file {i}", image=tmp_path / f"{i}.png", label={0: 1.0}))
    return samples


@pytest.fixture
def batches(digits, pool, tmp_path):
    def make(**options) -> StreamBatches:
        stream = Stream(Replace(alpha=0.5, m=2), digits.train, pool, seed=0)
        inputs = decode(stream.samples(), 32, "squash", Store(tmp_path))
        transform = Augment(policy="randaugment", rotation=10).images_transform()
        return StreamBatches(stream, inputs, 10, batch_size=8, transform=transform, **options)

    return make


def test_decoding_keeps_every_pixel_and_each_sample_once(digits, tmp_path):
    inputs = decode([*digits.train, *digits.train], 32, "squash", Store(tmp_path))
    assert inputs.values.shape == (20, 3, 32, 32)
    assert torch.equal(inputs.of([digits.train[3]])[0], torch.from_numpy(digits.train[3].image).permute(2, 0, 1))


def test_what_is_drawn_is_decoded_once_for_all_runs_and_what_is_not_drawn_never(files, tmp_path):
    store = Store(tmp_path / "store")
    first = decode(files, 16, "squash", store)
    expected = first.of(files[:3]).numpy()
    assert np.array_equal(expected[1], resized(files[1].open(), 16, "squash"))
    for sample in files:
        sample.image.unlink()  # a second decoding would fail
    again = decode(files[1::-1], 16, "squash", store)  # another set, another order
    assert np.array_equal(again.values[:], expected[1::-1])
    with pytest.raises(GenaugError, match=r"3\.png"):
        first.of(files[3:4])
    assert (tmp_path / "store/decoded/16-squash" / PIXELS).stat().st_size == 4 * 3 * 16 * 16


def test_a_set_that_grows_keeps_its_rows_and_another_size_has_its_own(files, tmp_path):
    store = Store(tmp_path / "store")
    small = decode(files[:2], 16, "squash", store)
    large = decode(files, 16, "squash", store)
    assert np.array_equal(large.values[:2], small.values[:])
    assert decode(files, 8, "squash", store).values[:].shape == (4, 3, 8, 8)
    assert np.array_equal(large.values[np.array([3, 0, 3])], large.values[:][[3, 0, 3]])


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:1],
        lambda lines: lines[::-1],
        lambda lines: [lines[0]] * 4,
        lambda lines: [bytes(range(128, 256)), *lines[1:]],
        lambda lines: [],
    ],
    ids=["cut", "reversed", "repeated", "binary", "empty"],
)
def test_no_picture_is_taken_for_another_if_the_list_of_them_is_damaged(files, tmp_path, damage):
    store = Store(tmp_path / "store")
    expected = decode(files[:3], 16, "squash", store).values[:]
    path = tmp_path / "store/decoded/16-squash/index.txt"
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    for _ in range(2):
        found = decode(files[::-1], 16, "squash", store).values
        assert np.array_equal(found[:], [*reversed([*expected, resized(files[3].open(), 16, "squash")])])


def test_two_that_add_pictures_at_once_both_keep_their_rows(files, tmp_path, monkeypatch):
    """The list is read, added to and written under a lock: else one of them would write over the other's rows."""
    store, waiting = Store(tmp_path / "store"), []

    def slow(path, text):
        if not waiting:
            waiting.append(threads.submit(decode, files[2:], 16, "squash", Store(tmp_path / "store")))
            wait(waiting, timeout=0.5)  # long enough for one that does not wait for us to end
        write_text(path, text)

    monkeypatch.setattr(decoded, "write_text", slow)
    with ThreadPoolExecutor() as threads:
        decode(files[:2], 16, "squash", store)
        waiting[0].result()
    assert len((tmp_path / "store/decoded/16-squash/index.txt").read_text().split()) == 4


def test_a_row_is_compared_with_its_checksum_when_it_is_first_read_alone(files, tmp_path, monkeypatch):
    inputs = decode(files, 16, "squash", Store(tmp_path / "store"))
    expected, compared, checksum = inputs.values[:], [], decoded._checksum
    monkeypatch.setattr(decoded, "_checksum", lambda pixels, key: compared.append(key) or checksum(pixels, key))
    assert np.array_equal(inputs.values[:], expected) and compared == []
    decode(files[:3], 16, "squash", Store(tmp_path / "store")).values[:]
    assert len(compared) == 3


def test_one_file_at_two_white_points_is_two_pictures(tmp_path):
    pixels = np.full((8, 8), 100, dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    for white in (255.0, 1000.0, 255.0):
        sample = Sample(id="0", digest="one", image=tmp_path / "deep.png", label={0: 1.0}, white=white)
        found = decode([sample], 8, "squash", Store(tmp_path / "store")).values[:]
        assert found.max() == pytest.approx(100 * 255 / white, abs=1)


def test_a_disk_that_is_full_is_an_error_and_ends_no_process(files, tmp_path):
    """Written through a memory map, pixels for which the disk has no room would end the process by SIGBUS."""
    inputs = decode(files, 16, "squash", Store(tmp_path / "store"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 16 * 16, limits[1]))  # room for the pixels of one picture
    try:
        first = inputs.values[:1]
        with pytest.raises(OSError, match="File too large"):
            inputs.values[1:2]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert np.array_equal(inputs.values[:1], first)
    assert np.array_equal(inputs.values[1:2][0], resized(files[1].open(), 16, "squash"))


@pytest.mark.parametrize("name", [PIXELS, CHECKS])
def test_a_row_that_is_not_whole_is_decoded_again(files, tmp_path, name):
    store = Store(tmp_path / "store")
    expected = decode(files, 16, "squash", store).values[:]
    path = tmp_path / "store/decoded/16-squash" / name
    content = bytearray(path.read_bytes())
    content[1] ^= 255
    path.write_bytes(content)
    assert np.array_equal(decode(files, 16, "squash", store).values[:], expected)
    path.unlink()
    assert np.array_equal(decode(files, 16, "squash", store).values[:], expected)


def test_a_synthetic_image_that_was_made_again_with_other_pixels_is_another_picture(tmp_path):
    store = Store(tmp_path / "store")

    def synthetic(value, pixels_hash):
        pixels = np.full((8, 8, 3), value, dtype=np.uint8)
        about = {"sha256": pixels_hash}
        return SyntheticSample(id="s", digest="same", image=pixels, source_id="x", index=0, about=about)

    for value in (10, 20):
        assert decode([synthetic(value, str(value))], 8, "squash", store).values[:].max() == value


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
        decode([Sample(id="a", digest="a", image=path, label={0: 1.0})], 32, "squash", Store(tmp_path)).values[:]


def test_labels_are_class_weights_hard_two_hot_and_soft_alike():
    labels = [{2: 1.0}, {0: 0.4, 1: 0.6}, {0: 0.2, 1: 0.3, 2: 0.5}]
    samples = [Sample(id=str(i), digest=str(i), image=Path("x"), label=label) for i, label in enumerate(labels)]
    weights = class_weights(samples, 3)
    torch.testing.assert_close(weights, torch.tensor([[0, 0, 1], [0.4, 0.6, 0], [0.2, 0.3, 0.5]]))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_batches_do_not_depend_on_workers_or_on_where_a_run_starts(batches):
    alone = list(step_loader(batches(), 0, 6, TrainerConfig()))
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
