"""Whole runs of train.py as a user starts them, at the smallest size of real classes."""

import json
import os
import re
import signal
import time

import pytest
from PIL import Image

from tests.conftest import genaug

TINY = (
    "dataset.shots=1",
    "downstream.num_steps=4",
    "downstream.batch_size=8",
    "generator.num_steps=4",
    "trainer.num_threads=1",
)
FUSION = (*TINY, "generator=da_fusion", "generator.tokens.num_steps=2", "tracking=local")


def results(train):
    return {p.parent.name: json.loads(p.read_text()) for p in train.outputs.glob("runs/*/result.json")}


def test_a_sweep_of_alpha_and_m_makes_each_image_once_and_is_answered_from_the_store_again(train):
    sweep = ("-m", "mix.alpha=0.3,0.7", "mix.m=1,2", *FUSION)
    train(*sweep)
    made = results(train)
    assert len(made) == 4
    assert sum(r["counts"]["images_generated"] for r in made.values()) == 10 * 2  # 10 sources, the larger M
    assert sum(r["counts"]["fit_network_evaluations"] > 0 for r in made.values()) == 1
    for result in made.values():
        assert 0 <= result["metrics"]["test/accuracy_macro"] <= 1
        assert (
            result["counts"]["test_images"]
            == 719
            == len(json.loads((train.outputs / "runs" / result["cell"] / "predictions.json").read_text()))
        )
    stamps = {p: p.stat().st_mtime_ns for p in train.outputs.rglob("*") if p.is_file() and "sweeps" not in p.parts}
    said = train(*sweep)
    assert said.count("complete already:") == 4
    assert stamps == {
        p: p.stat().st_mtime_ns for p in train.outputs.rglob("*") if p.is_file() and "sweeps" not in p.parts
    }

    outputs = ("--outputs", str(train.outputs))
    assert "4 runs: 4 complete" in genaug("status", *outputs)
    table = genaug("compare", *outputs)
    assert all(table.count(f"alpha={alpha}, m={m}") == 1 for alpha in ("0.3", "0.7") for m in (1, 2))
    genaug(
        "gallery",
        "da_fusion",
        "--out",
        str(train.outputs / "sheet.png"),
        "--sources",
        "10",
        "--variants",
        "2",
        *outputs,
    )
    with Image.open(train.outputs / "sheet.png") as sheet:
        assert sheet.width > 3 * 80 and sheet.height > 10 * 80
        width = sheet.width
    said = genaug(
        "gallery", "da_fusion", "da_fusion", "--out", str(train.outputs / "two.png"), "--variants", "2", *outputs
    )
    with Image.open(train.outputs / "two.png") as two:
        assert two.width == 2 * width
    assert re.search(r"digits, da_fusion \(\w{16}\): \d+ sources, up to 2 variant\(s\) each", said)
    assert "has a pool 'nothing'" in genaug("gallery", "nothing", *outputs, code=2)
    assert "g.xyz cannot be written" in genaug(
        "gallery", "da_fusion", "--out", str(train.outputs / "g.xyz"), *outputs, code=2
    )
    genaug("gallery", "da_fusion", "--out", str(train.outputs / "new" / "page.html"), *outputs)
    assert "<html" in (train.outputs / "new" / "page.html").read_text()


def test_alpha_zero_and_no_generator_are_one_cell(train):
    train("generator=none", "dataset.shots=1", "downstream.num_steps=4", "tracking=local")
    said = train(
        "generator=real_guidance", "mix.alpha=0", "dataset.shots=1", "downstream.num_steps=4", "tracking=local"
    )
    assert "complete already" in said and len(results(train)) == 1


def test_a_result_that_was_edited_is_named_and_the_run_made_again(train):
    run = ("generator=none", "dataset.shots=1", "downstream.num_steps=4", "tracking=local")
    train(*run)
    [whole] = results(train).values()
    [path] = train.outputs.glob("runs/*/result.json")
    path.write_text(json.dumps(whole | {"metrics": dict.fromkeys(whole["metrics"], 0.99)}))
    assert "its content has changed" in train(*run)
    assert [result["metrics"] for result in results(train).values()] == [whole["metrics"]]


def test_fixed_and_drawn_strengths_share_images(train):
    run = ("-m", "generator=real_guidance_da_fusion", "mix.m=4", "generator.t0=0.5,[0.5,1.0]", "generator.num_steps=4")
    train(*run, "dataset.shots=1", "downstream.num_steps=2", "tracking=local")
    counts = sorted((r["counts"]["images_generated"], r["counts"]["images_reused"]) for r in results(train).values())
    assert counts[1] == (40, 0)
    assert counts[0][0] + counts[0][1] == 40 and counts[0][1] > 0


def test_a_killed_run_goes_on_where_it_was_and_ends_as_if_never_killed(train, tmp_path):
    command = (
        "generator=real_guidance",
        "mix.m=4",
        "generator.batch_size=4",
        "generator.num_steps=40",
        "tracking=local",
    )
    small = ("dataset.shots=2", "downstream.num_steps=2", "trainer.num_threads=1")
    process = train.start(*command, *small)
    deadline = time.time() + 240
    while (
        len(list(train.outputs.glob("store/images/*/*.png"))) < 8 and time.time() < deadline and process.poll() is None
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {p.name: p.read_bytes() for p in train.outputs.glob("store/images/*/*.png")}
    assert 8 <= len(kept) < 80
    train(*command, *small)
    resumed = {p.name: p for p in train.outputs.glob("store/images/*/*.png")}
    assert len(resumed) == 80
    assert all(resumed[name].read_bytes() == data for name, data in kept.items())
    (result,) = results(train).values()
    assert result["counts"]["images_reused"] == len(kept)


def test_two_processes_that_run_one_cell_compute_it_once(train):
    command = ("generator=none", "dataset.shots=1", "downstream.num_steps=20", "tracking=local")
    processes = [train.start(*command) for _ in range(2)]
    outputs = [process.wait() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("trained to step" in output for output in outputs) == 1


def test_one_failing_cell_does_not_cost_the_others(train):
    small = ("generator=none", "downstream.num_steps=2", "downstream.eval_every=null", "tracking=local")
    said = train("-m", "dataset.shots=1,1000", *small, code=2)
    assert "has only" in said and "2 runs: 1 ok, 1 failed" in said and "the others" not in said
    last = said.rpartition("Runs of the sweep failed:")[2]
    assert "log.txt):" in last and "has only" in last
    assert len(results(train)) == 1


def test_runs_that_are_refused_for_one_reason_are_told_of_once(train):
    small = ("dataset.shots=1", "downstream.num_steps=2", "downstream.eval_every=null", "tracking=local")
    said = train("-m", "generator=none,real_guidance", "generator.t0=2", "seed=0,1,2", *small, code=2)
    assert len(re.findall(r"t0=2.* \(in the run generator=real_guidance .*seed=0.*, and 2 more\)", said)) == 1
    assert said.count("generator=real_guidance") == 2  # there, and in the last lines
    assert "6 runs: 3 ok, 3 failed" in said and "(refused before it started), and 2 more for the same reason:" in said


def test_weights_and_biases_gets_one_finished_run_per_cell_and_asks_nothing(train):
    train.outputs.mkdir()
    nobody = {"WANDB_API_KEY": None, "WANDB_MODE": None, "HOME": str(train.outputs)}
    train("generator=none", "dataset.shots=1", "downstream.num_steps=4", env=nobody)
    (result,) = results(train).values()
    (folder,) = train.outputs.glob("wandb/offline-run-*")
    assert folder.name.endswith(result["fingerprint"])
    assert list(folder.glob("*.wandb"))


def test_an_outputs_folder_that_cannot_be_written_is_said_at_once(train, tmp_path):
    (tmp_path / "file").write_text("")
    train.outputs = tmp_path / "file" / "outputs"
    assert "paths.outputs_dir" in train("generator=none", code=2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_paragraph(monkeypatch):
    from genaug.explanation import message

    with pytest.raises(OSError) as caught, open("/dev/full", "w") as full:
        full.write("x" * 10**6)
    said = message(caught.value)
    assert said is not None and "disk is full" in said and "nothing already made is lost" in said
