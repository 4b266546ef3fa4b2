"""Whatever a folder or an annotation file holds: correct data, or one sentence, and never another error."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genaug.core.errors import GenaugError
from genaug.data.sample import Dataset
from genaug.data.sources.base import Source
from genaug.data.sources.coco import Coco
from genaug.data.sources.image_folder import ImageFolder
from genaug.data.sources.recognition import recognise
from genaug.data.sources.voc import Voc
from genaug.data.sources.yolo import Yolo
from genaug.data.summary import summary
from tests.data.pictures import picture

SIZE = (16, 12)
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@contextlib.contextmanager
def folder():
    root = Path(tempfile.mkdtemp())
    try:
        yield root
    finally:
        shutil.rmtree(root)


def is_sound(dataset: Dataset) -> bool:
    """Whether all holds that holds of every data set; what does not is named."""
    ids = [sample.id for part in (dataset.train, dataset.val, dataset.test) for sample in part]
    assert len(set(ids)) == len(ids) and dataset.train and summary(dataset)
    assert all(isinstance(name, str) and name for name in dataset.class_names)
    for sample in (*dataset.train, *dataset.val, *dataset.test):
        image = sample.open()
        assert image.mode == "RGB"
        assert all(0 <= label < len(dataset.class_names) for label in sample.label)
        if sample.boxes is not None:
            xyxy = sample.boxes.xyxy
            assert np.isfinite(xyxy).all() and (xyxy[:, 2:] > xyxy[:, :2]).all() and (xyxy >= 0).all()
            assert (xyxy <= np.asarray([*image.size, *image.size])).all()
            assert ((sample.boxes.labels >= 0) & (sample.boxes.labels < len(dataset.class_names))).all()
        mask = sample.read_mask()
        assert mask is None or mask.shape == image.size[::-1]
    return True


def loaded(source: Source, correct: bool) -> Dataset | None:
    """None where the data are refused, which correct ones must not be."""
    try:
        return source.load()
    except GenaugError:
        if correct:
            raise
        return None


names = st.sampled_from(
    [
        "train",
        "Train",
        "training_set",
        "test",
        "TEST",
        "val",
        "images",
        "masks",
        "cat",
        "Cat",
        "dog",
        "a b",
        "@eaDir",
        ".git",
    ]
)
files = st.sampled_from(["0.png", "1.jpg", "2.JFIF", "3.heic", "._4.png", "5.txt", "empty.png", "broken.png", "6.tif"])


@few
@given(st.lists(st.tuples(st.lists(names, min_size=0, max_size=3), files), min_size=1, max_size=14))
def test_any_tree_of_folders(entries):
    with folder() as root:
        for place, name in entries:
            path = root.joinpath(*place, name)
            if path.suffix in (".png", ".jpg", ".JFIF", ".tif") and name not in ("empty.png", "broken.png", "._4.png"):
                picture(path.with_suffix(".png"), SIZE).rename(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"" if name == "empty.png" else b"\x89PNG broken")
        source = ImageFolder(root=str(root), seed=0, skip_corrupt=True)
        with contextlib.suppress(GenaugError):
            identity = source.identity()
            dataset = source.load()
            assert is_sound(dataset)
            layout = recognise(root)
            assert layout.preset == "image_folder" and source.identity() == identity
            num_files = sum(path.is_file() and path.suffix != ".txt" for path in root.rglob("*"))
            left_out = sum(dataset.notes.values())
            assert len(dataset.train) + len(dataset.val) + len(dataset.test) + left_out == num_files  # none is lost


odd = st.sampled_from(
    [
        None,
        True,
        "",
        "x",
        "1",
        -1,
        0,
        1,
        2,
        3.5,
        1e308,
        float("nan"),
        float("inf"),
        [],
        {},
        [1],
        {"a": 1},
        "../x.png",
        "0.png",
    ]
)
keys = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name", "supercategory"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
}
places = st.sampled_from([(part, key) for part, names in keys.items() for key in names])
boxes = st.lists(st.one_of(st.floats(-20, 40), odd), min_size=3, max_size=5)
polygons = st.lists(st.lists(st.one_of(st.floats(-20, 40), odd), max_size=9), max_size=2)
lengths = st.fixed_dictionaries(
    {"size": st.sampled_from([[12, 16], [16, 12], None]), "counts": st.one_of(odd, st.text("0123PQo", max_size=9))}
)


@few
@example([], "utf-8")
@given(
    st.lists(st.tuples(places, st.integers(0, 3), st.one_of(odd, boxes, polygons, lengths), st.booleans()), max_size=3),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
def test_any_change_of_a_coco_file(changes, encoding):
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in range(4)],
        "categories": [{"id": i, "name": f"n{i}"} for i in range(4)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i, "bbox": [1, 2, 5, 6], "segmentation": [[1, 2, 6, 2, 6, 8]]}
            for i in range(4)
        ],
    }
    for (part, key), number, value, remove in changes:
        if remove:
            data[part][number].pop(key, None)
        else:
            data[part][number][key] = value
    with folder() as root:
        for i in range(4):
            picture(root / f"{i}.png", SIZE)
        (root / "instances_train.json").write_text(json.dumps(data), encoding=encoding)
        dataset = loaded(Coco(root=str(root), seed=0), correct=not changes and encoding == "utf-8")
        assert dataset is None or is_sound(dataset)


rows = st.lists(
    st.lists(
        st.one_of(st.integers(-1, 2).map(str), st.floats(0, 1).map(str), st.sampled_from(["nan", "1e9", "x"])),
        max_size=11,
    ),
    max_size=3,
)
descriptions = st.sampled_from(
    [
        *(
            f"names: {names}"
            for names in ("[a, b]", "{0: a, 1: b}", "{a: 0}", "[yes, no]", "3", "[[a]]", "x.txt", "[a, {}]", "")
        ),
        "names: [a, b]\nkpt_shape: [2, 3]",
        "names: [a]\nkpt_shape: [x]",
        "names: [a]\nnc: two",
        "- a",
        "\t:",
    ]
)


YOLO = ([["0", "0.5", "0.5", "0.2", "0.2"]], "names: [a, b]", "train: .")


@few
@example(*YOLO)
@given(rows, descriptions, st.sampled_from(["train: .", "train: [., 1]", "train: {a: b}", "train: 0.png", "val: ."]))
def test_any_yolo_folder(labels, description, splits):
    with folder() as root:
        for i in range(4):
            picture(root / f"{i}.png", SIZE)
            (root / f"{i}.txt").write_text("0 .5 .5 .5 .5\n" if i else "\n".join(" ".join(row) for row in labels))
        (root / "data.yaml").write_text(f"{splits}\n{description}\n")
        dataset = loaded(Yolo(root=str(root), seed=0), correct=(labels, description, splits) == YOLO)
        assert dataset is None or is_sound(dataset)


texts = st.sampled_from(["", "a", "1", "5", "9", "-3", "nan", "1e400", "<", "&", "cat", "16", "12"])


VOC = ("cat", "1", "1", "9", "9", "16", "12", "0")


@few
@example(VOC, "utf-8")
@given(st.tuples(*[texts] * 8), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_any_voc_file(values, encoding):
    name, x1, y1, x2, y2, width, height, difficult = values
    with folder() as root:
        for i in range(4):
            picture(root / "JPEGImages" / f"{i}.png", SIZE)
            (root / "Annotations").mkdir(exist_ok=True)
            words = (name, x1, y1, x2, y2, width, height, difficult) if i == 0 else ("cat", 1, 1, 9, 9, 0, 0, 0)
            text = (
                "<annotation><object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
                "<difficult>{7}</difficult></object><size><width>{5}</width><height>{6}</height></size></annotation>"
            ).replace("{}", "{{}}")
            for word in words[:5]:
                text = text.replace("{{}}", str(word), 1)
            text = text.replace("{5}", str(words[5])).replace("{6}", str(words[6])).replace("{7}", str(words[7]))
            (root / "Annotations" / f"{i}.xml").write_text(text, encoding=encoding)
        dataset = loaded(Voc(root=str(root), seed=0), correct=values == VOC and encoding == "utf-8")
        assert dataset is None or is_sound(dataset)
