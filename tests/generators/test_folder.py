import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.identity import content_digest, digest_bytes
from genaug.core.store import Store
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.generators.folder import ImagesFromFolder
from genaug.generators.publishing import make_pool


def picture(path, value, size=(10, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path)
    return path


def sample(name, label=None, boxes=None):
    pixels = np.random.default_rng(list(name.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    weights = {} if label is None else {label: 1.0}
    return Sample(id=name, digest=digest_bytes(pixels.tobytes()), image=pixels, label=weights, boxes=boxes)


def classes(count=2, test=()):
    train = tuple(sample(f"train/{name}/{i}.png", label) for label, name in enumerate("ab") for i in range(count))
    return Dataset(name="d", task="classification", class_names=("red fox", "b"), train=train, val=(), test=tuple(test))


def scenes():
    box = Boxes(xyxy=np.float32([[1, 1, 4, 4]]), labels=np.int64([1]), crowd=np.array([False]))
    train = tuple(sample(f"train/{i}.png", boxes=box) for i in range(2))
    return Dataset(name="d", task="detection", class_names=("car", "dog"), train=train, val=(), test=())


def build(tmp_path, root, dataset, m=5, said=None, **fields):
    generator = ImagesFromFolder(name="folder", seed=0, root=str(root), **fields)
    generator.check_dataset(dataset)
    say = (lambda text: None) if said is None else said.append
    fitted = generator.fit_fingerprint(dataset, None)
    return make_pool(Store(tmp_path / "store"), generator, dataset, None, fitted, lambda: None, m, say)


def manifest(root, *rows):
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_images_in_class_folders_take_turns_at_the_training_images_of_their_class(tmp_path):
    for i in range(3):
        picture(tmp_path / "made/red_fox" / f"{i}.png", i)
    picture(tmp_path / "made/b/x.png", 9)
    pool = build(tmp_path, tmp_path / "made", classes())
    assert sorted((s.source_id[:7], s.index) for s in pool.samples) == [
        ("train/a", 0),
        ("train/a", 0),
        ("train/a", 1),
        ("train/b", 0),
    ]
    assert {s.class_index for s in pool.samples if s.source_id.startswith("train/a")} == {0}
    assert np.asarray(next(s for s in pool.samples if s.class_index == 1).open())[0, 0].tolist() == [9, 0, 246]


def test_at_most_m_images_per_training_image_are_used_and_the_rest_is_said(tmp_path):
    for i in range(5):
        picture(tmp_path / "made/b" / f"{i}.png", i)
    said = []
    pool = build(tmp_path, tmp_path / "made", classes(), m=2, said=said)
    assert len(pool.samples) == 4
    assert pool.counts["images_left_out"] == 1
    assert any("1 image(s) beyond mix.m=2" in line for line in said)


def test_a_manifest_names_the_source_and_keeps_its_label(tmp_path):
    root = tmp_path / "made"
    picture(root / "x.png", 1), picture(root / "y.png", 2), picture(root / "z.png", 3)
    manifest(
        root,
        {"file_name": "x.png", "source": "train/b/1.png"},
        {"file_name": "y.png", "source": "train/b/1.png", "label": {"red fox": 3, "b": 1}},
        {"file_name": "z.png", "source": "train/b/0.png", "rejected": "blank"},
        {"file_name": "z.png", "source": "train/a/0.png", "generated": False},  # a real one of genaug export
    )
    pool = build(tmp_path, root, classes())
    assert {s.source_id for s in pool.samples} == {"train/b/1.png"}
    assert sorted((tuple(s.label.items()) for s in pool.samples), key=len) == [((1, 1.0),), ((0, 0.75), (1, 0.25))]


def test_the_end_of_an_id_is_enough_unless_several_images_have_it(tmp_path):
    train = (sample("digits/0306", 0), sample("digits/0307", 1), sample("a/x.png", 0), sample("b/x.png", 1))
    dataset = Dataset(name="d", task="classification", class_names=("a", "b"), train=train, val=(), test=())
    root = tmp_path / "made"
    for i, source in enumerate(("0306", "x", "x.png", "a/x.png")):
        picture(root / f"{i}.png", i)
        manifest(root, {"file_name": f"{i}.png", "source": source}, {"file_name": "0.png", "source": "digits/0307"})
        assert {s.source_id for s in build(tmp_path, root, dataset).samples} == {
            "digits/0307",
            *({"digits/0306"} if source == "0306" else {"a/x.png"} if source == "a/x.png" else ()),
        }


def test_images_of_sources_that_this_trial_does_not_train_on_are_left_out(tmp_path):
    root = tmp_path / "made"
    picture(root / "x.png", 1), picture(root / "y.png", 2)
    manifest(root, {"file_name": "x.png", "source": "train/b/1.png"}, {"file_name": "y.png", "source": "test/9.png"})
    said = []
    assert len(build(tmp_path, root, classes(), said=said).samples) == 1
    assert any("1 image(s) whose source" in line for line in said)
    manifest(root, {"file_name": "y.png", "source": "test/9.png"})
    with pytest.raises(GenaugError, match="belongs to a training image"):
        build(tmp_path, root, classes())


def test_boxes_come_from_the_manifest_or_from_the_source(tmp_path):
    root = tmp_path / "made"
    picture(root / "x.png", 1), picture(root / "y.png", 2, size=(16, 17)), picture(root / "z.png", 3)
    manifest(
        root,
        {"file_name": "x.png", "source": "0.png", "objects": [{"bbox": [2, 1, 4, 3], "category": "car"}]},
        {"file_name": "y.png", "source": "1.png"},
        {"file_name": "z.png", "objects": {"bbox": [[0, 0, 2, 2], [1, 1, 2, 2]], "category": ["car", "dog"]}},
    )
    found = {np.asarray(s.open())[0, 0, 0]: s for s in build(tmp_path, root, scenes()).samples}
    assert found[1].boxes.xyxy.tolist() == [[2, 1, 6, 4]] and found[1].boxes.labels.tolist() == [0]
    assert found[2].boxes.xyxy.tolist() == [[2, 2.125, 8, 8.5]] and found[2].boxes.labels.tolist() == [1]
    assert found[3].boxes.labels.tolist() == [0, 1]


def test_boxes_of_a_source_of_another_shape_are_refused_before_anything_is_made(tmp_path):
    picture(tmp_path / "made/y.png", 2, size=(16, 12))
    manifest(tmp_path / "made", {"file_name": "y.png", "source": "1.png"})
    generator = ImagesFromFolder(name="folder", seed=0, root=str(tmp_path / "made"))
    with pytest.raises(
        GenaugError, match=r"metadata\.jsonl:1: the image has 16 x 12 pixels and its source .*objects in a"
    ):
        generator.check_dataset(scenes())
    picture(tmp_path / "made/y.png", 2, size=(8, 8))
    as_it_was = generator.variants(scenes(), 1, "fitted")[0]
    picture(tmp_path / "made/y.png", 2, size=(16, 16))
    assert as_it_was.fingerprint != generator.variants(scenes(), 1, "fitted")[0].fingerprint


def test_a_csv_manifest_reads_as_the_same_in_json(tmp_path):
    root = tmp_path / "made"
    picture(root / "x.png", 1)
    (root / "list.csv").write_text("file_name,source,label\nx.png,train/b/0.png,b\n")
    pool = build(tmp_path, root, classes(), manifest="list.csv")
    assert [(s.source_id, s.label) for s in pool.samples] == [("train/b/0.png", {1: 1.0})]


def test_the_identity_follows_the_content_not_the_names(tmp_path):
    picture(tmp_path / "one/b/x.png", 1), picture(tmp_path / "one/b/y.png", 2)
    picture(tmp_path / "two/b/p.png", 2), picture(tmp_path / "two/b/q.png", 1)
    picture(tmp_path / "three/b/p.png", 2), picture(tmp_path / "three/b/q.png", 7)
    one, two, three = (build(tmp_path, tmp_path / name, classes()) for name in ("one", "two", "three"))
    assert one.fingerprint == two.fingerprint != three.fingerprint
    assert two.counts["images_generated"] == 0 and three.counts["images_generated"] > 0


def test_another_label_source_or_box_of_an_image_is_another_pool(tmp_path):
    root = tmp_path / "made"
    picture(root / "x.png", 1)
    rows = [
        {"source": "train/b/0.png"},
        {"source": "train/b/1.png"},
        {"source": "train/b/0.png", "label": "b"},
        {"source": "train/b/0.png", "label": "red fox"},
        {"source": "train/b/0.png", "objects": []},
        {"source": "train/b/0.png", "objects": [{"bbox": [1, 1, 2, 2], "category": "b"}]},
    ]
    identities = set()
    for row in rows:
        manifest(root, {"file_name": "x.png", **row})
        identities.add(ImagesFromFolder(name="folder", seed=0, root=str(root)).images())
    assert len(identities) == len(rows)


def test_copies_of_test_images_are_refused(tmp_path):
    path = picture(tmp_path / "made/b/x.png", 1)
    test = [Sample(id="test/9.png", digest=content_digest(path), image=path, label={1: 1.0})]
    with pytest.raises(GenaugError, match=r"x\.png is test/9\.png"):
        build(tmp_path, tmp_path / "made", classes(test=test))
    with pytest.raises(GenaugError, match=r"x\.png is test/9\.png"):
        build(tmp_path, tmp_path / "made", replace(classes(), val=tuple(test)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file_name": "x.png"}, "a row has file_name and any of"),
        ({"file_name": "no.png", "label": "b"}, "no.png is not a file"),
        ({"file_name": "x.png", "label": "cow"}, r"metadata\.jsonl:1: the class 'cow'"),
        ({"file_name": "x.png", "objects": [{"bbox": [1, 2]}]}, r"metadata\.jsonl:1: its objects cannot be read"),
    ],
)
def test_a_faulty_row_is_named_with_its_line(tmp_path, row, message):
    picture(tmp_path / "made/x.png", 1)
    manifest(tmp_path / "made", row)
    with pytest.raises(GenaugError, match=message):
        build(tmp_path, tmp_path / "made", classes())


def test_a_folder_without_images_says_what_belongs_there(tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(GenaugError, match="<root>/<class>/<image>"):
        build(tmp_path, tmp_path / "made", classes())
