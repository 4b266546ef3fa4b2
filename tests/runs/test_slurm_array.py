"""The printed SLURM array is what sbatch takes, and each of its tasks runs one run of the sweep."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.runs.cell import cell_fingerprint
from genaug.runs.slurm import Resources, array_script
from genaug.tables.sweep import plan_jobs
from tests.conftest import ROOT, STARTER, genaug, printed
from tests.runs.finished_run import write_finished

SWEEP = ["experiment=demo/compare", "seed=0", "mix.m=1,2", "dataset.shots=1"]


@pytest.fixture
def srun(tmp_path):
    """A stand-in that writes its arguments, one a line, to a file; returns ``start(script, task)``, which gives them back."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\nexit ${{SRUN_EXIT:-0}}\n')
    (folder / "srun").chmod(0o755)

    def start(script: str, task: int, code: int = 0) -> list[str]:
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(task)}
        environment |= {"SRUN_EXIT": str(code)}
        done = subprocess.run(["bash"], input=script, env=environment, text=True, capture_output=True, cwd="/")
        assert done.returncode == code, done.stderr
        return (tmp_path / "words").read_text().splitlines()

    return start


@pytest.mark.slow
def test_the_tasks_of_the_array_are_the_runs_of_the_sweep_each_once(srun, tmp_path):
    script = printed("slurm", *SWEEP, "--outputs", str(tmp_path), "--gpus", "0")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE))
    assert options["array"] == "0-4%64", "a run without generated images is one whatever M"
    assert "requeue" in options and options["signal"] == "USR1@120" and options["open-mode"] == "append"
    assert options["time"] == "1-00:00:00" and "gpus-per-task" not in options
    assert Path(options["output"]).parent.is_dir(), "SLURM does not make the folder of its logs"
    started = [srun(script, task) for task in range(5)]
    assert all(words[:3] == ["--cpus-per-task=8", str(STARTER.folder / "python"), "train.py"] for words in started)
    assert all(words[-2:] == ["hydra.mode=RUN", f"paths.outputs_dir={tmp_path}"] for words in started)
    found = {cell_fingerprint(compose_typed([w for w in words[3:] if w != "hydra.mode=RUN"])) for words in started}
    assert found == {cell.fingerprint for cell in plan_jobs(SWEEP)} and len(found) == 5


def test_special_characters_reach_the_run_and_its_exit_code_slurm(srun, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    word = """generator.prompt="a {name}'s $HOME; `id` *" """
    script = array_script([["seed=0"], [word, "seed=1"]], Resources(gpus=2, partition="p"), tmp_path, "two")
    assert srun(script, 1, code=138)[3:5] == [word, "seed=1"]
    assert "#SBATCH --gpus-per-task=2\n" in script and "#SBATCH --partition=p\n" in script
    done = subprocess.run(["bash"], input=script, env={"SLURM_ARRAY_TASK_ID": "2"}, text=True, capture_output=True)
    assert done.returncode == 2 and "there is no run 2" in done.stderr


@pytest.mark.slow
def test_complete_and_refused_runs_are_left_out(tmp_path):
    sweep = ["generator=none", "dataset.shots=1", "seed=0,1,2", "downstream.lr=0.1,-1"]
    cells = [cell for cell in plan_jobs(sweep) if cell.config is not None]
    write_finished(tmp_path / "runs" / f"digits-{cells[0].fingerprint}")
    said = genaug("slurm", *sweep, "--outputs", str(tmp_path))
    assert "--array=0-1%" in said and said.count("must be") == said.count("left out") == 3


@pytest.mark.slow
def test_copies_of_one_run_share_its_images_out(tmp_path):
    said = genaug("slurm", "task=generate", "generator=real_guidance", "--copies", "3", "--outputs", str(tmp_path))
    assert "--array=0-2%" in said and len(set(re.findall(r"\d\) set -- (.*) ;;", said))) == 1


@pytest.mark.parametrize("wrong", [{"hours": 0.01}, {"cpus": 0}, {"gpus": -1}, {"memory_gb": 0}, {"at_once": 0}])
def test_resources_that_no_run_can_use_are_refused(wrong):
    with pytest.raises(GenaugError, match="must be at least"):
        Resources(**wrong)


def test_names_that_slurm_would_misread_are_refused(tmp_path):
    assert "misread" in genaug("slurm", "seed=0", "--outputs", f"{tmp_path}/a%b", code=2)


def test_the_array_counts_from_nought_and_hours_become_days(tmp_path):
    script = array_script([["seed=0"], ["seed=1"], ["seed=2"]], Resources(hours=30.5, at_once=2), tmp_path, "three")
    assert "#SBATCH --array=0-2%2\n" in script and "#SBATCH --time=1-06:30:00\n" in script
    assert [f"  {number}) set -- seed={number} ;;" in script for number in range(3)] == [True] * 3
