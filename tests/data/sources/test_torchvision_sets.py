"""Sets read by torchvision's loaders, each from a tree in its true layout.

torchvision compares checksums of the real archives' files for some sets; these are replaced by those of the trees.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from genaug.core.errors import GenaugError
from genaug.data.sample import Dataset
from genaug.data.sources import torchvision_sets as sets

RNG = np.random.default_rng(0)


def picture(path: Path, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def caltech(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for category in ("BACKGROUND_Google", "Faces_easy", "accordion", "yin_yang"):
        for i in range(8):
            picture(root / "caltech101" / "101_ObjectCategories" / category / f"image_{i + 1:04d}.jpg")


def flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "flowers-102"
    for i in range(1, 103 * 4):
        picture(base / "jpg" / f"image_{i:05d}.jpg", 8)
    ids = np.arange(1, 102 * 4 + 1)
    savemat(base / "imagelabels.mat", {"labels": (ids - 1) % 102 + 1})
    savemat(base / "setid.mat", {"trnid": ids[:102], "valid": ids[102:204], "tstid": ids[204:]})
    table = torchvision.datasets.Flowers102._file_dict
    known = {key: (name, md5(base / name)) for key, (name, _) in table.items() if key != "image"}
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", {**table, **known})


def aircraft(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    base.mkdir(parents=True)
    number = 0
    for level, names in (("variant", ["707-320", "A300B4"]), ("family", ["Boeing 707", "A300"])):
        number = 0
        (base / {"variant": "variants.txt", "family": "families.txt"}[level]).write_text("\n".join(names) + "\n")
        for split in ("train", "val", "test"):
            lines = []
            for name in names:
                for _ in range(3):
                    number += 1
                    lines.append(f"{number:07d} {name}")
            (base / f"images_{level}_{split}.txt").write_text("\n".join(lines) + "\n")
    for i in range(1, number + 1):
        picture(base / "images" / f"{i:07d}.jpg")


def cars(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    savemat(
        base / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Acura RL"], dtype=object)}
    )
    for split, annotations in (
        ("train", base / "devkit/cars_train_annos.mat"),
        ("test", base / "cars_test_annos_withlabels.mat"),
    ):
        rows = [(f"{i:05d}.jpg", i % 2 + 1) for i in range(10)]
        savemat(annotations, {"annotations": np.array(rows, dtype=[("fname", object), ("class", object)])})
        for name, _ in rows:
            picture(base / f"cars_{split}" / name)


def pets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for split, start in (("trainval", 0), ("test", 10)):
        lines = []
        for i in range(start, start + 5):
            for label, breed in ((1, "Abyssinian"), (2, "american_bulldog")):
                lines.append(f"{breed}_{i} {label} 1 1")
                picture(base / "images" / f"{breed}_{i}.jpg")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AnnualCrop", "SeaLake"):
        for i in range(10):
            picture(root / "eurosat" / "2750" / name / f"{name}_{i + 1}.jpg")


def stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    (base / "class_names.txt").write_text("airplane\nbird\n")
    (base / "fold_indices.txt").write_text("0 2 5 7 \n" * 10)
    for name, count in (("train", 8), ("test", 6), ("unlabeled", 5)):
        RNG.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8).tofile(base / f"{name}_X.bin")
        if name != "unlabeled":
            (np.arange(count, dtype=np.uint8) % 2 + 1).tofile(base / f"{name}_y.bin")
    for table in ("train_list", "test_list"):
        files = [[name, md5(base / name)] for name, _ in getattr(torchvision.datasets.STL10, table)]
        monkeypatch.setattr(torchvision.datasets.STL10, table, files)


TREES = {
    sets.Caltech101: (caltech, {"train_per_class": 5}, (12, 3, 9)),
    sets.Flowers102: (flowers, {}, (102, 102, 204)),
    sets.FgvcAircraft: (aircraft, {}, (6, 6, 6)),
    sets.StanfordCars: (cars, {}, (8, 2, 10)),
    sets.OxfordPets: (pets, {}, (8, 2, 10)),
    sets.EuroSat: (eurosat, {}, (12, 4, 4)),
    sets.Stl10: (stl10, {}, (6, 2, 6)),
}


def build(source: type, root: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Dataset:
    make, extra, _ = TREES[source]
    make(root, monkeypatch)
    return source(root=str(root), seed=0, **{**extra, **fields}).load()


@pytest.mark.parametrize("source", TREES)
def test_a_tree_in_the_true_layout_is_read_with_disjoint_splits(
    source: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build(source, tmp_path, monkeypatch)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == TREES[source][2]
    every = (*dataset.train, *dataset.val, *dataset.test)
    assert len({sample.id for sample in every}) == len(every)
    assert {sample.class_index for sample in every} <= set(range(len(dataset.class_names)))
    assert dataset.train[0].open().mode == "RGB"
    fields = TREES[source][1]
    assert (
        source(root=str(tmp_path), seed=0, **fields).identity()
        == source(root=str(tmp_path), seed=1, **fields).identity()
    )


@pytest.mark.parametrize("source", TREES)
def test_absent_data_names_the_page_the_size_and_the_place(source: type, tmp_path: Path) -> None:
    with pytest.raises(GenaugError) as error:
        source(root=str(tmp_path), seed=0).identity()
    for part in (source.origin.page, source.origin.size, source.origin.licence, str(tmp_path / source.base)):
        assert part in str(error.value)
    assert not list(tmp_path.iterdir())  # nothing is created in the user's folder


@pytest.mark.parametrize("source", [sets.Caltech101, sets.Flowers102])
def test_the_reference_split_halves_each_class_by_the_trials_seed_and_nests_in_shots(
    source: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, fields, _ = TREES[source]
    make(tmp_path, monkeypatch)

    def load(seed: int, shots: int | None = None) -> Dataset:
        return source(root=str(tmp_path), split="reference", seed=seed, shots=shots, **fields).load()

    whole = load(0)
    assert len(whole.class_names) == (102 if source is sets.Flowers102 else 4)
    assert len(whole.train) == len(whole.test) and not whole.val
    assert {s.id for s in load(0, 1).train} <= {s.id for s in load(0, 2).train} <= {s.id for s in whole.train}
    assert {s.id for s in load(0, 1).test} == {s.id for s in whole.test}
    assert {s.id for s in load(1).train} != {s.id for s in whole.train}
    identities = [source(root=str(tmp_path), split="reference", seed=seed, **fields).identity() for seed in (0, 1)]
    assert identities[0] != identities[1]
    # the reference's own lines, for the first class: permutation, halved, first n
    every = sorted(s.id for s in (*whole.train, *whole.test) if s.class_index == 0)
    expected = np.array_split(np.random.default_rng(0).permutation(len(every)), 2)[0][:2]
    assert [s.id for s in load(0, 2).train if s.class_index == 0] == [every[i] for i in expected]


def test_the_reference_classes_of_caltech_include_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_background = build(sets.Caltech101, tmp_path, monkeypatch, split="reference").class_names
    assert with_background == ("accordion", "background google", "faces easy", "yin yang")
    assert sets.Caltech101(root=str(tmp_path), seed=0, train_per_class=5).load().class_names == (
        "faces easy",
        "accordion",
        "yin yang",
    )


def test_stl10_gives_its_unlabelled_part_and_its_official_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build(sets.Stl10, tmp_path, monkeypatch)
    assert len(dataset.unlabelled) == 5 and all(not sample.label for sample in dataset.unlabelled)
    folded = sets.Stl10(root=str(tmp_path), seed=0, fold=3, val_fraction=0.0, unlabelled=False).load()
    assert len(folded.train) == 4 and not folded.unlabelled
    with pytest.raises(GenaugError, match=r"fold=10 must be in \[0, 9\]"):
        sets.Stl10(root="x", seed=0, fold=10)


def test_stl10_pictures_are_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(sets.Stl10, tmp_path, monkeypatch, unlabelled=False)
    raw = np.fromfile(tmp_path / "stl10_binary" / "test_X.bin", dtype=np.uint8).reshape(
        -1, 3, 96, 96
    )  # column by column
    assert (np.asarray(dataset.test[0].open()) == raw[0].transpose(2, 1, 0)).all()


def test_other_levels_of_aircraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(sets.FgvcAircraft, tmp_path, monkeypatch, level="family").class_names == ("Boeing 707", "A300")


def test_a_training_image_repeated_in_the_test_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets(tmp_path, monkeypatch)
    images = tmp_path / "oxford-iiit-pet" / "images"
    (images / "Abyssinian_0.jpg").write_bytes((images / "Abyssinian_10.jpg").read_bytes())
    dataset = sets.OxfordPets(root=str(tmp_path), seed=0, val_fraction=0.0).load()
    assert len(dataset.train) == 9
    assert dataset.notes == {"train_images_repeated_in_val_or_test_dropped": 1}


def test_an_incomplete_tree_is_explained(tmp_path: Path) -> None:
    (tmp_path / "oxford-iiit-pet").mkdir()
    with pytest.raises(GenaugError, match="torchvision cannot read"):
        sets.OxfordPets(root=str(tmp_path), seed=0).load()
