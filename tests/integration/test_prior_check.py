"""A run on images that the prior cannot draw says so, in its result and below its table, and goes on."""

import json

import numpy as np
from PIL import Image

from genaug.runs.collection import read_results
from genaug.tables.selection import tables_of


def noise(root, count=8):
    """Two classes of noise, of which the shipped prior keeps no edge."""
    for c, name in enumerate(("hay", "straw")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * c + i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_a_run_on_images_that_the_prior_cannot_draw_says_so_and_goes_on(tmp_path, train):
    root = noise(tmp_path / "fields")
    said = train(
        *("dataset=image_folder", f"dataset.root={root}", "generator=real_guidance", "generator.num_steps=2"),
        *("mix.m=1", "downstream.num_steps=5", "tracking=local"),
    )
    assert "prior=tiny cannot draw such images" in said
    (result,) = read_results(sorted((train.outputs / "runs").iterdir()))
    assert result["prior_check"].startswith("prior=tiny cannot draw") and result["metrics"]
    assert (train.outputs / "runs" / result["cell"] / "prior_check.png").is_file()
    (table,) = tables_of([result])
    assert result["prior_check"] in table.notes
    stored = list((train.outputs / "store" / "checks").glob("prior-*/prior_check.json"))
    assert len(stored) == 1 and not json.loads(stored[0].read_text())["can_draw"]


def test_a_refused_run_of_an_own_sweep_is_reported_and_the_others_go_on(tmp_path, train):
    root = noise(tmp_path / "fields")
    said = train(
        *("-m", "experiment=own/classification", f"dataset.root={root}", "dataset.shots=3,900", "seed=0"),
        *("generator=none,real_guidance", "augment=none", "generator.t0=0.25", "generator.num_steps=4", "mix.m=1"),
        *("downstream.num_steps=5", "tracking=local"),
        code=2,
    )
    assert "generator.t0 applies to real_guidance, not to none" in said
    assert "has only 5 training image(s), as" in said and "4 runs: 2 ok, 2 failed" in said
    results = read_results(sorted((train.outputs / "runs").iterdir()))
    assert sorted(result["names"]["generator"] for result in results) == ["none", "real_guidance"]
