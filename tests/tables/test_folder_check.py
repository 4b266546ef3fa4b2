"""``genaug check`` as a user types it: what it prints, what it writes, how it ends."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from genaug.api import compose
from genaug.cli import app
from genaug.core.cost import unet_gflop
from genaug.priors.config import PriorConfig
from genaug.priors.model import Prior
from genaug.priors.random_weights import random_parts
from genaug.tables import folder_check
from tests.conftest import genaug


def folder(root, count=8):
    """Two classes of coloured squares."""
    for c, name in enumerate(("red_kite", "blue_tit")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * c + i).integers(0, 120, (8, 8, 3), dtype=np.uint8)
            pixels[..., 2 * c] += 130
            Image.fromarray(pixels).resize((40, 40)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(("image_size", "batch"), [(32, 64), (128, 16), (512, 4)])
def test_the_speed_of_a_machine_is_that_of_batches_as_samplers_give_them(monkeypatch, image_size, batch):
    parts = random_parts()
    scheduler = parts.pop("scheduler")
    prior = Prior(**parts, scheduler_config=dict(scheduler.config), image_size=image_size)
    shapes = []

    def predict_noise(z, *_):
        shapes.append(z.shape)
        return z

    monkeypatch.setattr(prior, "predict_noise", predict_noise)
    monkeypatch.setattr(folder_check.time, "perf_counter", iter(range(100)).__next__)  # a second for each pass
    found = folder_check.probed_gflops(prior, PriorConfig(image_size=image_size))
    assert set(shapes) == {(batch, 4, image_size // 8, image_size // 8)}
    assert found == batch * unet_gflop(image_size, tiny=True)


@pytest.mark.slow
def test_check_looks_judges_suggests_and_ends_with_a_command(tmp_path):
    root, outputs = folder(tmp_path / "my birds"), tmp_path / "outputs"
    said = genaug("check", str(root), "--gpu", "a100", "--outputs", str(outputs))
    for words in ("class folders (dataset=image_folder), classification", "red kite", "16 PNG RGB", "prior=tiny"):
        assert words in said
    assert re.search(r"here: about [\d.]+ (min|h)", said) and "on one A100: about" in said
    for name in ("classes.png", "prior_check.png"):
        with Image.open(outputs / "check" / "my birds" / name) as sheet:
            assert min(sheet.size) > 100
    command = next(line for line in said.splitlines() if line.startswith("python train.py -m"))
    assert f"experiment=own/classification 'dataset.root={root}'" in command
    config = compose(shlex.split(command)[3:])
    assert config.dataset.image_size == 32 and config.mix.m == 10
    assert "the median image has 40 px" in said and "settings.yaml; a key on the command line wins" in said


@pytest.mark.slow
def test_check_of_a_folder_that_no_run_reads_ends_with_an_error(tmp_path):
    root = folder(tmp_path / "birds")
    (root / "red_kite" / "0.png").read_bytes()
    (root / "blue_tit" / "copy.png").write_bytes((root / "red_kite" / "0.png").read_bytes())
    said = genaug("check", str(root), "--no-prior", "--outputs", str(tmp_path / "outputs"))
    assert "under two classes" in said and "prior=" not in said
    (root / "red_kite" / "broken.png").write_bytes((root / "red_kite" / "1.png").read_bytes()[:90])
    (root / "red_kite" / "again.png").write_bytes((root / "red_kite" / "0.png").read_bytes())
    both = genaug("check", str(root), "--no-prior", "--outputs", str(tmp_path / "outputs"), code=1)
    assert "dataset.skip_corrupt=true" in both and "in two splits" in both and "to go on" not in both
    assert "is not a folder" in genaug("check", str(tmp_path / "nothing"), code=2)


def check(*words):
    return CliRunner().invoke(app, ["check", *map(str, words), "--no-prior"])


def test_a_table_is_read_as_the_command_line_says_which_the_commands_repeat(tmp_path):
    root = folder(tmp_path / "birds")
    paths = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    rows = [f"{path},{'ab'[i % 2]},{'cd'[i // 8]}" for i, path in enumerate(paths)]
    (root / "list.csv").write_text("\n".join(["photo,farm,kind of it", *rows]))
    words = ("dataset=table", "dataset.image=photo", "dataset.label=kind of it", "dataset.image_dir=.")
    said = check(root, *words, "--outputs", tmp_path / "out").output
    assert "images with a table of labels (dataset=table), classification" in said
    assert re.search(r"^ c +5 +1 +2 +$", said, re.MULTILINE)
    command = next(line for line in said.splitlines() if "experiment=own/classification" in line)
    assert "dataset=table dataset.image=photo 'dataset.label=kind of it'" in command
    for wrong, why in (("dataset=tabel", "Did you mean dataset=table"), ("dataset=digits", "reads no folder")):
        assert why in str(check(root, wrong).exception)


def test_a_set_of_the_hub_is_checked_and_the_commands_say_how_it_is_read(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pictures = folder(tmp_path / "birds")
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    files = sorted(pictures.rglob("*.png"))
    rows = [{"photo": {"bytes": path.read_bytes(), "path": None}, "kind": i // 8} for i, path in enumerate(files)]
    root = tmp_path / "set"
    root.mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(root / "train-00000-of-00001.parquet")
    said = check(root, f"dataset.cache_dir={tmp_path / 'images'}", "--outputs", tmp_path / "out").output
    command = next(line for line in said.splitlines() if "experiment=own/classification" in line)
    assert "dataset=hf dataset.image=photo dataset.label=kind" in command and f"dataset.path={root}" in command
    assert "dataset.root=" not in said


def test_what_is_left_out_is_no_folder_of_which_nothing_can_be_said(tmp_path):
    root = folder(tmp_path / "birds", count=30)
    assert "\nNothing is wrong with it" in check(root, "--outputs", tmp_path / "out").output
    (root / "red_kite" / "raw.cr2").write_bytes(b"raw")
    said = check(root, "--outputs", tmp_path / "out").output
    assert "1 .cr2 file without a reader (convert .cr2 to PNG)" in said and "\nNothing else is wrong with it" in said


def test_a_try_in_minutes_takes_no_more_shots_than_the_rarest_class_has(tmp_path):
    root = folder(tmp_path / "birds", count=30)
    assert "(with preset=smoke, a try" in check(root, "--no-prior", "--outputs", tmp_path / "out").output
    for path in sorted((root / "red_kite").iterdir())[2:]:
        path.unlink()
    said = check(root, "--no-prior", "--outputs", tmp_path / "out").output
    assert "(with preset=smoke dataset.shots=2, a try" in said
