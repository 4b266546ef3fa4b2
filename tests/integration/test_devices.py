"""Several devices train one model: two processes on the CPU, started as a user would start them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genaug.core.errors import GenaugError
from genaug.downstream.trainer import TrainerConfig
from tests.conftest import ROOT

# a backbone without batch normalisation, whose statistics would be those of each process's share
RUN = [
    "generator=vae_reconstruction", "mix.m=1", "mix.alpha=0.5", "dataset.shots=1",
    "downstream.backbone=test_convnext.r160_in1k", "downstream.num_steps=12", "downstream.eval_every=6",
    "downstream.select=best_val", "downstream.ema_decay=0.5",
    "trainer.accelerator=cpu", "trainer.num_threads=1", "tracking=local",
]  # fmt: skip


def only_run(outputs: Path) -> Path:
    [folder] = (outputs / "runs").iterdir()
    return folder


def test_two_processes_give_the_metrics_of_one_and_one_record(train):
    train(*RUN)
    one = json.loads((only_run(train.outputs) / "result.json").read_text())
    pools = [path.stat().st_mtime_ns for path in (train.outputs / "store").glob("pools/*/*")]
    only_run(train.outputs).rename(train.outputs / "one")

    said = train(*RUN, "trainer.devices=2")
    folder = only_run(train.outputs)
    two = json.loads((folder / "result.json").read_text())
    numbers = {key: value for key, value in one["metrics"].items() if isinstance(value, float)}
    assert {key: two["metrics"][key] for key in numbers} == pytest.approx(numbers, abs=0.01)
    assert two["metrics"]["test/cross_entropy"] == pytest.approx(numbers["test/cross_entropy"], rel=1e-3)
    assert two["fingerprint"] == one["fingerprint"]
    assert said.count("trained to step 12") == 1
    assert "Traceback" not in said
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    former = [json.loads(line)["step"] for line in (train.outputs / "one" / "metrics.jsonl").read_text().splitlines()]
    assert steps == former
    assert pools == [path.stat().st_mtime_ns for path in (train.outputs / "store").glob("pools/*/*")]


def test_the_runs_of_a_sweep_in_one_process_train_on_several_devices_one_after_the_other(train):
    quick = (
        "generator=none",
        "dataset.shots=1",
        RUN[4],
        "downstream.num_steps=4",
        "downstream.eval_every=null",
        *RUN[9:],
    )
    train("-m", "seed=0,1", *quick, "trainer.devices=2")
    two = {
        folder.name: json.loads((folder / "result.json").read_text()) for folder in (train.outputs / "runs").iterdir()
    }
    (train.outputs / "runs").rename(train.outputs / "two")
    train("-m", "seed=0,1", *quick)
    assert len(two) == 2
    for name, result in two.items():
        one = json.loads((train.outputs / "runs" / name / "result.json").read_text())
        assert result["metrics"]["test/cross_entropy"] == pytest.approx(one["metrics"]["test/cross_entropy"], rel=1e-3)


def test_a_signal_to_the_leader_ends_all_with_a_checkpoint(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "generator=none", "dataset.shots=1", *RUN[4:5], *RUN[9:]]
    command += ["trainer.devices=2", "downstream.num_steps=100000", "trainer.checkpoint_every=5"]
    process = subprocess.Popen([*command, f"paths.outputs_dir={tmp_path}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("runs/*/checkpoints/resume.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "interrupted by SIGTERM" in said and "Traceback" not in said
    assert len(children) == 1 and not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert json.loads((only_run(tmp_path) / "status.json").read_text())["state"] == "interrupted"


def test_devices_that_cannot_share_a_batch_are_refused():
    TrainerConfig(accelerator="cpu", devices=2).check(32)
    with pytest.raises(GenaugError, match=r"trainer.devices=3 cannot share .*=32 evenly: .*batch_size=33"):
        TrainerConfig(accelerator="cpu", devices=3).check(32)
    with pytest.raises(GenaugError, match=r"torch sees 1 of mps: write trainer\.devices=1"):
        TrainerConfig(accelerator="mps", devices=2).check(32)
