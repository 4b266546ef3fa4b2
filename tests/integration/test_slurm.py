"""SLURM's warning signal before a job's time is up: a checkpoint, and the job is put back into the queue by ``scontrol``, which
is played by a script here."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from genaug.core.interruption import Interrupted, requeue


@pytest.fixture
def scontrol(tmp_path):
    """The file to which the stand-in writes its arguments; it fails while there is a file ``down``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/down ] || {{ echo "Invalid job id" >&2; exit 1; }}\n'
    )
    (folder / "scontrol").chmod(0o755)
    return tmp_path / "asked"


def test_the_warning_signal_writes_a_checkpoint_and_requeues_and_the_job_goes_on_from_there(train, scontrol):
    command = (
        "generator=none", "dataset.shots=1", "downstream.num_steps=120", "trainer.num_threads=1",
        "trainer.checkpoint_every=10", "tracking=local",
    )  # fmt: skip
    path = f"{scontrol.parent}/bin{os.pathsep}{os.environ['PATH']}"
    process = train.start(*command, env={"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "PATH": path})
    deadline = time.monotonic() + 240
    while not list(train.outputs.glob("runs/*/checkpoints/resume.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    said = process.wait(120)
    assert process.returncode == 128 + signal.SIGUSR1, said
    assert "interrupted by SIGUSR1: requeued the job 77" in said
    assert scontrol.read_text() == "requeue 77\n"
    [folder] = (train.outputs / "runs").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    reached = _steps(folder)
    train(*command, env={"SLURM_JOB_ID": "77"})  # as SLURM starts it again
    steps = _steps(folder)
    assert reached[-1] < 120 == steps[-1]
    assert steps[: len(reached)] == reached and len(set(steps)) == len(steps)


def _steps(folder: Path) -> list[int]:
    rows = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if "train/loss" in row]


@pytest.mark.parametrize(
    "signum, said, goes_on",
    [
        (signal.SIGUSR1, "", True),
        (signal.SIGTERM, "JobState=RUNNING Reason=None PreemptTime=2026-11-27T03:45:44 SuspendTime=None", True),
        (signal.SIGTERM, "JobState=RUNNING Reason=None PreemptTime=None SuspendTime=None", False),
        (signal.SIGTERM, "JobState=CANCELLED Reason=None PreemptTime=2026-11-27T03:45:44 SuspendTime=None", False),
        (signal.SIGTERM, "slurm_load_jobs error: Invalid job id specified", False),
        (signal.SIGINT, "JobState=RUNNING Reason=None PreemptTime=2026-11-27T03:45:44 SuspendTime=None", False),
    ],
)
def test_a_job_goes_on_later_if_it_gives_way_to_another_and_not_if_it_is_cancelled(
    tmp_path, monkeypatch, signum, said, goes_on
):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not Interrupted(signal.SIGTERM).requeues  # no job of SLURM
    monkeypatch.setenv("SLURM_JOB_ID", "81")
    assert Interrupted(signum).requeues is goes_on


def test_what_became_of_the_requeueing_is_said(scontrol, monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "81")
    monkeypatch.setenv("PATH", "/nowhere")
    assert requeue() == "there is no scontrol here: requeue the job 81 by hand"
    monkeypatch.setenv("PATH", f"{scontrol.parent}/bin:/bin:/usr/bin")
    (scontrol.parent / "down").touch()
    assert requeue() == "the job 81 cannot be requeued: Invalid job id\n"
    (scontrol.parent / "down").unlink()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "80")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue() == "requeued the job 80_3"
    assert scontrol.read_text().splitlines() == ["requeue 81", "requeue 80_3"]
