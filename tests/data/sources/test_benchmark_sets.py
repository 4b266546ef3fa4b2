"""Sets of the benchmarks, each from a tree in its true layout: CUB-200-2011, CIFAR-100, iNaturalist 2021, ISIC 2018,
UniDiffDA's splits and Roboflow's exports."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.data.sources.cifar import Cifar10, Cifar100, read_pickle
from genaug.data.sources.cub import Cub200
from genaug.data.sources.inaturalist import INaturalist2021
from genaug.data.sources.isic import Isic2018
from genaug.data.sources.roboflow import Roboflow
from genaug.data.sources.table import ImageTable
from genaug.data.sources.unidiffda import UniDiffDa
from tests.data.pictures import picture

RNG = np.random.default_rng(0)
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def cub(root: Path) -> Path:
    base = root / "CUB_200_2011"
    rows = [(i + 1, f"{BIRDS[i % 2]}/{BIRDS[i % 2][4:]}_{i:04d}_7.jpg") for i in range(12)]
    for _, name in rows:
        picture(base / "images" / name)
    (base / "images.txt").write_text("".join(f"{key} {name}\n" for key, name in rows))
    (base / "image_class_labels.txt").write_text("".join(f"{key} {(key - 1) % 2 + 1}\n" for key, _ in rows))
    (base / "train_test_split.txt").write_text("".join(f"{key} {int(key <= 8)}\n" for key, _ in rows))
    (base / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(BIRDS, start=1)))
    return root


def test_cubs_official_list_says_what_trains_and_what_tests(tmp_path: Path) -> None:
    dataset = Cub200(root=str(cub(tmp_path)), seed=0, val_fraction=0.25).load()
    assert dataset.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert {s.id.split("_")[-2] for s in dataset.test} == {"0008", "0009", "0010", "0011"}
    assert (len(dataset.train), len(dataset.val)) == (6, 2)
    assert all(BIRDS[s.class_index] in s.id for s in (*dataset.train, *dataset.val, *dataset.test))


def test_few_birds_are_the_same_for_one_seed_and_nested(tmp_path: Path) -> None:
    def drawn(seed: int, shots: int) -> set[str]:
        source = Cub200(root=str(tmp_path), seed=seed, shots=shots, val_fraction=0.0)
        return {sample.id for sample in source.load().train}

    cub(tmp_path)
    assert drawn(0, 1) < drawn(0, 3) and len(drawn(0, 3)) == 6
    assert drawn(0, 1) != drawn(3, 1)


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("train_test_split.txt", "3 1\n", "", r"train_test_split\.txt has no row for image 3"),
        ("train_test_split.txt", "3 1\n", "3 2\n", "is_training_image 2"),
        ("image_class_labels.txt", "4 2\n", "4 9\n", "the class 9"),
        ("images.txt", "2 ", "1 ", r"images\.txt:2: .* is not an id of its own"),
    ],
)
def test_a_damaged_list_of_birds_is_named(tmp_path: Path, file: str, old: str, new: str, match: str) -> None:
    path = cub(tmp_path) / "CUB_200_2011" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(GenaugError, match=match):
        Cub200(root=str(tmp_path), seed=0).load()


def test_a_picture_of_the_lists_that_is_not_there_is_named(tmp_path: Path) -> None:
    next((cub(tmp_path) / "CUB_200_2011" / "images" / BIRDS[1]).iterdir()).unlink()
    with pytest.raises(GenaugError, match=rf"there is no .*{BIRDS[1]}/.*_7\.jpg"):
        Cub200(root=str(tmp_path), seed=0).load()


def cifar100(root: Path, train: int = 8) -> Path:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    names = {"fine_label_names": ["apple", "baby"], "coarse_label_names": ["people", "plants"]}
    (base / "meta").write_bytes(pickle.dumps(names, protocol=2))
    for name, number in (("train", train), ("test", 4)):
        fine = [i % 2 for i in range(number)]
        batch = {
            "data": RNG.integers(0, 256, (number, 3072), dtype=np.uint8),
            "fine_labels": fine,
            "coarse_labels": [1 - label for label in fine],
            "filenames": [f"{i}.png" for i in range(number)],
            "batch_label": "training batch 1 of 1",
        }
        (base / name).write_bytes(pickle.dumps(batch, protocol=2))
    return root


def test_cifar_100_is_read_upright_with_fine_or_coarse_classes(tmp_path: Path) -> None:
    fine = Cifar100(root=str(cifar100(tmp_path)), seed=0).load()
    assert fine.class_names == ("apple", "baby") and (len(fine.train), len(fine.val), len(fine.test)) == (6, 2, 4)
    coarse = Cifar100(root=str(tmp_path), seed=0, level="coarse").load()
    assert coarse.class_names == ("people", "plants")
    assert [s.class_index for s in coarse.test] == [1 - s.class_index for s in fine.test]
    raw = read_pickle(tmp_path / "cifar-100-python" / "test")["data"]
    assert (np.asarray(fine.test[0].open()) == raw[0].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_the_batches_are_those_that_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    theirs = torchvision.datasets.CIFAR100(str(cifar100(tmp_path)), train=False)
    ours = Cifar100(root=str(tmp_path), seed=0).load().test
    assert [s.class_index for s in ours] == theirs.targets
    assert all((np.asarray(sample.open()) == image).all() for sample, image in zip(ours, theirs.data, strict=True))
    assert (Cifar100.archive, Cifar10.archive) == (
        (torchvision.datasets.CIFAR100.url, torchvision.datasets.CIFAR100.tgz_md5),
        (torchvision.datasets.CIFAR10.url, torchvision.datasets.CIFAR10.tgz_md5),
    )


def test_a_picture_is_told_by_its_pixels(tmp_path: Path) -> None:
    samples = Cifar100(root=str(cifar100(tmp_path)), seed=0).load().test
    assert len({sample.digest for sample in samples}) == len(samples)
    path = tmp_path / "cifar-100-python" / "test"
    batch = read_pickle(path)
    batch["data"] = batch["data"][::-1]
    path.write_bytes(pickle.dumps(batch, protocol=2))
    turned = Cifar100(root=str(tmp_path), seed=0).load().test
    assert [sample.digest for sample in turned] == [sample.digest for sample in samples][::-1]


class Runs:
    def __reduce__(self):
        return os.mkdir, (str(self.place),)

    def __init__(self, place: Path) -> None:
        self.place = place


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_batch_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    cifar100(tmp_path)
    trap = tmp_path / "trap"
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps({"data": Runs(trap)}, protocol=protocol))
    with pytest.raises(GenaugError, match=r"it asks for (posix|os)\.mkdir"):
        Cifar100(root=str(tmp_path), seed=0).load()
    assert not trap.exists()


def test_a_batch_of_another_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(GenaugError, match="holds a list, not a dictionary"):
        read_pickle(file)
    file.write_bytes(b"\x80\x04nothing")
    with pytest.raises(GenaugError, match="is no batch of arrays"):
        read_pickle(file)
    cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps({"data": [1, 2, 3]}))
    with pytest.raises(GenaugError, match=r"test is no batch of CIFAR-100"):
        Cifar100(root=str(tmp_path), seed=0).load()


def inaturalist(root: Path) -> Path:
    species = (
        ("Corvus corax", "Common Raven", "Birds"),
        ("Corvus corone", None, "Birds"),
        ("Amanita muscaria", "Fly Agaric", "Fungi"),
    )
    categories = [
        {"id": i, "name": name, "common_name": common, "supercategory": group, "image_dir_name": f"{i:05d}_{group}"}
        for i, (name, common, group) in enumerate(species)
    ]
    for split, number in (("train_mini", 4), ("val", 2)):
        images, annotations = [], []
        for row in categories:
            for _ in range(number):
                key = len(images)
                name = f"{split}/{row['image_dir_name']}/{key}.jpg"
                picture(root / name)
                images.append({"id": 1000 + key, "file_name": name, "width": 8, "height": 8})
                annotations.append({"id": key, "image_id": 1000 + key, "category_id": row["id"]})
        data = {"images": images, "annotations": annotations[::-1], "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(data))
    return root


def test_inaturalists_validation_list_is_the_test_and_a_group_can_be_taken_alone(tmp_path: Path) -> None:
    dataset = INaturalist2021(root=str(inaturalist(tmp_path)), seed=0, val_fraction=0.25).load()
    assert dataset.class_names == ("Common Raven", "Corvus corone", "Fly Agaric")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (9, 3, 6)
    assert all(int(s.id.split("/")[1][:5]) == s.class_index for s in (*dataset.train, *dataset.val, *dataset.test))
    birds = INaturalist2021(
        root=str(tmp_path), seed=0, supercategory="Birds", names="scientific", val_fraction=0.0
    ).load()
    assert birds.class_names == ("Corvus corax", "Corvus corone") and (len(birds.train), len(birds.test)) == (8, 4)
    with pytest.raises(GenaugError, match="write one of Birds, Fungi"):
        INaturalist2021(root=str(tmp_path), seed=0, supercategory="birds").load()


def test_two_species_of_one_name_are_two_classes(tmp_path: Path) -> None:
    for split in ("train_mini", "val"):
        path = inaturalist(tmp_path) / f"{split}.json" if split == "train_mini" else tmp_path / f"{split}.json"
        path.write_text(path.read_text().replace('"common_name": null', '"common_name": "Common Raven"'))
    dataset = INaturalist2021(root=str(tmp_path), seed=0).load()
    assert dataset.class_names == ("Common Raven", "Common Raven (Corvus corone)", "Fly Agaric")


def test_the_many_pictures_of_inaturalist_are_told_by_name_and_size_without_being_read(tmp_path: Path) -> None:
    dataset = INaturalist2021(root=str(inaturalist(tmp_path)), seed=0, val_fraction=0.0).load()
    path = tmp_path / dataset.train[0].id
    path.write_bytes(bytes(path.stat().st_size))
    again = INaturalist2021(root=str(tmp_path), seed=0, val_fraction=0.0).load()
    assert [sample.digest for sample in again.train] == [sample.digest for sample in dataset.train]


def isic(root: Path) -> Path:
    head = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    for part, number in (("Training", 14), ("Validation", 7), ("Test", 7)):
        rows = []
        for i in range(number):
            name = f"ISIC_{part[0]}{i:04d}"
            picture(root / f"ISIC2018_Task3_{part}_Input" / f"{name}.jpg")
            rows.append(",".join([name, *(str(float(column == i % 7)) for column in range(7))]))
        table = root / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv"
        table.parent.mkdir()
        table.write_text("\n".join([head, *rows]) + "\n")
    return root


def test_isics_columns_of_zeros_and_a_one_are_classes(tmp_path: Path) -> None:
    dataset = Isic2018(root=str(isic(tmp_path)), seed=0).load()
    assert dataset.class_names[0] == "melanoma" and len(dataset.class_names) == 7
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (14, 7, 7)
    for part, name in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
        assert all(s.id.startswith(f"ISIC2018_Task3_{name}_Input/") for s in getattr(dataset, part))
    table = tmp_path / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    table.rename(tmp_path / table.name)  # as the archives without a folder of their own unpack
    assert len(Isic2018(root=str(tmp_path), seed=0).load().test) == 7
    assert all(int(s.id[-8:-4]) % 7 == s.class_index for s in (*dataset.train, *dataset.val, *dataset.test))


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("ISIC_T0000,1.0,1.0,0,0,0,0,0", r"csv:2 has MEL=1, NV=1.*write 1 once"),
        ("ISIC_T0000,.5,.5,0,0,0,0,0", "write 1 once"),
        ("ISIC_T0000,x,0,0,0,0,0,1", "its classes cannot be read"),
    ],
)
def test_a_row_without_one_class_is_named(tmp_path: Path, row: str, match: str) -> None:
    path = isic(tmp_path) / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], row, *lines[2:]]))
    with pytest.raises(GenaugError, match=match):
        Isic2018(root=str(tmp_path), seed=0).load()


def test_a_table_of_ones_own_may_have_a_column_per_class(tmp_path: Path) -> None:
    for i in range(8):
        picture(tmp_path / "images" / f"{i}.png")
    rows = [f"{i},{int(i % 2 == 0)},{int(i % 2)}" for i in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,benign,malign", *rows]))
    dataset = ImageTable(root=str(tmp_path), seed=0, label=["malign", "benign"]).load()
    assert dataset.class_names == ("benign", "malign")
    assert all(int(Path(s.id).stem) % 2 == s.class_index for s in (*dataset.train, *dataset.test))
    with pytest.raises(GenaugError, match="has no column 'unsure', only image, benign, malign"):
        ImageTable(root=str(tmp_path), seed=0, label=["malign", "unsure"]).load()


def folders(root: Path, *splits: str, number: int = 2) -> None:
    for split in splits:
        for name in ("apple", "baby"):
            for i in range(number):
                picture(root / split / name / f"{i}.png")


def test_the_benchmarks_own_splits_are_read(tmp_path: Path) -> None:
    folders(tmp_path / "Caltech101", "train", "test")
    folders(tmp_path / "Skin" / "shot10", "train", "test", number=3)
    folders(tmp_path / "CIFAR100", "train-subset")
    cifar100(tmp_path / "CIFAR100")
    caltech = UniDiffDa(root=str(tmp_path), seed=0, val_fraction=0.0).load()
    assert (len(caltech.train), len(caltech.val), len(caltech.test)) == (4, 0, 4)
    skin = UniDiffDa(root=str(tmp_path), seed=0, subset="skin", per_class=10, val_fraction=0.0).load()
    assert (len(skin.train), len(skin.test)) == (6, 6)
    cifar = UniDiffDa(root=str(tmp_path), seed=0, subset="cifar100", val_fraction=0.0).load()
    assert cifar.class_names == ("apple", "baby") and (len(cifar.train), len(cifar.test)) == (4, 4)
    assert all(("apple" in s.id) == (s.class_index == 0) for s in (*cifar.train, *caltech.test, *skin.test))
    with pytest.raises(GenaugError, match="write 10 or 50"):
        UniDiffDa(root=str(tmp_path), seed=0, subset="skin", per_class=5)
    folders(tmp_path / "CIFAR100" / "train-subset" / "..", "train-subset")
    picture(tmp_path / "CIFAR100" / "train-subset" / "zebra" / "0.png")
    with pytest.raises(GenaugError, match="other class folders than CIFAR-100"):
        UniDiffDa(root=str(tmp_path), seed=0, subset="cifar100").load()
    picture(tmp_path / "Caltech101" / "test" / "zebra" / "0.png")
    with pytest.raises(GenaugError, match="zebra is a class without training images"):
        UniDiffDa(root=str(tmp_path), seed=0).load()


def test_another_test_picture_is_another_data_set(tmp_path: Path) -> None:
    folders(tmp_path / "Caltech101", "train", "test")
    before = UniDiffDa(root=str(tmp_path), seed=0).identity()
    picture(tmp_path / "Caltech101" / "test" / "apple" / "9.png")
    assert UniDiffDa(root=str(tmp_path), seed=0).identity() != before


def roboflow(root: Path, **names: list[str]) -> Path:
    for split, stems in names.items():
        for i, stem in enumerate(stems):
            picture(root / split / "images" / f"{stem}.jpg")
            label = root / split / "labels" / f"{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{i % 2} .5 .5 .4 .4\n")
    lines = [f"{split}: ../{split}/images" for split in names]
    (root / "data.yaml").write_text("\n".join([*lines, "nc: 2", "names: [fracture, none]"]))
    return root


def test_training_copies_of_a_picture_that_is_held_out_are_left_out(tmp_path: Path) -> None:
    roboflow(
        tmp_path,
        train=["a_png.rf.01", "a_png.rf.02", "b_png.rf.03", "c_png.rf.04", "plain"],
        valid=["b_png.rf.05", "d_png.rf.06"],
        test=["a_png.rf.07", "d_png.rf.08"],
    )
    dataset = Roboflow(root=str(tmp_path), seed=0).load()
    assert [Path(s.id).stem for s in dataset.train] == ["c_png.rf.04", "plain"]
    assert [Path(s.id).stem for s in dataset.val] == ["b_png.rf.05"] and len(dataset.test) == 2
    assert dataset.notes["train_images_of_pictures_in_val_or_test_left_out"] == 3
    assert dataset.notes["val_images_of_pictures_in_test_left_out"] == 1
    assert dataset.notes["images_whose_name_tells_no_original"] == 1
    with pytest.raises(GenaugError, match="no group"):
        Roboflow(root=str(tmp_path), seed=0, original="png")
    with pytest.raises(GenaugError, match="finds every training picture"):
        Roboflow(root=str(tmp_path), seed=0, original="(j)pg").load()


def test_a_pattern_that_no_file_name_has_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    roboflow(tmp_path, train=["scan 1", "scan 2"], valid=["scan 3"], test=["scan 4"])
    with pytest.raises(
        GenaugError, match=r"matches none of 4 file names.*e\.g\. scan 1\.jpg, scan 2\.jpg, scan 3\.jpg\..*dataset=yolo"
    ):
        Roboflow(root=str(tmp_path), seed=0).load()


def test_the_pattern_of_bone_x_rays_sees_through_the_prefix_of_a_copy(tmp_path: Path) -> None:
    import yaml

    from tests.conftest import ROOT

    pattern = yaml.safe_load((ROOT / "conf/dataset/bone_xrays.yaml").read_text())["original"]
    roboflow(
        tmp_path,
        train=["n_0_6129_png.rf.aa", "n_0_7_png.rf.bb"],
        valid=["x_3_8_png.rf.dd"],
        test=["r_1_6129_png.rf.cc"],
    )
    dataset = Roboflow(root=str(tmp_path), seed=0, original=pattern).load()
    assert [Path(s.id).name for s in dataset.train] == ["n_0_7_png.rf.bb.jpg"]


@pytest.mark.parametrize(
    ("tree", "source", "file", "old", "new"),
    [
        (cub, Cub200, "CUB_200_2011/train_test_split.txt", "3 1\n", "3 0\n"),
        (isic, Isic2018, "ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth.csv", "0.0,1.0", "1.0,0.0"),
        (inaturalist, INaturalist2021, "train_mini.json", '"category_id": 2', '"category_id": 1'),
    ],
)
def test_another_list_of_the_same_length_is_another_data_set(
    tmp_path: Path, tree: Callable[[Path], Path], source: Any, file: str, old: str, new: str
) -> None:
    path = tree(tmp_path) / file
    before, text = source(root=str(tmp_path), seed=0).identity(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert path.stat().st_size == len(text) and source(root=str(tmp_path), seed=0).identity() != before


def test_an_image_that_is_added_or_of_another_size_is_another_data_set(tmp_path: Path) -> None:
    folder = cub(tmp_path) / "CUB_200_2011" / "images" / BIRDS[0]
    before = Cub200(root=str(tmp_path), seed=0).identity()
    picture(folder / "new.jpg")
    more = Cub200(root=str(tmp_path), seed=0).identity()
    picture(folder / "new.jpg", (30, 30))
    assert len({str(found) for found in (before, more, Cub200(root=str(tmp_path), seed=0).identity())}) == 3


@pytest.mark.parametrize("source", [Cub200, Cifar10, Cifar100, INaturalist2021, Isic2018, UniDiffDa])
def test_absent_data_names_the_page_the_files_and_the_place(source: type, tmp_path: Path) -> None:
    with pytest.raises(GenaugError) as error:
        source(root=str(tmp_path), seed=0).identity()
    for part in (source.origin.page, source.origin.files, source.origin.licence, str(tmp_path)):
        assert part in str(error.value)
    assert not list(tmp_path.iterdir())  # nothing is created in the user's folder
    if not source.origin.can_download:
        with pytest.raises(GenaugError, match="is not fetched by this program"):
            source(root=str(tmp_path), seed=0, download=True)
