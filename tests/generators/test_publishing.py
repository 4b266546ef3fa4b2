import json
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.identity import DRAWN, canonical_text, digest_bytes, fingerprint, identified
from genaug.core.seeding import choice, derive
from genaug.core.store import Store
from genaug.data.pool import read_pool
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.generators.base import Generated, Generator
from genaug.generators.publishing import make_pool


@identified("generator/noise")
@dataclass(kw_only=True, slots=True)
class Noise(Generator):
    """A complete generator without a prior: the source plus noise of strength t0."""

    levels: Any = field(default_factory=lambda: [0.5], metadata=DRAWN)
    uses_prior: ClassVar[bool] = False

    def draw(self, source, index, dataset):
        return {"t0": self.levels[choice(len(self.levels), self.seed, source.digest, index, "t0")]}

    def generate(self, variants, dataset, prior, fitted, device):
        for variant in variants:
            noise = np.random.default_rng(derive(variant.fingerprint, "noise")).normal(0, 50, (8, 8, 3))
            pixels = np.asarray(variant.source.open()) + variant.draws["t0"] * noise
            yield Generated(variant=variant, image=Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


@identified("generator/crashing")
@dataclass(kw_only=True, slots=True)
class Crashing(Noise):
    """Dies after ``survives`` images."""

    survives: ClassVar[int] = 3

    def generate(self, variants, dataset, prior, fitted, device):
        for done, item in enumerate(Noise.generate(self, variants, dataset, prior, fitted, device)):
            if done == self.survives:
                raise KeyboardInterrupt
            yield item


@identified("generator/picky")
@dataclass(kw_only=True, slots=True)
class Picky(Noise):
    def generate(self, variants, dataset, prior, fitted, device):
        for item in Noise.generate(self, variants, dataset, prior, fitted, device):
            rejected = "too dark" if item.variant.index == 1 else None
            yield Generated(variant=item.variant, image=item.image, rejected=rejected, label={0: 0.5, 1: 0.5})


@pytest.fixture(params=["files", "packed"])
def form(request, monkeypatch):
    """The test is run with pools in either form."""
    if request.param == "packed":
        monkeypatch.setattr(Store.__init__, "__defaults__", (None, 1))
    return request.param


def dataset(count=4, prefix="train"):
    pixels = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    samples = [
        Sample(id=f"{prefix}/{i}", digest=digest_bytes(pixels[i].tobytes()), image=pixels[i], label={i % 2: 1.0})
        for i in range(count)
    ]
    return Dataset(name="d", task="classification", class_names=("a", "b"), train=tuple(samples), val=(), test=())


def build(store, generator, data, m):
    return make_pool(store, generator, data, None, "fitted", lambda: None, m, say=lambda text: None)


def contents(pool):
    return {(s.source_id, s.index): np.asarray(s.open()).tobytes() for s in pool.samples}


def test_a_larger_m_only_adds_images_and_a_smaller_one_makes_none(tmp_path, form):
    store = Store(tmp_path)
    small = build(store, Noise(seed=0), dataset(), 2)
    large = build(store, Noise(seed=0), dataset(), 5)
    again = build(store, Noise(seed=0), dataset(), 2)
    assert (small.counts["images_generated"], large.counts["images_generated"], again.counts["images_generated"]) == (
        8,
        12,
        0,
    )
    assert small.fingerprint == large.fingerprint == again.fingerprint
    assert contents(small).items() <= contents(large).items()
    assert contents(again) == contents(small)


def test_a_killed_run_is_continued_with_the_same_files(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build(Store(tmp_path / "cut"), Crashing(seed=0), dataset(), 2)
    kept = list((tmp_path / "cut" / "images").rglob("*.png"))
    assert len(kept) == Crashing.survives
    Crashing.survives = 100
    try:
        resumed = build(Store(tmp_path / "cut"), Crashing(seed=0), dataset(), 2)
        fresh = build(Store(tmp_path / "fresh"), Crashing(seed=0), dataset(), 2)
    finally:
        Crashing.survives = 3
    assert resumed.counts == {"images_generated": 5, "images_reused": 3, "network_evaluations": 0}
    assert contents(resumed) == contents(fresh)


def test_an_image_drawn_at_one_strength_serves_the_variant_that_draws_several(tmp_path, form):
    store = Store(tmp_path)
    fixed = build(store, Noise(seed=0, levels=[0.5]), dataset(), 4)
    several = build(store, Noise(seed=0, levels=[0.5, 1.0]), dataset(), 4)
    at_half = [s for s in several.samples if s.about["t0"] == 0.5]
    assert several.counts["images_reused"] == len(at_half) > 0
    assert {s.digest for s in at_half} <= {s.digest for s in fixed.samples}


def test_a_subset_of_the_images_shares_its_variants(tmp_path, form):
    store = Store(tmp_path)
    build(store, Noise(seed=0), dataset(4), 2)
    part = build(store, Noise(seed=0), dataset(2, prefix="elsewhere"), 2)
    assert part.counts["images_generated"] == 0
    assert {s.source_id for s in part.samples} == {"elsewhere/0", "elsewhere/1"}


def test_rejected_images_are_counted_kept_and_not_made_again(tmp_path, form):
    store = Store(tmp_path)
    pool = build(store, Picky(seed=0), dataset(), 2)
    assert len(pool.samples) == 4 and pool.rejected == {"too dark": 4}
    assert build(store, Picky(seed=0), dataset(), 2).counts["images_generated"] == 0
    assert all(sum(s.label.values()) == 1 for s in pool.samples)


def test_the_folder_is_an_imagefolder_that_other_tools_read(tmp_path):
    pool = build(Store(tmp_path), Noise(seed=0), dataset(), 2)
    rows = [json.loads(line) for line in (pool.folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        assert (pool.folder / row["file_name"]).is_file()
        assert {"source_id", "index", "label", "t0", "seconds", "fingerprint"} <= row.keys()


def test_renamed_files_reuse_the_images_under_their_new_names(tmp_path, form):
    store = Store(tmp_path)
    before = build(store, Noise(seed=0), dataset(), 2)
    after = build(store, Noise(seed=0), dataset(prefix="renamed"), 2)
    assert after.counts["images_generated"] == 0 and after.fingerprint != before.fingerprint
    assert set(after.by_source()) == {sample.id for sample in dataset(prefix="renamed").train}


def test_files_of_equal_content_share_their_images_and_each_has_them_all(tmp_path, form):
    data = dataset()
    twin = replace(data.train[0], id="train/twin")
    data = replace(data, train=(*data.train, twin))
    pool = build(Store(tmp_path), Noise(seed=0), data, 3)
    assert pool.counts == {"images_generated": 12, "images_reused": 3, "network_evaluations": 0}
    assert {source: len(samples) for source, samples in pool.by_source().items()} == {s.id: 3 for s in data.train}
    again = build(Store(tmp_path), Noise(seed=0), data, 3)
    assert contents(again) == contents(pool) and again.counts["images_generated"] == 0


def test_different_sources_get_different_noise(tmp_path, form):
    pool = build(Store(tmp_path), Noise(seed=0), dataset(), 2)
    assert len(set(contents(pool).values())) == 8


def test_a_pool_of_other_classes_is_refused(tmp_path, form):
    pool = build(Store(tmp_path), Noise(seed=0), dataset(), 1)
    other = Dataset(name="other", task="classification", class_names=("x", "y"), train=(), val=(), test=())
    with pytest.raises(GenaugError, match="other does not have"):
        read_pool(pool.folder, other, 1)


class Reading(Store):
    """A store that notes whose files were read for their metadata."""

    def __init__(self, root):
        super().__init__(root)
        self.read = []

    def about_image(self, fingerprint):
        self.read.append(fingerprint)
        return Store.about_image(self, fingerprint)


def test_images_are_read_back_only_where_this_call_did_not_write_them(tmp_path):
    store, data = Reading(tmp_path), dataset()
    pool = build(store, Picky(seed=0), data, 2)
    assert store.read == []
    assert [sample.about for sample in read_pool(pool.folder, data, 2).samples] == [s.about for s in pool.samples]
    assert build(store, Picky(seed=0), data, 2).rejected == pool.rejected and store.read == []
    fewer = replace(data, train=data.train[:2])  # another pool of the same images
    assert build(store, Picky(seed=0), fewer, 2).counts["images_generated"] == 0
    assert len(store.read) == len(set(store.read)) == 4


def test_a_variant_has_one_identity_whether_it_is_listed_alone_or_with_all_others(monkeypatch):
    from genaug.generators import base

    data, several = dataset(), Noise(seed=0, levels=[0.1, 0.5, 1.0])
    listed = several.variants(data, 6, "fitted")
    monkeypatch.setattr(base, "MOST_KNOWN", 1)  # texts of draws are forgotten all the time
    assert [v.fingerprint for v in several.variants(data, 6, "fitted")] == [v.fingerprint for v in listed]
    for variant in listed:
        alone = several.variant_of(variant.source, variant.index, data, "fitted")
        assert (alone.fingerprint, alone.draws) == (variant.fingerprint, variant.draws)
        names = [data.class_names[i] for i in variant.source.label]
        own = canonical_text(several, stage="sample")
        parts = ("fitted", variant.source.identity(), names, own, variant.draws, variant.index)
        assert variant.fingerprint == fingerprint(*parts)


def test_images_are_made_again_when_an_annotation_becomes_a_crowd_region(tmp_path, form):
    def boxed(*crowd):
        boxes = Boxes(xyxy=np.float32([[0, 0, 4, 4], [4, 4, 8, 8]]), labels=np.int64([0, 1]), crowd=np.array(crowd))
        return replace(
            dataset(), task="detection", train=tuple(replace(s, label={}, boxes=boxes) for s in dataset().train)
        )

    store = Store(tmp_path)
    assert build(store, Noise(seed=0), boxed(False, False), 1).counts["images_generated"] == 4
    pool = build(store, Noise(seed=0), boxed(False, True), 1)
    assert pool.counts["images_generated"] == 4
    assert [sample.boxes.crowd.tolist() for sample in pool.samples] == [[False, True]] * 4


GREY = Image.new("L", (8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: [item.image for item in items], r"generator=noise yields Image: yield Generated\(variant="),
        (lambda items: [replace(item, image=np.zeros((8, 8, 3))) for item in items], "yields ndarray for an image"),
        (
            lambda items: [replace(item, image=GREY) for item in items],
            "an image of the mode L: give Pillow's images in RGB",
        ),
        (lambda items: items[:-1], "yields 7 of 8 images: yield one Generated for each variant"),
        (lambda items: None, "yields 0 of 8 images"),
        (
            lambda items: [replace(items[0], image=Image.new("RGB", (0, 8)))],
            "yields an image of 0 x 8 pixels for train/0",
        ),
        (lambda items: [items[0], *items], "yields an image twice"),
        (lambda items: [replace(item, label=1) for item in items], "the label 1 for an image of train/.*sum to 1"),
        (lambda items: [replace(item, label={2: 1.0}) for item in items], "index from 0 to 1"),
        (lambda items: [replace(item, label={0: 1, 1: 2}) for item in items], "which sum to 1"),
        (
            lambda items: [replace(item, about={"x": np.float32(1)}) for item in items],
            r"float32 is not.*write|float\(x\)",
        ),
    ],
)
def test_what_no_pool_can_hold_is_refused_with_what_to_yield(tmp_path, monkeypatch, change, message, form):
    make = Noise.generate
    monkeypatch.setattr(Noise, "generate", lambda self, *args: change(list(make(self, *args))))
    with pytest.raises(GenaugError, match=message):
        build(Store(tmp_path), Noise(name="noise", seed=0), dataset(), 2)


def test_boxes_of_the_source_are_kept_by_an_image_of_its_size_alone(tmp_path, monkeypatch):
    boxes = Boxes(xyxy=np.float32([[1, 1, 4, 4]]), labels=np.int64([1]), crowd=np.array([True]))
    scenes = replace(
        dataset(), task="detection", train=tuple(replace(s, label={}, boxes=boxes) for s in dataset().train)
    )
    kept = build(Store(tmp_path / "one"), Noise(name="noise", seed=0), scenes, 1).samples[0].boxes
    assert (kept.xyxy.tolist(), kept.labels.tolist(), kept.crowd.tolist()) == ([[1, 1, 4, 4]], [1], [True])
    make = Noise.generate
    larger = lambda item: replace(item, image=item.image.resize((16, 16)))
    monkeypatch.setattr(Noise, "generate", lambda self, *args: map(larger, make(self, *args)))
    with pytest.raises(
        GenaugError, match=r"an image of 16 x 16 pixels for train/. of 8 x 8, whose boxes do not fit it"
    ):
        build(Store(tmp_path / "two"), Noise(name="noise", seed=0), scenes, 1)
