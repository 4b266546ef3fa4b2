"""What W&B shows of a run while it runs is what a sync writes of it later."""

import pytest
import yaml

from genaug.composition import compose_typed
from genaug.core.files import read_json
from genaug.tracking.wandb_sync import summary_of
from tests.conftest import ROOT
from tests.tracking.test_wandb_sync import read_offline

pytest.importorskip("wandb")


def test_the_summary_of_a_live_run_is_that_of_a_synced_one(train):
    train(
        "preset=debug", "generator=real_guidance", "generator.num_steps=4", "mix.m=1", "tracking.wandb=true",
        env={"WANDB_MODE": "offline"},
    )  # fmt: skip
    result = read_json(next(train.outputs.glob("runs/*/result.json")), {})
    wanted = summary_of(result)
    live = read_offline(next(train.outputs.glob("wandb/offline-run-*")))["summary"]
    assert {key: live.get(key) for key in wanted} == wanted
    assert {"name/generator", "alpha", "m", "t0", "seed", "oracle", "seconds/train"} <= set(wanted)


def test_the_example_of_a_wandb_sweep_composes_at_each_of_its_ends():
    sweep = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    ends = {
        key: rule.get("values", [rule.get("value", rule.get("min")), rule.get("max")])
        for key, rule in sweep["parameters"].items()
    }
    for place in (0, -1):
        chosen = {key: values[place] for key, values in ends.items() if values[place] is not None}
        compose_typed([f"{key}={value}" for key, value in {"generator": "real_guidance", **chosen}.items()]).check()
    assert (ROOT / sweep["program"]).is_file() and "${args_no_hyphens}" in sweep["command"]


def test_a_sweep_of_wandb_hears_of_a_run_that_is_complete_already(train):
    debug = ["preset=debug", "generator=none", "tracking.wandb=true"]
    for attempt in (1, 2):
        train(*debug, env={"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abcd1234", "WANDB_RUN_ID": f"agent{attempt}"})
    runs = {run["id"]: run for run in map(read_offline, train.outputs.glob("wandb/offline-run-*"))}
    assert set(runs) == {"agent1", "agent2"}
    values = [run["summary"]["val/accuracy_macro"] for run in runs.values()]
    assert values[0] == values[1]
