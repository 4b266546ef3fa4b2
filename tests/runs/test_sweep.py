"""What the sweeper takes a job for is what Hydra composes for it: otherwise a cell would be answered with another's result."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from genaug.composition import compose_typed, composer_of
from genaug.config_source import register
from genaug.core.errors import GenaugError
from genaug.runs.cell import cell_fingerprint
from genaug.runs.sweep import check_objective, is_optimising, objective
from tests.data.pictures import picture

JOBS = (
    ["seed=1", "mix.alpha=0.3"],
    ["generator=real_guidance", "generator.t0=[0.25,0.5]", "seed=0"],
    ["experiment=psld/digit_scenes", "dataset.fraction=0.5"],
    [
        "experiment=dreamda/digits_labels",
        "preset=smoke",
        "downstream=amst_tiny",
        "downstream.label=none",
        "generator.sigma=0",
    ],
    ["generator/tokens=ti_preprint", "task=generate"],
    ["augment=mixup", "trainer.num_threads=1", "paths.outputs_dir=elsewhere"],
)


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_a_job_is_taken_for_the_cell_that_hydra_composes(job):
    with initialize_config_dir(str(register()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        composer = composer_of(hydra.config_loader, compose("config", return_hydra_config=True))
        fingerprints = [cell_fingerprint(composer(job)) for _ in range(2)]  # composed, then remembered
    assert fingerprints == [cell_fingerprint(compose_typed(job))] * 2


def test_a_sweep_that_optimises_is_told_from_one_that_lists():
    assert is_optimising({"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"})
    assert not is_optimising(compose_typed_sweeper())
    assert not is_optimising({"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"})


def compose_typed_sweeper():
    with initialize_config_dir(str(register()), version_base="1.3"):
        return compose("config", return_hydra_config=True).hydra.sweeper


def test_what_is_optimised_is_measured_on_the_validation_split():
    metrics = {"test/accuracy_macro": 0.9, "val/accuracy_macro": 0.7}
    result = {"cell": "c", "metric": "test/accuracy_macro", "metrics": metrics}
    assert objective(result) == 0.7
    with pytest.raises(GenaugError, match="no val/accuracy_macro"):
        objective({**result, "metrics": {"test/accuracy_macro": 0.9}})


def test_without_validation_images_an_optimising_sweep_does_no_work(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                seed = len(list(tmp_path.rglob("*")))
                pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    choices = ["dataset=image_folder", f"dataset.root={tmp_path}"]
    with pytest.raises(GenaugError, match=r"chooses by the validation images, and .* has none"):
        check_objective(compose_typed([*choices, "dataset.val_fraction=0"]))
    check_objective(compose_typed([*choices, "dataset.val_fraction=0.4"]))
    with pytest.raises(GenaugError, match="task=train"):
        check_objective(compose_typed(["task=fit"]))


def test_validation_images_without_a_box_steer_no_sweep(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        picture(tmp_path / "images" / split / "a.png", (32, 32 + number))
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text("" if split == "val" else "0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [a]\n")
    words = ["dataset=yolo", f"dataset.root={tmp_path}", "downstream=detector_tiny", "generator=none", "augment=none"]
    with pytest.raises(GenaugError, match=r"chooses by the validation images\. No val image of .* has a box"):
        check_objective(compose_typed(words))


def test_sweeps_of_one_second_have_folders_of_their_own():
    folders = set()
    for _ in range(2):
        with initialize_config_dir(str(register()), version_base="1.3"):
            folders.add(compose("config", return_hydra_config=True, overrides=["hydra.job.num=0"]).hydra.sweep.dir)
    assert len(folders) == 2
