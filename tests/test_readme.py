"""Every command of the README exists and composes; the two that it leads with are what CI runs and what the runs test."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer.main import get_group

from genaug.app import compose_typed
from genaug.cli import app
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
LINES = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
TRAINING = [line for line in LINES if line.startswith("python train.py")]
CONSOLE = [line for line in LINES if line.startswith("genaug ")]


def first_cell(command: str) -> list[str]:
    """Overrides of a command's first cell."""
    overrides = []
    for word in shlex.split(command)[2:]:
        if word == "-m":
            continue
        override = OverridesParser.create().parse_override(word)
        if override.is_sweep_override():
            word = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        overrides.append(word)
    return overrides


@pytest.mark.parametrize("command", TRAINING)
def test_every_training_command_composes_to_a_valid_cell(command):
    config = compose_typed(first_cell(command))
    config.check()
    chosen = dict(word.split("=", 1) for word in first_cell(command))
    assert config.generator.name == chosen.get("generator", config.generator.name)
    assert config.experiment == chosen.get("experiment")


@pytest.mark.parametrize("command", CONSOLE)
def test_every_console_command_parses_and_its_experiment_exists(command):
    name, *arguments = shlex.split(command)[1:]
    parsed = get_group(app).commands[name].make_context(name, arguments)  # a wrong option raises
    item = parsed.params.get("item")
    assert item is None or (ROOT / "experiments" / f"{item}.yaml").is_file()


def test_the_commands_that_the_readme_leads_with_are_make_targets_and_ci_calls_one():
    assert README.index("make demo") < README.index("make test") < README.index("pip install")
    assert re.findall(r"^(demo|test):", (ROOT / "Makefile").read_text(), re.MULTILINE) == ["demo", "test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_commands_were_found():
    assert len(TRAINING) >= 8 and len(CONSOLE) >= 6
