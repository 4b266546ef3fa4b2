"""What W&B shows of a run while it runs is what a sync writes of it later."""

import pytest

from genaug.core.files import read_json
from genaug.tracking.wandb_sync import summary_of
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
