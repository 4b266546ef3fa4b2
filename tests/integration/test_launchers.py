"""A sweep by every launcher gives what it gives in one process: results, W&B runs, the summary; a failing run is alone."""

import importlib.util
import json
import os
import signal
import time

import pytest

from tests.conftest import genaug

SWEEP = (
    "-m", "generator=none", "downstream.num_steps=20", "downstream.eval_every=null", "trainer.accelerator=cpu",
)  # fmt: skip
SHOTS = dict.fromkeys(("cells", "joblib", "ray"), (1, 2, 1000)) | {"submitit_local": (1, 1000)}
"""Of the runs; 1000 are more than there are. submitit starts Python anew for each, which takes ten seconds."""
LAUNCHERS = {
    "cells": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": (),
    "ray": ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"),
}
PLUGINS = {name: f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher" for name in LAUNCHERS if name != "cells"}
OFFLINE = {"WANDB_MODE": "offline", "RAY_AUTH_MODE": "disabled"}


def is_installed(name: str) -> bool:
    return name not in PLUGINS or importlib.util.find_spec(PLUGINS[name]) is not None


@pytest.fixture(scope="module")
def expected():
    """Metrics by shots of the runs that can be run, kept by the first test that makes them."""
    return {}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_sweep_gives_the_same_by_every_launcher(train, expected, name):
    if not is_installed(name):
        pytest.skip(f"the extra {name} is not installed")
    cores = {"OMP_NUM_THREADS": "2"} if name == "cells" else {}
    shots = SHOTS[name]
    sweep = (*SWEEP, f"dataset.shots={','.join(map(str, shots))}")
    said = train(*sweep, f"hydra/launcher={name}", *LAUNCHERS[name], code=2, env={**OFFLINE, **cores})
    results = [json.loads(path.read_text()) for path in train.outputs.glob("runs/*/result.json")]
    assert f"{len(shots)} runs: {len(shots) - 1} ok, 1 failed" in said
    assert "UserWarning" not in said
    assert "log.txt)" in said, "the summary names the log of what failed"
    metrics = {result["config"]["dataset"]["shots"]: result["metrics"] for result in results}
    assert tuple(sorted(metrics)) == shots[:-1]
    assert len({str(found) for found in metrics.values()}) == len(metrics), "each run has results of its own"
    assert {result["environment"]["threads"] for result in results} == {1}
    assert metrics == {shots: expected.setdefault(shots, found) for shots, found in metrics.items()}
    mirrored = {path.name.rpartition("-")[2] for path in train.outputs.glob("wandb/offline-run-*")}
    assert {result["fingerprint"] for result in results} <= mirrored
    if cores:  # small runs use those that they are given
        assert "[1] dataset.shots=1" in said and "[2] dataset.shots=2" in said
        assert len({json.loads(path.read_text())["pid"] for path in train.outputs.glob("runs/*/status.json")}) == 2
    states = genaug("status", "--outputs", str(train.outputs))
    assert f"{len(shots)} runs: {len(shots) - 1} complete, 1 failed" in states


def test_ctrl_c_ends_all_runs_of_a_sweep_with_a_checkpoint(train):
    process = train.start(
        "-m", "generator=none", "seed=0,1,2", "dataset.shots=1", "downstream.num_steps=100000", "tracking=local",
        "trainer.checkpoint_every=5", "trainer.accelerator=cpu", "hydra.launcher.processes=2",
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(train.outputs.glob("runs/*/checkpoints/resume.ckpt"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.wait(90)
    assert process.returncode == 130, said
    assert "interrupted by SIGINT" in said and "Traceback" not in said
    states = [json.loads(path.read_text()) for path in train.outputs.glob("runs/*/status.json")]
    assert [state["state"] for state in states] == ["interrupted"] * 2
    assert not any(os.path.exists(f"/proc/{state['pid']}") for state in states)
