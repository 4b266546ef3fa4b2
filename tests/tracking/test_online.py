"""Online runs, resumption, sync, sweeps and reports, by the real W&B library against a stand-in of its server."""

import json
import os
from pathlib import Path

import pytest
import wandb
import yaml
from typer.testing import CliRunner

from genaug.cli import app
from genaug.composition import compose_typed
from genaug.core.files import read_json, read_rows
from genaug.runs.cell import Cell
from genaug.tracking.record import open_record
from genaug.tracking.wandb_sync import summary_of, sync
from tests.conftest import ROOT, STARTER
from tests.tables.finished_cells import finish_all
from tests.tables.test_report import POOL, write_pool
from tests.tracking.wandb_server import StandIn, wandb_server


@pytest.fixture
def server(monkeypatch):
    with wandb_server() as state:
        for name, value in state.environment.items():
            monkeypatch.setenv(name, value)
        yield state
        wandb.teardown()  # it remembers the address for the whole process


def losses(rows):
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_live_runs_arrive_with_rows_and_summary_and_say_which_made_the_pool_and_which_used_it(train, server: StandIn):
    train(
        "-m", "preset=debug", "generator=real_guidance", "generator.num_steps=4", "mix.m=1", "mix.alpha=0.3,0.5",
        "tracking.wandb=true",
    )  # fmt: skip
    results = [read_json(path, {}) for path in sorted(train.outputs.glob("runs/*/result.json"), key=os.path.getmtime)]
    assert {result["fingerprint"] for result in results} == set(server.runs)
    for result in results:
        run = server.runs[result["fingerprint"]]
        assert {key: run["summary"].get(key) for key in summary_of(result)} == summary_of(result)
        rows = read_rows(train.outputs / "runs" / result["cell"] / "metrics.jsonl")
        assert losses(run["history"]) == losses(rows) != []
        assert (run["groupName"], run["jobType"], run["exit"]) == ("digits", "train", 0)
        assert "generator:real_guidance" in run["tags"]
        assert json.loads(run["config"])["generator"]["value"]["name"] == "real_guidance"
    first, second = (server.runs[result["fingerprint"]] for result in results)
    pool = f"pool-{results[0]['pool']}"
    assert results[0]["pool"] == results[1]["pool"]
    assert pool in first["made"] and pool not in first["used"]
    assert pool in second["used"] and pool not in second["made"]
    history = [list(run["history"]) for run in (first, second)]
    sync(results, train.outputs, "digits", "genaug", verdict="It cannot be told.")  # they are there already
    assert [run["history"] for run in (first, second)] == history
    assert first["summary"]["verdict"] == "It cannot be told."


def test_a_resumed_run_goes_on_under_its_id_and_can_be_grouped_while_it_runs(tmp_path, server: StandIn):
    config = compose_typed(["generator=none", "dataset.shots=2", f"paths.outputs_dir={tmp_path}"])
    cell = Cell.of(config)
    cell.folder.mkdir(parents=True)
    interrupted = open_record(config.tracking, cell, 0)
    interrupted.log({"train/loss": 2.0}, 8)
    interrupted.finish({}, exit_code=1)
    run = server.runs[cell.fingerprint]
    assert (run["summary"]["name/generator"], run["summary"]["shots"], run["exit"]) == ("none", 2, 1)
    resumed = open_record(config.tracking, cell, 1)
    resumed.rewind(8)
    resumed.log({"train/loss": 1.0}, 16)
    resumed.finish({"test/accuracy_macro": 0.5})
    assert list(server.runs) == [cell.fingerprint]
    assert losses(run["history"]) == [(8, 2.0), (16, 1.0)] and run["exit"] == 0
    steps = [row["_step"] for row in run["history"]]
    assert steps == sorted(set(steps))  # none is written over
    assert (run["summary"]["test/accuracy_macro"], run["summary"]["name/generator"]) == (0.5, "none")


def test_sync_writes_an_experiment_once_and_its_report_says_the_table(project: Path, sweep_of, server: StandIn):
    sweep = finish_all(sweep_of())
    write_pool(sweep.outputs)
    chosen = ["paper/item", "dataset.shots=1", "seed=0"]
    folder = next(cell for cell in sweep.cells if cell.result and cell.result["pool"] is None and not cell.config.seed)
    metrics = sweep.outputs / "runs" / folder.result["cell"] / "metrics.jsonl"
    metrics.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.0}\n')
    done = CliRunner().invoke(app, ["sync", *chosen, "--report"])
    assert done.exit_code == 0 and "report: http" in done.output, done.output
    runs = {json.loads(run["config"])["generator"]["value"]["name"]: run for run in server.runs.values()}
    assert set(runs) == {"none", "real_guidance"}
    assert {run["groupName"] for run in runs.values()} == {"paper/item"}
    assert (runs["real_guidance"]["summary"]["alpha"], runs["real_guidance"]["summary"]["m"]) == (0.5, 2)
    assert "alpha" not in runs["none"]["summary"]
    assert f"pool-{POOL}" in runs["real_guidance"]["made"]
    (view,) = server.views
    spec = json.loads(view["spec"])
    text = next(block["content"] for block in spec["blocks"] if block["type"] == "markdown-block")
    assert "the best method with generated images is" in text and "| Real Guidance |" in text
    said = runs["real_guidance"]["summary"]["verdict"]
    assert said in text and "Careful: No leak audit of Real Guidance" in said  # what to be careful about, too
    grid = next(block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid")
    (runset,) = grid["runSets"]
    assert runset["filters"]["filters"][0]["value"] == "paper/item"
    assert runset["grouping"] == [{"section": "config", "name": "generator.value.name"}]
    bars = grid["panelBankSectionConfig"]["panels"][0]["config"]["metrics"]
    assert bars == ["summary_metrics.test/accuracy_macro"]


def test_a_sweep_that_wandb_steers_runs_its_configurations(tmp_path, server: StandIn):
    sweep = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    chosen = {
        "generator": "none",
        "preset": "debug",
        "paths.outputs_dir": str(tmp_path / "outputs"),
        "tracking.wandb": True,
    }
    args = {key: {"value": value} for key, value in chosen.items()}
    server.commands = [{"type": "run", "run_id": "fromsweep", "program": sweep["program"], "args": args}]
    impatient = "from wandb.cli.cli import cli; from wandb.wandb_agent import Agent; Agent.POLL_INTERVAL = 0.2; cli()"
    path = f"{STARTER.folder}{os.pathsep}{os.environ['PATH']}"

    def command(*words: str) -> str:
        environment = {**os.environ, "PATH": path, "WANDB_DIR": str(tmp_path)}
        code, said = STARTER.run(["-c", impatient, *words], ROOT, environment)
        assert code == 0, said
        return said

    assert "wandb agent tester/genaug/sweep1" in command("sweep", str(tmp_path / "sweep.yaml"))
    assert yaml.safe_load(server.sweeps[0]["config"])["metric"]["name"] == "val/accuracy_macro"
    said = command("agent", "tester/genaug/sweep1")
    assert list(server.runs) == ["fromsweep"], said  # under the id of the agent, not the fingerprint
    assert server.runs["fromsweep"]["sweep"] == "sweep1"
    assert "val/accuracy_macro" in server.runs["fromsweep"]["summary"]
