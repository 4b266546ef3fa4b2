"""What commands share: where results lie, and what an experiment is called."""

import errno
import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genaug import cli
from genaug.cli import app
from genaug.core.errors import GenaugError
from genaug.explanation import message
from tests.evaluation.test_folder_check import class_folders
from tests.tables.finished_cells import finish_all

COMMANDS = {
    "check": ["FOLDER", "--no-prior"],
    "compare": ["generator=none,real_guidance"],
    "plan": ["paper/item", "mix.m=2"],
    "report": ["paper/item", "--out", "page.html"],
    "slurm": ["experiment=paper/item", "seed=0,9", "generator=none", "dataset.shots=1"],
    "sync": ["paper/item", "seed=8"],
    "table": ["paper/item"],
    "verdict": ["paper/item", "seed=0,1,2,3,4,5"],
}
"""Every command that takes words as train.py does, and words for it."""


def said(*words: str) -> str:
    """What a command prints, or how it refuses."""
    ended = CliRunner().invoke(app, list(words))
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        assert isinstance(ended.exception, GenaugError), ended.exception
        return str(ended.exception)
    return ended.output


@pytest.fixture
def elsewhere(sweep_of, tmp_path) -> Path:
    """Finished runs of an experiment, not in ``outputs``."""
    sweep = sweep_of()
    sweep.outputs = tmp_path / "else where"
    finish_all(sweep)
    return sweep.outputs


def test_every_command_that_takes_words_is_tried_here():
    commands = {
        command.callback.__name__: inspect.signature(command.callback).parameters for command in app.registered_commands
    }
    takes_words = {name for name, found in commands.items() if {"overrides", "select"} & set(found)}
    assert takes_words == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_outputs_folder_is_named_as_for_train_py_or_as_an_option_and_both_mean_the_same(
    elsewhere, tmp_path, command
):
    if command == "check":
        class_folders(tmp_path / "FOLDER")
    words = COMMANDS[command]
    as_option = said(command, *words, "--outputs", str(elsewhere))
    as_word = said(command, *words, f"paths.outputs_dir={elsewhere}")
    assert as_word == as_option and "12 missing" not in as_word
    assert not (tmp_path / "outputs").exists()


def test_a_place_at_which_nothing_can_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        (tmp_path / "file" / "folder").mkdir()
    text = message(caught.value)
    assert text is not None and text.startswith(
        f"{tmp_path / 'file' / 'folder'} cannot be used (Not a directory). Name another"
    )


def test_two_outputs_folders_are_refused():
    assert "Two outputs folders" in said("plan", "demo/compare", "paths.outputs_dir=one", "--outputs", "two")


@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_an_outputs_folder_that_is_not_there_is_not_called_an_empty_one(command, tmp_path):
    assert "absent is not a folder" in said(command, "--outputs", str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("command", ["plan", "table", "compare", "verdict"])
def test_an_experiment_is_named_as_for_train_py_and_alone(elsewhere, command):
    place = ["--outputs", str(elsewhere)]
    named = said(command, "experiment=paper/item", *place)
    assert named == said(command, "paper/item", *place) and "No finished run" not in named
    if command == "plan":
        assert "generator=none is no experiment, which comes first here" in said(command, "generator=none", *place)
    assert "no experiment paper/itme. Did you mean paper/item" in said(command, "experiment=paper/itme", *place)


def test_an_experiment_with_a_condition_selects_among_its_finished_runs(elsewhere):
    words = ["compare", "experiment=paper/item", "--outputs", str(elsewhere), "--where"]
    assert "real_guidance" in said(*words, "seed<3") and "No finished run" in said(*words, "seed>90")


def test_a_full_disk_is_one_sentence_and_a_fault_of_ours_keeps_its_traceback(monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.startswith("genaug: The disk is full (report.html). Free space")
    monkeypatch.setattr(cli, "app", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_an_experiment_says_with_what_it_was_last_run_where_that_is_shown(sweep_of):
    sweep = sweep_of("mix.m=2")
    finish_all(sweep)
    record = sweep.outputs / "sweeps" / "1" / "cells.jsonl"
    record.parent.mkdir(parents=True)
    words = ["experiment=paper/item", "mix.m=2", "seed=0", "generator=none"]
    record.write_text(json.dumps({"overrides": words}) + "\n")
    place = ["--outputs", str(sweep.outputs)]
    assert "paper/item as it was last run, with mix.m=2:" in said("verdict", "paper/item", *place)
    assert "last run" not in said("verdict", "paper/item", "mix.m=2", *place)


def test_a_report_of_everything_leaves_out_and_names_what_no_longer_composes(sweep_of, project):
    sweep = sweep_of()
    finish_all(sweep)
    file = project / "experiments" / "paper" / "edited.yaml"
    file.write_text(
        file.with_name("item.yaml").read_text().replace("# @package", "# edited\n# @package") + "\nnowhere: 1\n"
    )
    for number, item in enumerate(("paper/item", "paper/edited")):
        record = sweep.outputs / "sweeps" / str(number) / "cells.jsonl"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"overrides": [f"experiment={item}"]}) + "\n")
    place = ["--outputs", str(sweep.outputs), "--out", str(project / "page.html")]
    everything = said("report", *place)
    assert "paper/edited is left out: " in everything and "page.html: paper/item" in everything
    assert "nowhere" in said("report", "paper/edited", *place)
