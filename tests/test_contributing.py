"""Whoever follows a recipe of CONTRIBUTING.md, and does nothing else, gets a run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, STARTER, environment_of

GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"\n### (An? .*?)\n(.*?)(?=\n##|\Z)", GUIDE, re.DOTALL))
ASSETS = Path("src/genaug/priors/assets")


def blocks(recipe: str, *kinds: str) -> list[str]:
    return [text for kind, text in re.findall(r"```(\w+)\n(.*?)```", recipe, re.DOTALL) if kind in kinds]


def files(recipe: str) -> dict[str, str]:
    """What a recipe writes, by path: the first line of each block names it."""
    named = [re.match(r"# (\S+)\n(.*)", text, re.DOTALL) for text in blocks(recipe, "python", "yaml")]
    assert all(named), "a block of a recipe does not begin with its path"
    return {match[1]: match[2] for match in named if match}


def commands(recipe: str) -> list[list[str]]:
    """Its commands, as words for the starter."""
    programs = {"python": [], "genaug": [str(ROOT / "tests" / "console.py")]}
    lines = [shlex.split(line) for text in blocks(recipe, "sh") for line in text.splitlines()]
    return [[*programs[program], *words] for program, *words in lines]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own: the sources, presets and experiments as they are here."""
    for name in ("src", "conf", "experiments"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "assets", "*.egg-info")
        )
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / ASSETS).symlink_to(ROOT / ASSETS)
    return tmp_path


def run(command: list[str], checkout: Path) -> str:
    environment = environment_of({"PYTHONPATH": str(checkout / "src"), "WANDB_MODE": "offline"})
    code, said = STARTER.run(command, checkout, environment)
    assert code == 0, said
    return said


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_with_no_other_file_touched(name, checkout):
    for path, content in files(RECIPES[name]).items():
        place = checkout / path
        assert not place.exists(), f"{path} is there already: the recipe would change it"
        place.parent.mkdir(exist_ok=True)
        place.write_text(content)
    text = "".join(run(command, checkout) for command in commands(RECIPES[name]))
    results = list((checkout / "outputs" / "runs").glob("*/result.json"))
    assert len(results) == (4 if name == "An experiment" else 1), text
    if name == "An experiment":
        assert "Digits, with and without flips" in text and "flip_crop" in text
    else:
        assert f'"{Path(next(iter(files(RECIPES[name])))).stem}"' in results[0].read_text()


def test_there_are_four_recipes_and_their_code_is_formatted(tmp_path):
    assert list(RECIPES) == ["A generator", "A data set", "A downstream model", "An experiment"]
    for recipe in RECIPES.values():
        for path, content in files(recipe).items():
            if path.endswith(".py"):
                (tmp_path / Path(path).name).write_text(content)
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    subprocess.run([*ruff, "check", *settings, str(tmp_path)], check=True)
    subprocess.run([*ruff, "format", "--check", *settings, str(tmp_path)], check=True)


def test_a_package_of_its_own_adds_a_component_by_an_entry_point(tmp_path):
    (path, content), *_ = files(RECIPES["A generator"]).items()
    (tmp_path / Path(path).name).write_text(content)
    about = tmp_path / "tint-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tint\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[genaug.components]\ntint = tint\n")
    program = (
        "from genaug.composition import compose_typed; print(compose_typed(['generator=_tint']).generator.strength)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "0.3", done.stderr
