"""Leafy Spurge, Shenzhen TB and ILSVRC 2012 from trees in their true layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.sources.imagenet import Ilsvrc2012
from genaug.data.sources.imagenet_lists import CMC_WNIDS, DA_FUSION_NAMES
from genaug.data.sources.leafy_spurge import LeafySpurge
from genaug.data.sources.shenzhen import ShenzhenTb

RNG = np.random.default_rng(0)


def picture(path: Path, size: int = 13) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


def spurge(root: Path) -> Path:
    for split, count in (("train", 6), ("test", 4)):
        for name in ("absent", "present"):
            for i in range(count):
                picture(root / "data" / "crop" / split / name / f"{split}_{i}.png")
    (root / "data" / "crop" / "train" / ".DS_Store").write_text("x")
    return root


def test_leafy_spurge_is_read_from_the_hub_repositorys_folders(tmp_path: Path) -> None:
    dataset = LeafySpurge(root=str(spurge(tmp_path)), seed=0, val_fraction=0.5).load()
    assert dataset.class_names == ("no spurge", "leafy spurge")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 6, 8)
    assert {s.class_index for s in dataset.test if "/present/" in s.id} == {1}


def test_leafy_spurge_is_read_from_plain_folders_only_with_the_reference_split(tmp_path: Path) -> None:
    for name in ("absent", "apparent"):
        for i in range(5):
            picture(tmp_path / "spurge" / name / f"{i}.png")
    dataset = LeafySpurge(root=str(tmp_path), seed=0, split="reference").load()
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert {s.class_index for s in dataset.train if "/apparent/" in s.id} == {1}
    with pytest.raises(GenaugError, match="split=reference"):
        LeafySpurge(root=str(tmp_path), seed=0).load()


def test_absent_leafy_spurge_names_the_hub(tmp_path: Path) -> None:
    with pytest.raises(GenaugError, match=r"mpg-ranch/leafy_spurge.*CC BY 4\.0"):
        LeafySpurge(root=str(tmp_path), seed=0).identity()


def shenzhen(root: Path) -> Path:
    for i in range(1, 21):
        picture(root / "ChinaSet_AllFiles" / "CXR_png" / f"CHNCXR_{i:04d}_{int(i > 10)}.png")
    (root / "ChinaSet_AllFiles" / "CXR_png" / "Thumbs.db").write_text("x")
    return root


def test_shenzhen_labels_are_the_last_digit_of_the_file_name(tmp_path: Path) -> None:
    dataset = ShenzhenTb(root=str(shenzhen(tmp_path)), seed=0, val_fraction=0.0).load()
    assert (len(dataset.train), len(dataset.test)) == (14, 6)
    assert all(s.class_index == int(s.id[-5]) for s in (*dataset.train, *dataset.test))
    again = ShenzhenTb(root=str(tmp_path), seed=5, val_fraction=0.0).load()
    assert [s.id for s in again.train] == [s.id for s in dataset.train]  # the split is not the trial's


def test_shenzhen_takes_listed_splits(tmp_path: Path) -> None:
    folder = shenzhen(tmp_path) / "ChinaSet_AllFiles"
    source = ShenzhenTb(root=str(tmp_path), seed=0, split="listed", val_fraction=0.0)
    with pytest.raises(GenaugError, match="one file name per line"):
        source.load()
    (folder / "train.txt").write_text("CHNCXR_0001_0.png\nCHNCXR_0011_1.png\n")
    (folder / "test.txt").write_text("CHNCXR_0002_0.png\n")
    dataset = source.load()
    assert [s.id for s in dataset.train] == ["CHNCXR_0001_0.png", "CHNCXR_0011_1.png"]
    (folder / "test.txt").write_text("CHNCXR_9999_0.png\n")
    with pytest.raises(GenaugError, match="CHNCXR_9999_0"):
        source.load()


WNIDS = {"n02012849": ("crane",), "n03126707": ("crane",), "n13052670": ("hen-of-the-woods", "hen of the woods")}


def imagenet(root: Path, wnids: dict[str, tuple[str, ...]]) -> Path:
    for wnid in wnids:
        for i in range(4):
            picture(root / "train" / wnid / f"{wnid}_{i}.JPEG", 8)
            picture(root / "val" / wnid / f"ILSVRC2012_val_{wnid}_{i}.JPEG", 8)
    torch.save((wnids, []), root / "meta.bin")  # as torchvision writes it from the devkit
    return root


def test_ilsvrc_classes_are_named_by_their_first_synonym_and_stay_unique(tmp_path: Path) -> None:
    dataset = Ilsvrc2012(root=str(imagenet(tmp_path, WNIDS)), seed=0).load()
    assert dataset.class_names == ("crane", "crane (n03126707)", "hen-of-the-woods")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (9, 3, 12)


def test_the_two_imagenet_100_lists_choose_their_classes(tmp_path: Path) -> None:
    assert len(set(CMC_WNIDS)) == len(set(DA_FUSION_NAMES)) == 100
    imagenet(tmp_path, {wnid: (f"thing {i}",) for i, wnid in enumerate((*sorted(CMC_WNIDS), "n99999999"))})
    dataset = Ilsvrc2012(root=str(tmp_path), seed=0, classes="cmc").load()
    assert len(dataset.class_names) == 100 and "thing 100" not in dataset.class_names
    with pytest.raises(GenaugError, match="lacks steel arch bridge"):
        Ilsvrc2012(root=str(tmp_path), seed=0, classes="da_fusion").load()


def test_the_da_fusion_list_finds_second_synonyms_and_takes_the_first_of_two_cranes(tmp_path: Path) -> None:
    others = {
        f"n1{i:07d}": (name,) for i, name in enumerate(DA_FUSION_NAMES) if name not in ("crane", "hen of the woods")
    }
    dataset = Ilsvrc2012(root=str(imagenet(tmp_path, {**WNIDS, **others})), seed=0, classes="da_fusion").load()
    assert [n.replace("hen-of-the-woods", "hen of the woods") for n in dataset.class_names] == DA_FUSION_NAMES
    assert {Path(s.id).parts[1] for s in dataset.train if dataset.class_names[s.class_index] == "crane"} == {
        "n02012849"
    }


def test_absent_imagenet_names_its_archives_and_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(GenaugError, match=r"ILSVRC2012_img_train\.tar.*148 GB.*image-net\.org"):
        Ilsvrc2012(root=str(tmp_path), seed=0).identity()
    with pytest.raises(GenaugError, match=r"is not fetched by this program.*needs an account"):
        Ilsvrc2012(root=str(tmp_path), seed=0, download=True)
