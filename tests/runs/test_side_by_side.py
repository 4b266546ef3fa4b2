"""Jobs in processes beside each other: every answer arrives, and a process that is killed costs its own job alone."""

import os
import signal
import sys
import threading
import time

import pytest

from genaug.composition import compose_typed
from genaug.core import machine
from genaug.runs.side_by_side import Died, side_by_side
from hydra_plugins.genaug_cells.launcher import longest_first
from tests.conftest import STARTER


@pytest.fixture(autouse=True)
def quick_starts(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(STARTER.folder / "python"))


def job(number, overrides):
    word = overrides[0]
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        raise ValueError(f"job {number}")
    if word == "wait":
        time.sleep(60)
    print("said by", word)
    return number, os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_each_job_is_run_once_by_few_processes_and_its_lines_bear_its_number(capfd):
    ended = dict(side_by_side({10 + i: [f"{i}"] for i in range(6)}, job, processes=2, threads=3))
    answers = [ended[10 + i] for i in range(6)]
    assert [well for well, _ in answers] == [True] * 6
    assert [value[0] for _, value in answers] == list(range(10, 16))
    assert len({value[1] for _, value in answers}) <= 2 and os.getpid() not in {value[1] for _, value in answers}
    assert {value[2] for _, value in answers} == {"3"}
    said = capfd.readouterr().out.splitlines()
    assert all(f"[{11 + i}] said by {i}" in said for i in range(6))


def test_jobs_start_in_the_order_in_which_they_are_given(capfd):
    list(side_by_side({2: ["c"], 0: ["a"], 1: ["b"]}, job, processes=1, threads=1))
    said = [line for line in capfd.readouterr().out.splitlines() if "said by" in line]
    assert said == ["[3] said by c", "[1] said by a", "[2] said by b"]


def test_a_killed_process_and_a_failing_job_cost_no_other_job():
    words = ["a", "die", "b", "fail", "c", "die", "d"]
    ended = dict(side_by_side({place: [word] for place, word in enumerate(words)}, job, processes=2, threads=1))
    assert [isinstance(ended[place], Died) for place in range(7)] == [word == "die" for word in words]
    assert str(ended[1]) == "SIGKILL"
    well, error = ended[3]
    assert not well and isinstance(error, ValueError) and str(error) == "job 3"
    assert all(ended[place][0] for place in (0, 2, 4, 6))


@pytest.mark.slow
def test_whoever_is_told_to_end_ends_the_processes_too():
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(side_by_side({place: ["wait"] for place in range(3)}, job, processes=2, threads=1))
    assert time.monotonic() - started < 30


def test_processes_of_one_machine_take_gpus_evenly_and_give_them_back(tmp_path, monkeypatch):
    taken, held = [], []
    for _ in range(5):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
        monkeypatch.setattr(machine, "_gpu", None)
        taken.append(machine.take_gpu(tmp_path))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == taken[-1]
        held.append(machine._gpu)
    assert taken == ["2", "5", "2", "5", "2"]
    held[1].release()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(machine, "_gpu", None)
    assert machine.take_gpu(tmp_path) == "5"
    assert machine.take_gpu(tmp_path) is None, "a process takes one"
    monkeypatch.setattr(machine, "_gpu", None)
    assert machine.take_gpu(tmp_path) is None, "there is nothing to choose"


def test_the_cores_of_a_sweep_are_those_that_openmp_is_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


def test_runs_that_make_images_start_before_those_that_only_train():
    chosen = ("none", "real_guidance", "none", "da_fusion")
    configs = [compose_typed(["dataset=digits", f"generator={name}"]) for name in chosen]
    assert longest_first(configs) == [1, 3, 0, 2]
