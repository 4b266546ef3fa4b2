"""What a run's folder says of it, whoever is still at work on it."""

import os
import socket
import subprocess
import sys
import time

import pytest

from genaug.composition import compose_typed
from genaug.core.files import PARTIAL, write_json, write_sealed
from genaug.core.store import ABOUT
from genaug.runs.cell import Cell
from genaug.runs.collection import read_result, read_status, state_of, uses_images
from genaug.runs.items import Item, items
from tests.runs.finished_run import write_finished

NOW = time.strftime("%Y-%m-%dT%H:%M:%S")


def ended_process() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"state": "running", "host": socket.gethostname(), "pid": os.getpid()}, "running"),
        ({"state": "running", "host": socket.gethostname(), "pid": os.getpid(), "started": NOW}, "running"),
        # its number has gone to a process that began later
        (
            {"state": "running", "host": socket.gethostname(), "pid": os.getpid(), "started": "2020-01-01T00:00:00"},
            "interrupted",
        ),
        ({"state": "running", "host": socket.gethostname(), "pid": ended_process()}, "interrupted"),
        ({"state": "running", "host": "another", "pid": ended_process()}, "running"),  # nobody here can know
        ({"state": "failed", "host": "another", "pid": 1}, "failed"),
        ({"state": "complete", "host": "another", "pid": 1}, "interrupted"),  # and its result is gone
    ],
)
def test_a_run_without_a_result_is_in_the_state_that_its_process_allows(tmp_path, status, state):
    write_json(tmp_path / "status.json", {"attempt": 0, "stage": "train", **status})
    found = state_of(tmp_path)
    assert found is not None and (found.state, found.stage, found.result) == (state, "train", None)


def test_a_result_counts_in_its_own_folder_alone(tmp_path):
    write_finished(tmp_path / "run-aa")
    result = read_result(tmp_path / "run-aa")
    assert result is not None and result["fingerprint"] == "aa"
    write_sealed(tmp_path / "run-aa" / "result.json", {**result, "metrics": {"m": 0.5}})
    assert read_result(tmp_path / "run-aa") == {**result, "metrics": {"m": 0.5}}
    text = (tmp_path / "run-aa" / "result.json").read_text()
    (tmp_path / "run-aa" / "result.json").write_text(text.replace("0.5", "0.9"))
    assert read_result(tmp_path / "run-aa") is None  # somebody has improved it
    (tmp_path / "run-aa" / "result.json").write_text(text)
    (tmp_path / "run-aa").rename(tmp_path / "run-bb")
    assert read_result(tmp_path / "run-bb") is None


@pytest.mark.parametrize(
    ("pool", "generator", "uses"),
    [("p", {}, True), (None, {"online": True}, True), (None, {"online": False}, False), (None, {}, False)],
)
def test_a_run_uses_generated_images_from_a_pool_or_inside_training(pool, generator, uses):
    assert uses_images({"pool": pool, "config": {"generator": generator}}) == uses


def test_another_attempt_needs_what_the_last_one_needed_until_it_says_otherwise(tmp_path):
    cell = Cell.of(compose_typed(["tracking=local", f"paths.outputs_dir={tmp_path}"]))
    cell.folder.mkdir(parents=True)
    before = {"state": "failed", "attempt": 2, "host": "h", "pid": 1, "artefacts": ["store/pools/p"]}
    write_json(cell.folder / "status.json", before)
    with cell.claim():
        status = read_status(cell.folder)
        assert status is not None
        assert (status["state"], status["attempt"], status["artefacts"]) == ("running", 3, ["store/pools/p"])
    with pytest.raises(KeyboardInterrupt), cell.claim():
        raise KeyboardInterrupt
    ended = state_of(cell.folder)
    assert ended is not None and (ended.state, ended.artefacts) == ("interrupted", ("store/pools/p",))


def test_checkpoints_and_unfinished_files_of_a_run_are_not_copied(tmp_path):
    folder = tmp_path / "run-aa"
    write_finished(folder)
    for name in ("checkpoints/last.ckpt", f".log.txt{PARTIAL}", "x.lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert set(Item(kind="runs", folder=folder).files()) == {"result.json", "status.json"}
    assert "checkpoints/last.ckpt" in Item(kind="fitted", folder=folder).files()  # there it is what was learned


def test_what_is_damaged_or_not_finished_is_no_item(tmp_path):
    write_finished(tmp_path / "runs" / "run-aa")
    write_finished(tmp_path / "runs" / "run-bb")
    (tmp_path / "runs" / "run-bb" / "result.json").write_text("{}")
    for name in ("thing-cc", ".thing-dd.partial"):
        write_json(tmp_path / "store" / "fitted" / name / ABOUT, {"files": {}})
    assert [item.name for item in items(tmp_path)] == ["thing-cc", "run-aa"]
    assert [item.name for item in items(tmp_path, ["run-"])] == ["run-aa"]
