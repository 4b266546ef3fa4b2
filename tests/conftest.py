"""Shared by all tests: sample data, small data sets, and runs of train.py in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.starter import Starter

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """``shared(name)``: the folder of a sample data set, which users of the project do not have."""

    def folder(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"sample data not present: ../shared/data/{name}")
        return SHARED / name

    return folder


@pytest.fixture(scope="session")
def starter():
    """Runs programs in processes that need not import first."""
    started = Starter()
    yield started
    started.close()


@pytest.fixture
def train(tmp_path, starter):
    """``train("-m", "seed=0,1")``: run train.py as a user would, with outputs in a temporary folder.

    ``fresh=True`` starts an interpreter of its own, for what is read when libraries are imported.
    """

    def run(*arguments: str, code: int = 0, env: dict[str, str | None] | None = None, fresh: bool = False) -> str:
        words = [str(ROOT / "train.py"), *arguments, f"paths.outputs_dir={tmp_path}/outputs"]
        environment = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
        if fresh:
            process = subprocess.run(
                [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment
            )
            ended, said = process.returncode, process.stdout + process.stderr
        else:
            ended, said = starter.run(words, ROOT, environment, tmp_path)
        assert ended == code, said
        return said

    run.outputs = tmp_path / "outputs"  # type: ignore[attr-defined]
    return run


def genaug(*arguments: str, code: int = 0) -> str:
    """The console command, as installed."""
    program = "import sys; from genaug.cli import main; sys.argv = ['genaug', *sys.argv[1:]]; main()"
    process = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout + process.stderr
