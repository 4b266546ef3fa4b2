"""``genaug check`` as a user types it: what it prints, what it writes, how it ends."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from genaug.api import compose
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
