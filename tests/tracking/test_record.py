"""The local record of a cell."""

import json

from genaug.tracking.record import Record


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


def test_a_training_without_a_checkpoint_starts_its_rows_anew(tmp_path):
    Record(tmp_path).log({"train/loss": 1.0}, 8)
    again = Record(tmp_path)
    again.rewind(0)
    again.log({"train/loss": 1.0}, 8)
    assert [row["step"] for row in rows(tmp_path)] == [8]


def test_a_metric_that_is_no_number_is_null_in_the_rows(tmp_path):
    Record(tmp_path).log({"train/loss": float("nan"), "accepted": 0.5}, 3)
    assert rows(tmp_path) == [{"step": 3, "train/loss": None, "accepted": 0.5}]
