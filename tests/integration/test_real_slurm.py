"""A SLURM that answers runs our arrays: failures stay apart, warned tasks are requeued and go on, copies share one pool.

``one_node_slurm.sh`` starts one on a machine of one's own; without any these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, genaug, printed

pytestmark = pytest.mark.slow
LONG = (
    "generator=none",
    "dataset.shots=1",
    "downstream.num_steps=3000",
    "trainer.checkpoint_every=10",
    "tracking=local",
)
TASK = ("--gpus", "0", "--cpus", "1", "--memory", "2", "--hours", "0.2")


def ask(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True, scope="module")
def slurm() -> None:
    if shutil.which("sbatch") is None or subprocess.run(["squeue"], capture_output=True).returncode:
        pytest.skip("no SLURM answers here: see tests/integration/one_node_slurm.sh")


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """``submit("seed=0,1")``: the printed array is in the queue; returns its number. What is left of it is cancelled later."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))))
    jobs: list[str] = []

    def submitted(*words: str) -> str:
        script = tmp_path / "array.sh"
        script.write_text(printed("slurm", *words, *TASK, "--outputs", str(tmp_path)))
        jobs.append(ask("sbatch", "--parsable", str(script)).strip())
        return jobs[-1]

    yield submitted
    subprocess.run(["scancel", *jobs], check=False)


def wait_for(found: Callable[[], object], tmp_path: Path) -> None:
    deadline = time.monotonic() + 240
    while not found():
        said = "".join(path.read_text() for path in tmp_path.glob("slurm/*.log"))
        assert time.monotonic() < deadline, f"{ask('squeue')}\n{said}"
        time.sleep(0.3)


def states(job: str) -> list[str]:
    """Of the tasks that are still in the queue."""
    return ask("squeue", "-h", "-o", "%T", "-j", job).split()


def status(tmp_path: Path) -> dict:
    [path] = tmp_path.glob("runs/*/status.json")
    return json.loads(path.read_text())


def steps(tmp_path: Path) -> list[int]:
    """At which losses have been recorded so far."""
    lines = [line for path in tmp_path.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return [row["step"] for row in rows if "train/loss" in row]


def test_a_task_that_fails_costs_no_other(submit, tmp_path):
    words = ("generator=none", "preset=debug", "tracking=local", "downstream.optimizer=sgd", "downstream.lr=0.01,100")
    job = submit(*words)
    wait_for(lambda: not states(job), tmp_path)
    found = {p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("runs/*/status.json")}
    assert sorted(about["state"] for about in found.values()) == ["complete", "failed"]
    [reason] = [about["reason"] for about in found.values() if about["state"] == "failed"]
    assert "diverged" in reason
    assert sum(bool(re.search("^genaug: .*diverged", p.read_text(), re.M)) for p in tmp_path.glob("slurm/*.log")) == 1


@pytest.mark.parametrize("why", ["time", "preemption"])
def test_a_warned_task_is_requeued_and_goes_on_and_a_cancelled_one_is_not(submit, tmp_path, why):
    if why == "preemption" and not ask("sinfo", "-h", "-p", "high"):
        pytest.skip("this SLURM has no partition high, whose jobs take the place of others")
    job = submit(*LONG)
    wait_for(lambda: steps(tmp_path), tmp_path)
    if why == "time":
        ask("scancel", "--signal=USR1", job)  # as SLURM does before the time is up
        signal = "SIGUSR1"
    else:
        node = ask("sinfo", "-h", "-p", "high", "-o", "%c").strip()
        ask("sbatch", "--partition=high", f"--cpus-per-task={node}", "--output=/dev/null", "--wrap=sleep 1")
        signal = "SIGTERM"
    wait_for(lambda: states(job) == ["PENDING"], tmp_path)
    [log] = tmp_path.glob("slurm/*.log")
    assert f"interrupted by {signal}: requeued the job {job}_0" in log.read_text()
    assert status(tmp_path)["state"] == "interrupted"
    reached = steps(tmp_path)
    ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM would wait for two minutes
    wait_for(lambda: len(steps(tmp_path)) > len(reached), tmp_path)
    assert steps(tmp_path)[: len(reached)] == reached
    ask("scancel", job)
    wait_for(lambda: not states(job), tmp_path)
    assert status(tmp_path)["state"] == "interrupted" and status(tmp_path)["attempt"] == 1
    assert "interrupted by SIGTERM: run the same command again to continue" in log.read_text()


def test_tasks_that_start_together_share_one_pool(submit, tmp_path):
    pool = ("task=generate", "generator=real_guidance", "dataset.shots=8", "mix.m=4", "generator.num_steps=20")
    job = submit(*pool, "tracking=local", "--copies", "2")
    wait_for(lambda: not states(job), tmp_path)
    said = "".join(path.read_text() for path in tmp_path.glob("slurm/*.log"))
    helped = int(re.search(r"^(\d+) images made for .* on which another process works", said, re.M)[1])
    [result] = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert helped > 0 and result["counts"]["images_generated"] + helped == 320
    assert "0 damaged" in genaug("verify", "--outputs", str(tmp_path))
