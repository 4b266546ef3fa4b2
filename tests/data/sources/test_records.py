"""Hub data sets and tar shards: read by the real libraries from local files."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.choosing import choose
from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.store import HASH
from genaug.data.sources.hub import HubClassification, HubDetection, class_index
from genaug.data.sources.leafy_spurge import LeafySpurge
from genaug.data.sources.recognition import recognise
from genaug.data.sources.records import Record, export
from genaug.data.sources.webdataset_shards import WebDatasetShards

RNG = np.random.default_rng(0)


def png(size: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


def parquet(folder: Path, features: dict, rows: dict[str, list[dict]]) -> Path:
    import datasets

    for split, items in rows.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(items, features=datasets.Features(features))
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def classification(folder: Path, names: Sequence[str] = ("tabby_cat", "dog")) -> Path:
    import datasets

    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))}
    rows = {
        split: [{"picture": {"bytes": png(), "path": None}, "kind": i % 2} for i in range(count)]
        for split, count in (("train", 10), ("test", 4))
    }
    return parquet(folder, features, rows)


def as_pandas_writes(folder: Path) -> Path:
    """Nothing in the files says that the bytes are an image, or that the numbers are classes."""
    import pyarrow
    import pyarrow.parquet

    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 8), ("validation", 4)):
        rows = {
            "photo": [{"bytes": png(), "path": "x.png"} for _ in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(
    ("make", "words", "counts"),
    [
        (
            classification,
            "dataset.image=picture dataset.label=kind dataset.val_split=null dataset.test_split=test",
            (8, 2, 4),
        ),
        (
            as_pandas_writes,
            "dataset.image=photo dataset.label=label dataset.val_split=validation dataset.test_split=null",
            (6, 4, 2),
        ),
    ],
)
def test_a_folder_of_parquet_files_with_images_inside_is_recognised_with_its_columns_and_splits(
    make, words, counts, offline: Path
) -> None:
    root = make(offline / "set")
    layout = recognise(root)
    assert (layout.preset, layout.key, layout.task) == ("hf", "dataset.path", "classification")
    assert list(layout.overrides) == words.split()
    how = ["dataset=hf", *layout.overrides, f"dataset.path={root}"]
    found = compose_typed([*how, f"dataset.cache_dir={offline / 'out'}"]).dataset.load()
    assert (len(found.train), len(found.val), len(found.test)) == counts
    assert found.carved == (("val",) if "val_split=null" in words else ("test",))
    with pytest.raises(GenaugError, match=r"write dataset=hf dataset\.image=.* in place of dataset\.root"):
        choose("own/classification", [f"dataset.root={root}"])


def test_a_hub_classification_set_is_read_by_the_columns_named_in_the_configuration(offline: Path) -> None:
    path = classification(offline / "set")

    def source(**fields: object) -> HubClassification:
        return HubClassification(path=str(path), image="picture", seed=0, cache_dir=str(offline / "own"), **fields)  # type: ignore[arg-type]

    dataset = source(label="kind").load()
    assert dataset.class_names == ("tabby cat", "dog")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (8, 2, 4)
    assert dataset.train[0].open().size == (12, 12)
    assert source(label="kind").identity() == source(label="kind").identity()
    with pytest.raises(GenaugError, match=r"dataset\.label=label.*kind"):
        source(label="label").load()


def test_labels_of_a_hub_set_that_read_as_one_name_are_refused(offline: Path) -> None:
    path = classification(offline / "set", names=["big_dog", "big dog"])
    with pytest.raises(GenaugError, match=r"class 0.*class 1.*both called 'big dog'"):
        HubClassification(path=str(path), image="picture", label="kind", seed=0, cache_dir=str(offline / "own")).load()


def test_a_hub_detection_set_gives_boxes_by_the_rules_of_all_boxes(offline: Path) -> None:
    import datasets

    features = {
        "image": datasets.Image(),
        "objects": {
            "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), length=4)),
            "category": datasets.Sequence(datasets.ClassLabel(names=["rbc", "wbc"])),
        },
    }
    objects = {"bbox": [[1, 2, 3, 4], [5, 5, 0, 2], [8, 8, 9, 2]], "category": [1, 0, 0]}  # of 12 x 12 pixels
    rows = {
        split: [{"image": {"bytes": png(), "path": None}, "objects": objects} for _ in range(count)]
        for split, count in (("train", 5), ("test", 2))
    }
    path = parquet(offline / "boxes", features, rows)
    dataset = HubDetection(path=str(path), seed=0, cache_dir=str(offline / "own")).load()
    assert dataset.task == "detection" and dataset.class_names == ("rbc", "wbc")
    boxes = dataset.train[0].boxes
    assert boxes is not None and boxes.xyxy.tolist() == [[1, 2, 4, 6], [8, 8, 12, 10]]
    assert boxes.labels.tolist() == [1, 0]
    assert dataset.notes == {"boxes_without_area_dropped": 5 + 2, "boxes_clipped": 5 + 2}


def test_an_absent_hub_set_says_what_to_do(offline: Path) -> None:
    with pytest.raises(GenaugError, match="hf download nobody/nothing"):
        HubClassification(path="nobody/nothing", seed=0, cache_dir=str(offline / "own")).identity()
    with pytest.raises(GenaugError, match="hf download mpg-ranch/leafy_spurge"):
        LeafySpurge(root=str(offline), hub=True, seed=0).identity()


def test_two_that_export_one_set_at_once_write_it_once_and_whole(tmp_path: Path) -> None:
    second_asks, second_writes = threading.Event(), threading.Event()

    def first() -> Iterator[Record]:
        yield {"image": png()}, {"label": 0}
        second_asks.set()
        second_writes.wait(0.5)  # long enough for one that does not wait for us to begin
        for label in range(1, 6):
            yield {"image": png()}, {"label": label}

    def second() -> Iterator[Record]:
        second_writes.set()
        yield {"image": png()}, {"label": 0}

    def write_second() -> Path:
        assert second_asks.wait(10)
        return export(tmp_path, "set", "one", {"train": second()}, {}).folder

    with ThreadPoolExecutor() as threads:
        other = threads.submit(write_second)
        folder = export(tmp_path, "set", "one", {"train": first()}, {}).folder
        assert other.result() == folder
    assert not second_writes.is_set()
    assert len(list(folder.glob("train/*.png"))) == 6
    assert len((folder / "train" / "rows.jsonl").read_text().splitlines()) == 6


def test_an_export_whose_rows_are_not_those_that_were_written_is_written_again(tmp_path: Path) -> None:
    def make() -> list[int]:
        records: list[Record] = [({"image": png()}, {"label": label}) for label in range(3)]
        done = export(tmp_path, "set", "two", {"train": records}, {"label": ["a", "b", "c"]})
        assert done.names("label") == ["a", "b", "c"]
        return [values["label"] for _, values in done.rows("train", "image")]

    assert make() == [0, 1, 2]
    rows = next(tmp_path.glob("set-*/train/rows.jsonl"))
    rows.write_text(rows.read_text().splitlines(keepends=True)[0])
    assert make() == [0, 1, 2]
    data = rows.read_bytes()
    for changed in (data.replace(b'"label": 1', b'"label": 2'), data.replace(b"{", b"\xff", 1)):
        rows.write_bytes(changed)
        assert make() == [0, 1, 2]
    for about in ("{}", "[1]", ""):
        next(tmp_path.glob("set-*/export.json")).write_text(about)
        assert make() == [0, 1, 2]
    path = next(tmp_path.glob("set-*/export.json"))
    earlier = json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != HASH})
    path.write_text(earlier)  # as earlier versions wrote it
    assert make() == [0, 1, 2] and path.read_text() == earlier
    rows.write_text(rows.read_text().splitlines(keepends=True)[0])
    assert make() == [0, 1, 2]


def test_what_a_killed_export_left_is_no_part_of_the_next(tmp_path: Path) -> None:
    def dying() -> Iterator[Record]:
        yield from [({"image": png()}, {"label": label}) for label in range(2)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, "set", "three", {"train": dying()}, {})
    done = export(tmp_path, "set", "three", {"train": [({"image": png()}, {"label": 7})]}, {})
    assert [values["label"] for _, values in done.rows("train", "image")] == [7]
    assert len(list(done.folder.glob("train/*.png"))) == 1


def shard(path: Path, items: list[tuple[str, dict[str, bytes]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in items:
            for ending, data in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def shards(root: Path) -> str:
    for number in range(2):
        items = []
        for i in range(6):
            about = json.dumps({"species": ["cat", "dog"][i % 2]}).encode()
            items.append((f"{number}/{i:03d}", {"png": png(), "cls": str(i % 2).encode(), "json": about}))
        shard(root / f"train-{number:03d}.tar", items)
    return str(root / "train-{000..001}.tar")


def test_tar_shards_are_read_with_integer_labels_and_carved_splits(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    train = shards(tmp_path / "shards")
    source = WebDatasetShards(train=train, class_names=["cat", "dog"], seed=0, cache_dir=str(tmp_path / "cache"))
    dataset = source.load()
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 12
    assert dataset.train[0].open().size == (12, 12)
    by_name = WebDatasetShards(train=train, label="json:species", seed=0, cache_dir=str(tmp_path / "cache")).load()
    assert by_name.class_names == ("cat", "dog")
    assert [s.class_index for s in by_name.test] == [s.class_index for s in dataset.test]


def test_missing_shards_and_missing_label_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    with pytest.raises(GenaugError, match="there is no shard"):
        WebDatasetShards(train=str(tmp_path / "none.tar"), seed=0, cache_dir=str(tmp_path)).identity()
    shard(tmp_path / "a.tar", [("0", {"png": png()})])
    with pytest.raises(GenaugError, match=r"a file \.cls are needed"):
        WebDatasetShards(train=str(tmp_path / "a.tar"), seed=0, cache_dir=str(tmp_path / "cache")).load()


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (None, "row 1 has the label null"),
        (float("nan"), "has the label NaN"),
        ("", 'has the label ""'),
        ([1], r"the label \[1\]"),
    ],
)
def test_a_label_that_names_no_class_is_refused_with_its_row(label: object, said: str) -> None:
    values = [("cat", "train row 0"), (label, "train row 1")]
    with pytest.raises(GenaugError, match=said):
        class_index(None, values, "dataset.label=label")


def test_labels_called_none_and_false_are_classes_and_numbers_need_names() -> None:
    names, index = class_index(None, [(value, "") for value in ("None", "False", "nan", "None")], "")
    assert names == ["False", "None", "nan"] and index == {"False": 0, "None": 1, "nan": 2}
    assert class_index(["a", "b"], [(1, ""), (0, "")], "")[1] == {0: 0, 1: 1}
    for unknown in (-1, 2, "a"):
        with pytest.raises(GenaugError, match="row 7 has the label"):
            class_index(["a", "b"], [(0, ""), (unknown, "row 7")], "")


@pytest.mark.parametrize(
    "shards",
    [
        "pipe:touch {}",
        " pipe:touch {}",
        "/data/a.tar::pipe:touch {}",
        "{{a,pipe:touch {}}}",
        "s3://bucket/a.tar",
        "gs://bucket/a.tar",
        "hf://set/a.tar",
        "file:/data/a.tar",
        "https://host/a.tar'; touch {}; '",
        "|touch {}",
    ],
)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shards_that_would_run_a_program_are_refused_always(tmp_path: Path, shards: str, split: str) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    shard(tmp_path / "good.tar", [("0", {"png": png(), "cls": b"0"})])
    named = {"train": str(tmp_path / "good.tar"), split: shards.format(tmp_path / "done")}
    source = WebDatasetShards(seed=0, cache_dir=str(tmp_path / "cache"), **named)
    for read in (source.identity, source.load):
        with pytest.raises(GenaugError, match=rf"dataset\.{split}"):
            read()
    assert not (tmp_path / "done").exists()


def test_objects_of_a_hub_set_may_be_lists_of_mappings_the_first_of_them_empty(offline: Path) -> None:
    import datasets

    kinds = {"category": datasets.Value("string"), "area": datasets.Value("float32"), "iscrowd": datasets.Value("bool")}
    one = {"bbox": datasets.List(datasets.Value("float32")), **kinds}
    features = {"image": datasets.Image(), "objects": datasets.List(one)}
    objects = [{"bbox": [1, 1, 4, 4], "category": "cat", "area": 9.5, "iscrowd": crowd} for crowd in (False, True)]
    rows = lambda: [{"image": {"bytes": png(), "path": None}, "objects": found} for found in ([], objects, objects)]
    path = parquet(offline / "listed", features, {"train": rows(), "test": rows()})
    dataset = HubDetection(path=str(path), seed=0, cache_dir=str(offline / "out"), val_fraction=0.0).load()
    found = [sample.boxes for sample in dataset.test]
    assert [boxes.crowd.tolist() for boxes in found if boxes is not None] == [[], [False, True], [False, True]]
    assert found[1] is not None and found[1].area is not None and found[1].area.tolist() == [9.5, 9.5]


def test_boxes_of_a_hub_set_are_checked_as_all_boxes_are(offline: Path) -> None:
    import datasets

    features = {
        "image": datasets.Image(),
        "objects": {
            "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
            "category": datasets.List(datasets.Value("string")),
        },
    }
    good = {"image": {"bytes": png(), "path": None}, "objects": {"bbox": [[1, 1, 4, 4]], "category": ["None"]}}
    for number, (objects, said) in enumerate(
        (
            ({"bbox": [[1, 1, float("nan"), 4]], "category": ["cat"]}, "train row 1, box 0 has bbox .*nan"),
            ({"bbox": [[1, 1, 4]], "category": ["cat"]}, "train row 1, box 0 has bbox .*four numbers"),
            ({"bbox": [[1, 1, 4, 4]], "category": [None]}, "train row 1, box 0 has the label null"),
            ({"bbox": [[1, 1, 4, 4]], "category": ["cat", "dog"]}, "train row 1: its objects cannot be read"),
        )
    ):
        rows = {"train": [good, {"image": {"bytes": png(), "path": None}, "objects": objects}, good]}
        path = parquet(offline / f"set{number}", features, rows)
        source = HubDetection(path=str(path), seed=0, test_split=None, cache_dir=str(offline / "out"))
        with pytest.raises(GenaugError, match=said):
            source.load()
