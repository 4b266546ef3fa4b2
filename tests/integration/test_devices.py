"""Several devices train one model: two processes on the CPU, started as a user would start them."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from genaug.core.errors import GenaugError
from genaug.downstream.trainer import TrainerConfig

# a backbone without batch normalisation, whose statistics would be those of each process's share
RUN = [
    "generator=vae_reconstruction", "mix.m=1", "mix.alpha=0.5", "dataset.shots=1",
    "downstream.backbone=test_convnext.r160_in1k", "downstream.num_steps=12", "downstream.eval_every=6",
    "downstream.select=best_val", "downstream.ema_decay=0.5",
    "trainer.accelerator=cpu", "trainer.num_threads=1", "tracking=local",
]  # fmt: skip


def results(folder: Path) -> dict[str, dict]:
    """Of the runs below ``folder``, by the run's name."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_runs_of_a_sweep_have_on_two_devices_the_metrics_of_one_and_one_record_each(train):
    train("-m", "seed=0,1", *RUN)
    runs, former = train.outputs / "runs", train.outputs / "one"
    runs.rename(former)
    pools = [path.stat().st_mtime_ns for path in (train.outputs / "store").glob("pools/*/*")]

    said = train("-m", "seed=0,1", *RUN, "trainer.devices=2")  # in one process, one after the other
    assert results(runs).keys() == results(former).keys() and len(results(runs)) == 2
    for name, two in results(runs).items():
        one = results(former)[name]
        numbers = {key: value for key, value in one["metrics"].items() if isinstance(value, float)}
        assert {key: two["metrics"][key] for key in numbers} == pytest.approx(numbers, abs=0.01)
        assert two["metrics"]["test/cross_entropy"] == pytest.approx(numbers["test/cross_entropy"], rel=1e-3)
        assert two["fingerprint"] == one["fingerprint"]
        assert steps(runs / name) == steps(former / name)
    assert said.count("trained to step 12") == 2
    assert "Traceback" not in said
    assert pools == [path.stat().st_mtime_ns for path in (train.outputs / "store").glob("pools/*/*")]


def test_a_signal_to_the_leader_ends_all_with_a_checkpoint(train):
    process = train.start(
        "generator=none", "dataset.shots=1", RUN[4], *RUN[9:], "trainer.devices=2", "downstream.num_steps=100000",
        "trainer.checkpoint_every=5",
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(train.outputs.glob("runs/*/checkpoints/resume.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    said = process.wait(60)
    assert process.returncode == 143, said
    assert "interrupted by SIGTERM" in said and "Traceback" not in said
    assert len(children) == 1 and not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert json.loads(next(train.outputs.glob("runs/*/status.json")).read_text())["state"] == "interrupted"


def test_devices_that_cannot_share_a_batch_are_refused(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    TrainerConfig(accelerator="cpu", devices=2).check(32)
    with pytest.raises(GenaugError, match=r"trainer.devices=3 cannot share .*=32 evenly: .*batch_size=33"):
        TrainerConfig(accelerator="cpu", devices=3).check(32)
    with pytest.raises(GenaugError, match=r"torch sees 1 of mps: write trainer\.devices=1"):
        TrainerConfig(accelerator="mps", devices=2).check(32)
