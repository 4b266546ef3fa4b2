"""Small trees in the true layouts of data sets that have to be downloaded, by the preset that reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from genaug.core.foreign import read_foreign_yaml
from genaug.core.paths import experiment_files
from tests.data.pictures import picture
from tests.data.sources import test_benchmark_sets as benchmark
from tests.data.sources import test_other_published_sets as others
from tests.data.sources import test_torchvision_sets as torchvision_sets
from tests.data.sources.test_voc_classification import voc_tree

Tree = Callable[[Path, pytest.MonkeyPatch], object]


def coco(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Two objects an image, the larger of which names it."""
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    (root / "annotations").mkdir(parents=True)
    for split, number in (("train", 8), ("val", 4)):
        images, annotations = [], []
        for i in range(number):
            name = f"{i:012d}.jpg"
            picture(root / f"{split}2017" / name, (40, 40))
            images.append({"id": i, "file_name": name, "width": 40, "height": 40})
            for side, category in ((20, categories[i % 2]), (6, categories[1 - i % 2])):
                corners = [float(x) for x in (2, 2, 2 + side, 2, 2 + side, 2 + side, 2, 2 + side)]
                annotations.append({
                    "id": len(annotations), "image_id": i, "category_id": category["id"], "area": side**2, "iscrowd": 0,
                    "bbox": [2, 2, side, side], "segmentation": [corners],
                })  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def unidiffda(root: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("Caltech101", "Blood/shot5", "Blood/shot25", "Skin/shot10", "Skin/shot50"):
        benchmark.folders(root / name, "train", "test", number=4)
    benchmark.folders(root / "CIFAR100", "train-subset", number=4)
    benchmark.cifar100(root / "CIFAR100")


def bones(root: Path, patch: pytest.MonkeyPatch) -> None:
    splits = {"train": range(10), "valid": range(10, 12), "test": range(12, 14)}
    benchmark.roboflow(root, **{split: [f"n_0_{i}_png.rf.{i:02d}" for i in own] for split, own in splits.items()})


def birds_of_imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    others.imagenet(root, others.WNIDS)


TREES: dict[str, Tree] = {
    "bone_xrays": bones,
    "caltech101": torchvision_sets.caltech,
    "coco_classification": coco,
    "cub200": lambda root, _: benchmark.cub(root),
    "fgvc_aircraft": torchvision_sets.aircraft,
    "flowers102": torchvision_sets.flowers,
    "ilsvrc2012": birds_of_imagenet,
    "leafy_spurge": lambda root, _: others.spurge(root),
    "oxford_pets": torchvision_sets.pets,
    "shenzhen_tb": lambda root, _: others.shenzhen(root),
    "stanford_cars": torchvision_sets.cars,
    "stl10": torchvision_sets.stl10,
    "unidiffda_blood": unidiffda,
    "unidiffda_caltech101": unidiffda,
    "unidiffda_cifar100": unidiffda,
    "unidiffda_skin": unidiffda,
    "voc_classification": lambda root, _: voc_tree(root, per_class=1, classes=tuple(range(1, 21))),
}
SMALL = {"ilsvrc2012": ["dataset.classes=all"]}
"""What a small tree needs beside its place."""


def dataset_of(item: str) -> str:
    """The data set's preset that an experiment names; empty for a mean over data sets."""
    defaults = read_foreign_yaml(experiment_files()[item]).get("defaults", [])
    return next((entry["override /dataset"] for entry in defaults if "override /dataset" in entry), "")


def on_stand_in(item: str, root: Path) -> list[str]:
    """Overrides that run an experiment shrunk on the tree below ``root``: those of its own that say which images of a data set
    are taken stay, which digits do not know."""
    name = dataset_of(item)
    swept = read_foreign_yaml(experiment_files()[item])["hydra"]["sweeper"]["params"]
    own = [f"{key}={value}" for key, value in swept.items() if key in ("dataset.split", "dataset.per_class")]
    return [
        "preset=smoke",
        f"dataset={name}",
        f"dataset.root={root}",
        "dataset.image_size=32",
        *own,
        *SMALL.get(name, []),
    ]
