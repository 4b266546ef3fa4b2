"""Exports open as genaug's own data sets with the same images and boxes, and without rejected images."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.identity import content_digest, digest_bytes, identified
from genaug.core.store import Store
from genaug.data.card import dataset_card
from genaug.data.export import export
from genaug.data.pool import read_pool
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.sources.coco import Coco
from genaug.data.sources.hub import HubClassification, HubDetection
from genaug.data.sources.image_folder import ImageFolder
from genaug.data.sources.voc import Voc
from genaug.data.sources.webdataset_shards import WebDatasetShards
from genaug.data.sources.yolo import Yolo
from genaug.generators.base import Generated, Generator
from genaug.generators.publishing import make_pool
from tests.generators.test_publishing import Noise


@identified("test/moody")
class Moody(Noise):
    """Rejects every second variant, and moves boxes by one pixel."""

    def generate(self, variants, dataset, prior, fitted, device):
        for item in Noise.generate(self, variants, dataset, prior, fitted, device):
            boxes = item.variant.source.boxes
            moved = None if boxes is None else Boxes(xyxy=boxes.xyxy + 1, labels=boxes.labels, crowd=boxes.crowd)
            rejected = "too dark" if item.variant.index == 1 else None
            yield Generated(variant=item.variant, image=item.image, boxes=moved, rejected=rejected)


def sample(name, label=None, boxes=None, folder=None):
    pixels = np.random.default_rng(list(name.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    weights = {} if label is None else {label: 1.0}
    if folder is None:
        return Sample(id=name, digest=digest_bytes(pixels.tobytes()), image=pixels, label=weights, boxes=boxes)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return Sample(id=name, digest=content_digest(path), image=path, label=weights, boxes=boxes)


def classes(folder=None):
    splits = [
        tuple(sample(f"{split}/{c}/{i}.png", c, folder=folder) for c in (0, 1) for i in range(3))
        for split in ("train", "val", "test")
    ]
    return Dataset(
        name="d", task="classification", class_names=("red fox", "b"), train=splits[0], val=splits[1], test=splits[2]
    )


def scenes():
    def boxes(i):
        return Boxes(
            xyxy=np.float32([[1, 1, 4, 4], [2, 1.5, 6, 7]]),
            labels=np.int64([i % 2, 1]),
            crowd=np.array([False, i == 2]),
        )

    splits = [tuple(sample(f"{split}/{i}.png", boxes=boxes(i)) for i in range(4)) for split in ("train", "val", "test")]
    return Dataset(
        name="s", task="detection", class_names=("car", "dog"), train=splits[0], val=splits[1], test=splits[2]
    )


def pool_of(tmp_path, dataset, m=2):
    generator: Generator = Moody(name="moody", seed=0)
    return make_pool(
        Store(tmp_path / "store"), generator, dataset, None, "fitted", lambda: None, m, say=lambda text: None
    )


def contents(samples):
    return sorted(
        (
            np.asarray(s.open()).tobytes(),
            [] if s.boxes is None else s.boxes.xyxy.round(1).tolist(),
            [] if s.boxes is None else s.boxes.crowd.tolist(),
        )
        for s in samples
    )


def names(dataset):
    return {
        np.asarray(s.open()).tobytes(): [dataset.class_names[i] for i in (s.label or s.boxes.labels.tolist())]
        for s in (*dataset.train, *dataset.val, *dataset.test)
    }


def reader(form, out, cache, task):
    hub = {"path": str(out), "val_split": "validation", "seed": 0, "cache_dir": str(cache)}
    readers = {
        "coco": lambda: Coco(root=str(out), seed=0),
        "yolo": lambda: Yolo(root=str(out), seed=0),
        "voc": lambda: Voc(root=str(out), seed=0),
        "imagefolder": lambda: ImageFolder(root=str(out), seed=0) if task == "classification" else HubDetection(**hub),
        "hub": lambda: HubClassification(**hub),
        "webdataset": lambda: WebDatasetShards(
            **{s: f"{out}/{n}-000000.tar" for s, n in (("train", "train"), ("val", "validation"), ("test", "test"))},
            seed=0,
            cache_dir=str(cache),
        ),
    }
    return readers[form]()


@pytest.mark.parametrize(
    ("form", "task"),
    [
        ("coco", "detection"),
        ("yolo", "detection"),
        ("voc", "detection"),
        ("imagefolder", "detection"),
        ("imagefolder", "classification"),
        ("hub", "classification"),
        ("webdataset", "classification"),
    ],
)
def test_an_export_opens_with_the_same_images_and_boxes(tmp_path, form, task):
    dataset = scenes() if task == "detection" else classes()
    pool = pool_of(tmp_path, dataset)
    written = export(dataset, pool, "imagefolder" if form == "hub" else form, tmp_path / "out")
    assert written.counts["generated"] == len(dataset.train) == len(pool.samples)
    found = reader(form, tmp_path / "out", tmp_path / "cache", task).load()
    wanted = [*dataset.train, *pool.samples]
    if form == "yolo":  # which has no crowd regions
        assert any("crowd" in note for note in written.notes)
        assert len(found.train) == len(wanted)
    else:
        assert contents(found.train) == contents(wanted)
    assert contents(found.test) == contents(dataset.test) or form == "yolo"
    assert contents(found.val) == contents(dataset.val) or form == "yolo"
    original = names(dataset)
    assert (
        all(found_names == original.get(key, found_names) for key, found_names in names(found).items())
        or form == "yolo"
    )


@pytest.mark.parametrize("form", ["coco", "yolo", "voc", "imagefolder"])
def test_areas_that_annotations_state_are_written_or_said_to_be_left_out_and_masks_are_said_to_be(tmp_path, form):
    def stated(samples):
        return tuple(replace(s, boxes=replace(s.boxes, area=np.float32([4.5, 9]))) for s in samples)

    plain = scenes()
    train = tuple(replace(s, mask=np.ones((8, 8), dtype=bool)) for s in stated(plain.train))
    dataset = replace(plain, train=train, val=stated(plain.val), test=stated(plain.test))
    written = export(dataset, pool_of(tmp_path, dataset), form, tmp_path / "out")
    assert "4 object masks left out" in written.notes
    if form in ("yolo", "voc"):
        assert "24 stated areas left out, so that an object is as large as its box" in written.notes
        return
    found = reader(form, tmp_path / "out", tmp_path / "cache", "detection").load()
    assert [s.boxes.area.tolist() for s in found.test] == [[4.5, 9]] * 4
    assert [s.boxes.area.tolist() for s in found.train][-1] == [9, 22]  # a generated image: its boxes'


@pytest.mark.parametrize(
    ("form", "task"),
    [
        ("coco", "detection"),
        ("voc", "detection"),
        ("imagefolder", "detection"),
        ("imagefolder", "classification"),
        ("webdataset", "classification"),
    ],
)
def test_an_export_opens_by_the_words_that_it_says(tmp_path, form, task):
    dataset = scenes() if task == "detection" else classes()
    written = export(dataset, pool_of(tmp_path, dataset), form, tmp_path / "my export")
    words = ["generator=none", "augment=none", *(["downstream=detector_tiny"] if task == "detection" else [])]
    found = compose_typed([*written.opens_as, *words]).dataset.load()
    assert contents(found.test) == contents(dataset.test)


def test_boxes_in_shards_are_said_to_open_elsewhere_alone(tmp_path):
    dataset = scenes()
    assert export(dataset, pool_of(tmp_path, dataset), "webdataset", tmp_path / "out").opens_as == []


def test_the_pool_itself_opens_as_an_imagefolder_without_its_rejected_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    for dataset in (classes(), scenes()):
        pool = pool_of(tmp_path / dataset.name, dataset)
        opened = datasets.load_dataset(
            "imagefolder", data_dir=str(pool.folder), split="train", cache_dir=str(tmp_path / f"cache_{dataset.name}")
        )
        assert len(opened) == len(pool.samples) == len(dataset.train)
        assert set(opened["rejected"]) == {None}
        made = {np.asarray(s.open()).tobytes() for s in pool.samples}
        assert {np.asarray(image.convert("RGB")).tobytes() for image in opened["image"]} == made
        again = read_pool(pool.folder, dataset, 2, with_rejected=True)
        assert len(again.samples) == 2 * len(pool.samples) and again.rejected == {"too dark": len(dataset.train)}


@pytest.mark.parametrize("make", [classes, scenes])
def test_the_pool_itself_opens_as_a_hub_data_set(tmp_path, make):
    pytest.importorskip("datasets")
    dataset = make()
    pool = pool_of(tmp_path, dataset)
    kind = HubDetection if dataset.task == "detection" else HubClassification
    found = kind(path=str(pool.folder), seed=0, test_split=None, cache_dir=str(tmp_path / "cache")).load()
    assert sum(map(len, (found.train, found.val, found.test))) == len(pool.samples)
    assert set(found.class_names) == set(dataset.class_names)


def test_rejected_images_are_exported_only_on_demand(tmp_path):
    dataset = classes()
    pool = read_pool(pool_of(tmp_path, dataset).folder, dataset, 2, with_rejected=True)
    assert export(dataset, pool, "imagefolder", tmp_path / "out").counts["generated"] == 12
    rows = [json.loads(line) for line in (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()]
    assert sum(row["rejected"] == "too dark" for row in rows) == 6


def test_files_are_copied_byte_for_byte_and_turned_ones_are_written_upright(tmp_path):
    dataset = classes(tmp_path / "photos")
    first, pool = dataset.train[0], pool_of(tmp_path, dataset, 1)
    turned = Image.fromarray(np.zeros((8, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(dataset.train[1].image, exif=exif)
    export(dataset, pool, "imagefolder", tmp_path / "out")
    assert (tmp_path / "out/train/red fox/train_0_0.png").read_bytes() == first.image.read_bytes()
    with Image.open(tmp_path / "out/train/red fox/train_0_1.png") as image:
        assert image.size == (8, 12)


def test_generated_images_alone_leave_every_real_one_out(tmp_path):
    dataset = classes()
    written = export(dataset, pool_of(tmp_path, dataset), "imagefolder", tmp_path / "out", real=False)
    assert written.counts == {"train": 6, "generated": 6}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train"]


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_overwritten(tmp_path):
    dataset = classes()
    pool = pool_of(tmp_path, dataset)
    with pytest.raises(GenaugError, match="holds boxes"):
        export(dataset, pool, "yolo", tmp_path / "out")
    with pytest.raises(GenaugError, match="--format=zip"):
        export(dataset, pool, "zip", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(GenaugError, match="not empty"):
        export(dataset, pool, "imagefolder", tmp_path / "out")


def test_the_card_names_the_method_the_counts_and_how_to_open_it(tmp_path):
    dataset = classes()
    pool = pool_of(tmp_path, dataset)
    written = export(dataset, pool, "imagefolder", tmp_path / "out")
    result = {
        "names": {"generator": "da_fusion"},
        "seed": 3,
        "config": {"generator": {"t0": 0.5, "name": "da_fusion"}, "prior": {"path": "CompVis/sd14"}},
    }
    assert "| diffusion prior | none |" in dataset_card("me/set", dataset, pool, written, result)  # no row names one
    pool.samples[0].about["prior"] = "93adf2e3"
    card = dataset_card("me/set", dataset, pool, written, result)
    assert card.startswith("---\npretty_name: d, generated by da_fusion\n")
    for wanted in (
        'load_dataset("me/set")',
        "t0: 0.5",
        "CompVis/sd14",
        "6 too dark",
        "24 images",
        "6 of them generated",
    ):
        assert wanted in card


def test_names_and_prompts_are_shown_in_the_card_and_do_nothing(tmp_path):
    pool = pool_of(tmp_path, classes())
    pool.samples[0].about["prior"] = "93adf2e3"
    written = export(classes(), pool, "imagefolder", tmp_path / "out")
    dataset = replace(classes(), name="<i>d</i>\n# x", class_names=("<script>a</script>|", "b\n\n| c |"))
    result = {
        "names": {"generator": "<u>|"},
        "seed": 3,
        "config": {"generator": {"prompt": "a\n```\n<b>bold</b>"}, "prior": {"path": "`<s>|"}},
    }
    card = dataset_card('me/"set', dataset, pool, written, result)
    head, _, body = card[4:].partition("\n---\n")
    assert yaml.safe_load(head)["pretty_name"] == "<i>d</i>\n# x, generated by <u>|"
    before, block, after = body.split("````")
    assert "<b>" in block and not [tag for tag in ("<i>", "<script>", "<u>", "<s>") if tag in before + after]
    rows = [line for line in before.splitlines() if line.startswith("|")]
    assert len(rows) == 8 and all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    titles = [line for line in body.splitlines() if line.startswith("# ")]
    assert titles == [r"# &lt;i&gt;d&lt;/i&gt; # x, generated by &lt;u&gt;\|"]
    assert r'load_dataset("me/\"set")' in card


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("imagefolder", ["load_dataset(", "Column `generated`"]),
        ("coco", ["dataset=coco dataset.root=", "`generated` of an image's entry"]),
        ("yolo", ["dataset=yolo dataset.root=", "begin with `generated_`"]),
        ("voc", ["dataset=voc dataset.root=", "begin with `generated_`"]),
        ("webdataset", ["`.json` beside", "`generated`"]),
    ],
)
def test_the_card_says_how_its_own_format_is_opened_and_what_was_generated(tmp_path, form, wanted):
    dataset = scenes()
    pool = pool_of(tmp_path, dataset)
    written = export(dataset, pool, form, tmp_path / "out")
    result = {"names": {"generator": "psld"}, "seed": 0, "config": {"generator": {}}}
    card = dataset_card(str(tmp_path / "out"), dataset, pool, written, result)
    assert all(text in card for text in wanted) and ("load_dataset(" in card) == (form == "imagefolder")
