"""The local record of a cell."""

import json
import os
import subprocess
import sys

import pytest

from genaug.core.errors import GenaugError
from genaug.core.names import LIMITS
from genaug.tracking.record import Record
from genaug.tracking.wandb_run import run_tags, start_run


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_training_leaves_every_row_once(tmp_path):
    killed = Record(tmp_path)
    for step in (8, 16, 24, 32):
        killed.log({"train/loss": step / 10}, step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train/lo')  # cut off by the kill
    resumed = Record(tmp_path)
    resumed.rewind(16)
    resumed.log({"train/loss": 1.6}, 16)  # an evaluation or a labelling at the checkpoint's own step
    resumed.log({"accepted": 0.5}, 16)
    for step in (24, 32, 40):
        resumed.log({"train/loss": step / 10}, step)
    losses = [row["step"] for row in rows(tmp_path) if "train/loss" in row]
    assert losses == [8, 16, 24, 32, 40]
    assert {"step": 16, "accepted": 0.5} in rows(tmp_path)


def test_the_log_holds_any_name_whatever_the_systems_encoding(tmp_path):
    imports = "import sys, pathlib; from genaug.tracking.record import Record"
    program = f"{imports}; Record(pathlib.Path(sys.argv[1])).note(chr(0x732b))"
    ascii_alone = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=ascii_alone, check=True)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith(" \u732b\n")


def test_a_training_without_a_checkpoint_starts_its_rows_anew(tmp_path):
    Record(tmp_path).log({"train/loss": 1.0}, 8)
    again = Record(tmp_path)
    again.rewind(0)
    again.log({"train/loss": 1.0}, 8)
    assert [row["step"] for row in rows(tmp_path)] == [8]


def test_a_metric_that_is_no_number_is_null_in_the_rows(tmp_path):
    Record(tmp_path).log({"train/loss": float("nan"), "accepted": 0.5}, 3)
    assert rows(tmp_path) == [{"step": 3, "train/loss": None, "accepted": 0.5}]


def test_tags_say_of_what_they_are_the_name_and_fit_in():
    tags = run_tags({"dataset": "owner/" + "x" * 100, "generator": "none"}, "da_fusion/fig9_m", ["y" * 70])
    assert {"generator:none", "paper:da_fusion"} <= set(tags) and len(tags) == 4
    assert all(0 < len(tag) <= LIMITS["tag"] for tag in tags)
    assert sum(tag.startswith("dataset:owner/x") for tag in tags) == 1
    assert "paper:da_fusion" not in run_tags({}, None)


def test_a_run_of_any_name_starts_and_one_that_cannot_is_a_sentence(tmp_path):
    run = start_run(name="n/" * 100, group="g" * 200, mode="offline", project="genaug", id="0123", dir=str(tmp_path))
    try:
        assert len(run.name) <= LIMITS["wandb"] and len(run.group) <= LIMITS["wandb"]
    finally:
        run.finish()
    with pytest.raises(GenaugError, match=r"Weights & Biases did not start .*project.*tracking=local"):
        start_run(name="n", group="g", mode="offline", project="a/b", id="0123", dir=str(tmp_path))
