"""Faults while a model is trained: damaged checkpoints, full disks, signals."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from genaug.core import checkpoints
from genaug.core.interruption import Interrupted, deferred, interruptible, pending
from tests.conftest import ROOT
from tests.downstream.conftest import ListRecord

CORRUPTIONS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda data: b"{}",
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
}


class Stopping(ListRecord):
    """Does something when a row of this step is logged."""

    def __init__(self, at: int, what):
        super().__init__()
        self.at, self.what = at, what

    def log(self, metrics, step):
        super().log(metrics, step)
        if step == self.at:
            self.at = -1
            self.what()


def crash():
    raise KeyError("crash")


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("file", ["resume.ckpt", "selected.pt"])
def test_a_damaged_checkpoint_counts_as_absent_with_a_word(classify, tmp_path, name, file):
    fields = {"select": "best_val", "eval_every": 2}
    whole = classify(folder=tmp_path / "whole", **fields)
    with pytest.raises(KeyError):
        classify(folder=tmp_path / "cut", record=Stopping(5, crash), trainer={"checkpoint_every": 2}, **fields)
    path = tmp_path / "cut" / "checkpoints" / file
    path.write_bytes(CORRUPTIONS[name](path.read_bytes()))
    record = ListRecord()
    assert classify(folder=tmp_path / "cut", record=record, **fields) == whole
    assert any(str(path) in line and "counts as absent" in line for line in record.lines)


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(classify, tmp_path, monkeypatch):
    whole = classify(folder=tmp_path / "whole")
    save = torch.save

    def full(state, file):
        save(state, file)
        if state["global_step"] == 4:
            file.truncate(1000)
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        classify(folder=tmp_path / "cut", trainer={"checkpoint_every": 2})
    monkeypatch.undo()
    folder = tmp_path / "cut" / "checkpoints"
    assert os.listdir(folder) == ["resume.ckpt"]
    assert torch.load(folder / "resume.ckpt", weights_only=True)["global_step"] == 2
    assert classify(folder=tmp_path / "cut") == whole


def test_no_checkpoint_is_moved_across_file_systems(classify, tmp_path, monkeypatch):
    """Lightning writes elsewhere and moves: a kill or a full disk in between left half a file in the place of the former."""

    def half(source, target, *args, **kwargs):
        Path(target).write_bytes(Path(source).read_bytes()[:1000])

    whole = classify(folder=tmp_path / "whole")
    monkeypatch.setattr(shutil, "move", half)
    with pytest.raises(KeyError):
        classify(folder=tmp_path / "cut", record=Stopping(5, crash), trainer={"checkpoint_every": 2})
    assert torch.load(tmp_path / "cut" / "checkpoints" / "resume.ckpt", weights_only=True)["global_step"] == 4
    assert classify(folder=tmp_path / "cut") == whole


def test_every_trainer_of_lightning_writes_whole_checkpoints():
    with_one = [path for path in (ROOT / "src").rglob("*.py") if "pl.Trainer(" in path.read_text()]
    assert len(with_one) >= 2
    assert [path for path in with_one if "plugins=[WholeCheckpoints(), " not in path.read_text()] == []


def test_a_checkpoint_is_written_when_a_minute_has_passed(classify, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    with pytest.raises(KeyError):
        classify(record=Stopping(3, crash))
    assert (tmp_path / "cell" / "checkpoints" / "resume.ckpt").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_behind_the_step_with_a_checkpoint(classify, tmp_path, signum):
    whole = classify(folder=tmp_path / "whole")
    record = Stopping(3, lambda: os.kill(os.getpid(), signum))
    with pytest.raises(Interrupted, match=signum.name) as caught, interruptible():
        classify(folder=tmp_path / "cut", record=record)
    assert caught.value.exit_code == 128 + signum
    state = torch.load(tmp_path / "cut" / "checkpoints" / "resume.ckpt", weights_only=True)
    assert state["global_step"] == 3
    resumed = ListRecord()
    assert classify(folder=tmp_path / "cut", record=resumed) == whole
    assert min(step for step, _ in resumed.rows) > 3


def test_a_second_signal_does_not_wait(classify):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("still here")

    with pytest.raises(Interrupted), interruptible():
        classify(record=Stopping(2, twice))


def test_a_signal_for_which_nobody_looks_any_more_ends_the_work_at_its_end():
    done = []
    with pytest.raises(Interrupted), interruptible(), deferred():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"] and pending() is None


def test_handlers_of_others_stay_and_ours_go(tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) != before
        assert signal.getsignal(signal.SIGINT) == before
    finally:
        signal.signal(signal.SIGTERM, former)
