"""Measures of a pool against the reference package and closed forms; the leak audit against planted copies."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample
from genaug.evaluation import features
from genaug.evaluation.features import features_of
from genaug.evaluation.leaks import audit, expected_share, perceptual_hash, threshold_of
from genaug.evaluation.quality import (
    edit_distances,
    fid,
    kid,
    linear_probe,
    macro_accuracy,
    measure,
    precision_recall_density_coverage,
)

NUM_CLASSES = 3


def picture(seed: int, label: int) -> np.ndarray:
    """Blocks of the class's brightness plus smooth structure of its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 120, size=(4, 4, 3)) + 50 * label
    return np.asarray(Image.fromarray(small.astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC))


def real(seed: int, label: int, split: str) -> Sample:
    return Sample(id=f"{split}/{seed}", digest=f"{split}{seed}", image=picture(seed, label), label={label: 1.0})


@pytest.fixture
def dataset() -> Dataset:
    splits = {
        split: tuple(real(start + i, i % NUM_CLASSES, split) for i in range(count))
        for split, start, count in (("train", 0, 18), ("val", 1000, 30), ("test", 2000, 30))
    }
    return Dataset(name="blocks", task="classification", class_names=("a", "b", "c"), **splits)


def pool_of(dataset: Dataset, images: list[np.ndarray], folder: Path) -> Pool:
    samples = []
    for i, image in enumerate(images):
        source = dataset.train[i % len(dataset.train)]
        about = {"source_id": source.id, "index": i // len(dataset.train)}
        sample = SyntheticSample(id=f"s/{i}", digest=f"s{i}", image=image, label=source.label, about={}, **about)
        samples.append(sample)
    return Pool(fingerprint="f" * 16, folder=folder, samples=tuple(samples))


def test_precision_recall_density_coverage_equal_the_reference_package() -> None:
    prdc = pytest.importorskip("prdc", reason="the reference package prdc is not installed")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(150, 8)), rng.normal(0.4, 1.2, size=(120, 8))
    expected = prdc.compute_prdc(a, b, nearest_k=5)
    for chunk in (7, 1024):
        assert precision_recall_density_coverage(a, b, 5, chunk) == pytest.approx(expected, abs=1e-12)


def test_frechet_distance_has_its_closed_form_for_shifted_and_scaled_gaussians() -> None:
    x = np.random.default_rng(1).normal(size=(4000, 3))
    shifted = fid(x, x + np.array([1.0, 2.0, 2.0]))
    assert shifted == pytest.approx(9.0, abs=1e-6)  # equal covariances: the squared shift alone
    assert fid(x, 2 * x - x.mean(axis=0)) == pytest.approx(np.trace(np.cov(x.T)), rel=1e-6)  # trace of (2 - 1)^2 C


def test_kernel_distance_is_unbiased_at_zero_and_grows_with_the_shift() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(600, 4)), rng.normal(size=(600, 4))
    (near, interval), (far, far_interval) = kid(a, b), kid(a, b + 1)
    assert abs(near) < 3 * (interval.high - interval.low)  # zero in expectation
    assert far > 10 * abs(near) and far_interval.low > interval.high
    assert kid(a, b) == (near, interval)  # no hidden randomness


def test_kernel_distance_is_the_mean_over_all_pairs_of_different_images() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(7, 3)), rng.normal(0.5, 1, size=(5, 3))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    def within(x: np.ndarray) -> float:
        return float(np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]))

    by_hand = within(a) + within(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    for chunk in (2, 1024):
        assert kid(a, b, chunk=chunk)[0] == pytest.approx(by_hand, rel=1e-12)


def test_an_image_that_is_drawn_twice_is_not_paired_with_itself() -> None:
    """Two images alone: of each draw with both of them one pair is left, whatever the weights."""
    a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    estimate, interval = kid(a, np.repeat(b[:1], 3, axis=0), num_resamples=200)
    within_a, within_b = 1.0, (b[0] @ b[0] / 2 + 1) ** 3
    across = [(x @ b[0] / 2 + 1) ** 3 for x in a]
    assert estimate == pytest.approx(within_a + within_b - 2 * np.mean(across))
    assert interval.low == interval.high == pytest.approx(estimate)  # a draw of one image twice has no pair


def test_kernel_distance_has_an_interval_that_covers_it_also_of_few_images() -> None:
    rng = np.random.default_rng(4)
    truth, _ = kid(rng.normal(size=(3000, 4)), rng.normal(0.6, 1, size=(3000, 4)), num_resamples=1)
    intervals = [kid(rng.normal(size=(60, 4)), rng.normal(0.6, 1, size=(60, 4)), 300)[1] for _ in range(100)]
    covered = sum(interval.low <= truth <= interval.high for interval in intervals)
    assert 85 <= covered <= 100  # 95 of 100 in the long run; fewer than 85 once in 10,000 times


def test_edit_distance_is_zero_for_copies_and_one_for_orthogonal_features(dataset: Dataset, tmp_path: Path) -> None:
    pool = pool_of(dataset, [np.zeros((8, 8, 3), np.uint8)] * (2 * len(dataset.train)), tmp_path)
    sources = {sample.id: np.array([1.0, 0.0]) for sample in dataset.train}
    rows = np.array([[3.0, 0.0]] * len(dataset.train) + [[0.0, 2.0]] * len(dataset.train))
    to_source, within = edit_distances(pool, sources, rows)
    assert to_source == pytest.approx([0.0] * 18 + [1.0] * 18)
    assert within == pytest.approx([1.0] * 18)


def test_the_probe_separates_what_is_separable_and_macro_accuracy_weighs_classes_alike() -> None:
    x = np.concatenate([np.random.default_rng(3).normal(c * 4, 0.3, size=(20, 2)) for c in range(3)])
    y = np.repeat([0, 1, 2], 20)
    assert macro_accuracy(linear_probe(x, y.tolist(), x), y) == 1.0
    assert macro_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == pytest.approx(0.5)


def test_features_are_computed_once_per_image(dataset: Dataset, tmp_path: Path) -> None:
    first = features_of(dataset.train, "pixels", tmp_path)
    blind = [
        Sample(id=s.id, digest=s.digest, image=np.zeros((8, 8, 3), np.uint8), label=s.label) for s in dataset.train
    ]
    assert np.array_equal(features_of(blind, "pixels", tmp_path), first)  # answered by digest
    with pytest.raises(GenaugError, match="no backbone resnet5O in timm"):
        features_of(dataset.val, "resnet5O", tmp_path)


def test_two_that_add_features_at_once_lose_no_row(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, both_encode = features.encode, threading.Barrier(2, timeout=10)

    def encode_together(*args: object) -> np.ndarray:
        both_encode.wait()  # neither has seen the other's rows
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "encode", encode_together)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda samples: features_of(samples, "pixels", tmp_path), (dataset.train, dataset.test)))
    monkeypatch.delattr(features, "encode")  # all rows are in the store
    both = features_of([*dataset.train, *dataset.test], "pixels", tmp_path)
    assert np.array_equal(both, encode([*dataset.train, *dataset.test], "pixels"))
    (folder,) = (tmp_path / "features").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["index.txt", "rows.f4"]


def test_a_row_of_features_that_is_not_whole_is_made_again_and_costs_no_other(dataset: Dataset, tmp_path: Path) -> None:
    """A process that is killed leaves rows without lines; a disk loses bytes anywhere."""
    samples = dataset.train[:6]
    expected = features_of(samples, "pixels", tmp_path)
    (rows,) = tmp_path.glob("features/*/rows.f4")
    index, whole = rows.with_name("index.txt"), rows.read_bytes()
    size = len(whole) // len(samples)
    blind = [Sample(id=s.id, digest=s.digest, image=np.zeros((8, 8, 3), np.uint8), label=s.label) for s in samples]

    def answered() -> list[bool]:
        return [
            np.array_equal(row, wanted)
            for row, wanted in zip(features_of(blind, "pixels", tmp_path), expected, strict=True)
        ]

    for left in (whole + b"half a row", whole + whole):
        rows.write_bytes(left)
        assert all(answered())
    rows.write_bytes(whole + b"half a row")
    (added,) = features_of(dataset.test[:1], "pixels", tmp_path)
    assert len(rows.read_bytes()) == len(whole) + size and np.array_equal(
        added, features.encode(dataset.test[:1], "pixels")[0]
    )
    rows.write_bytes(whole[:size] + b"?" + whole[size + 1 : -1])  # the second is another now, the last is short
    assert answered() == [True, False, True, True, True, False]
    assert np.array_equal(features_of(blind, "pixels", tmp_path)[1], np.zeros(size // 4))  # as it was made again
    for content in ("", "?\n", index.read_text()[:-3], "7\n"):
        rows.write_bytes(whole)
        index.write_text(content)
        features_of(samples, "pixels", tmp_path)
        assert np.array_equal(features_of(samples, "pixels", tmp_path), expected)


def test_rows_of_another_length_take_the_place_of_all_before(tmp_path: Path) -> None:
    """As where a newer library's network has other features."""
    kept = features.KeptRows(Store(tmp_path), "net")
    kept.add({"a": np.ones(3), "b": np.ones(3)})
    kept.add({"c": np.full(4, 2.0)})
    found = kept.find(["a", "b", "c"])
    assert list(found) == ["c"] and found["c"].tolist() == [2.0] * 4


def test_a_network_with_random_weights_is_the_same_in_every_process_and_batch(dataset: Dataset) -> None:
    import torch

    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        rows.append(features.encode(dataset.train[:4], "random:test_resnet"))
    assert np.array_equal(*rows)
    assert features.encode(dataset.train[:1], "random:test_resnet") == pytest.approx(rows[0][:1], abs=1e-5)


def test_good_variants_score_better_than_noise(dataset: Dataset, tmp_path: Path) -> None:
    good = [picture(5000 + i, i % NUM_CLASSES) for i in range(36)]
    noise = [np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8) for i in range(36)]
    results = {}
    for name, images in (("good", good), ("noise", noise)):
        found = measure(pool_of(dataset, images, tmp_path), dataset, Store(tmp_path / name), "pixels")
        results[name] = {key: value["value"] for key, value in found["measures"].items()}
    for key in ("kid", "fid"):
        assert results["good"][key] < results["noise"][key]
    # not precision: in features as plain as pixels, noise lies in the midst of 30 real images
    for key in ("recall", "coverage", "label agreement", "synthetic to real"):
        assert results["good"][key] > results["noise"][key]


def test_the_hash_survives_scaling_and_tells_pictures_apart() -> None:
    image = Image.fromarray(picture(1, 1))
    assert (perceptual_hash(image) != perceptual_hash(image.resize((80, 80)))).sum() <= 4
    assert (perceptual_hash(image) != perceptual_hash(Image.fromarray(picture(2, 1)))).sum() > 10


def test_planted_copies_of_test_and_training_images_are_found(dataset: Dataset, tmp_path: Path) -> None:
    images = [picture(7000 + i, i % NUM_CLASSES) for i in range(36)]
    clean = audit(pool_of(dataset, images, tmp_path), dataset, Store(tmp_path / "s1"), "pixels", tmp_path / "clean")
    planted = [*images[:33], *(np.asarray(s.image) for s in (dataset.test[0], dataset.test[1], dataset.train[2]))]
    dirty = audit(pool_of(dataset, planted, tmp_path), dataset, Store(tmp_path / "s2"), "pixels", tmp_path / "dirty")
    assert dirty["near_duplicates"] == {"train": 1, "test": 2, "train to test": 0}
    assert clean["near_duplicates"] == {"train": 0, "test": 0, "train to test": 0}
    assert dirty["unusual_share"] > clean["unusual_share"]
    assert {pair["real"]["id"] for pair in dirty["pairs"][:2]} == {dataset.test[0].id, dataset.test[1].id}
    assert all(
        (tmp_path / "dirty" / pair[side]["file"]).exists() for pair in dirty["pairs"] for side in ("synthetic", "real")
    )


def test_lpips_is_that_of_the_network_and_zero_for_copies(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torchvision.models import AlexNet_Weights, alexnet

    torch.manual_seed(0)
    state = alexnet().state_dict()  # random, where the published weights would be downloaded
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", lambda self, *args, **kwargs: state)
    copies = [np.asarray(sample.image) for sample in dataset.train]
    changed = [255 - image for image in copies]
    found = measure(pool_of(dataset, [*copies, *changed], tmp_path), dataset, Store(tmp_path), "pixels", lpips=True)
    assert found["measures"]["LPIPS to source"]["low"] == pytest.approx(0, abs=1e-6)
    assert found["measures"]["LPIPS to source"]["high"] > 0.01
    assert found["measures"]["LPIPS within source"]["low"] > 0.01  # each copy beside its negative


def test_without_its_weights_lpips_says_what_to_do(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import AlexNet_Weights

    def absent(self: AlexNet_Weights, *args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", absent)
    pool = pool_of(dataset, [np.asarray(sample.image) for sample in dataset.train], tmp_path)
    with pytest.raises(GenaugError, match=r"weights of LPIPS .* without --lpips"):
        measure(pool, dataset, Store(tmp_path), "pixels", lpips=True)
    assert "LPIPS to source" not in measure(pool, dataset, Store(tmp_path), "pixels")["measures"]


@pytest.mark.parametrize(("n", "closed_form"), [(10, 1 / 11), (40, 1 / 41), (100, 1 / 101), (1000, 10 / 1001)])
def test_the_share_expected_without_a_leak_counts_the_reference_images(n: int, closed_form: float) -> None:
    assert expected_share(n) == pytest.approx(closed_form)
    rng = np.random.default_rng(0)
    draws = [(threshold_of(rng.normal(size=n)), rng.normal(size=500)) for _ in range(2000)]
    share = np.mean([(fresh > threshold).mean() for threshold, fresh in draws])
    assert share == pytest.approx(closed_form, rel=0.1)  # standard error about 2 % with 2,000 draws


def test_quality_reads_the_validation_split_alone_and_says_when_it_had_to_read_the_test(
    dataset: Dataset, tmp_path: Path
) -> None:
    pool = pool_of(dataset, [picture(5000 + i, i % NUM_CLASSES) for i in range(18)], tmp_path)
    found = measure(pool, dataset, Store(tmp_path), "pixels")
    without_test = measure(pool, dataclasses.replace(dataset, test=()), Store(tmp_path), "pixels")
    assert found == without_test and found["real_split"] == "val" and found["num_real"] == 30
    assert measure(pool, dataclasses.replace(dataset, val=()), Store(tmp_path), "pixels")["real_split"] == "test"
