"""Shared by all tests: sample data, small data sets, and runs of train.py in a folder of their own."""

import gc
import os
import sys
from pathlib import Path

import pytest

from tests.starter import CONSOLE, Started, Starter

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


STARTER = Starter()


SECONDS = "genaug/seconds"
"""Of pytest's cache: what each test took when it last ran."""
seconds: dict[str, float] = {}


def pytest_addoption(parser):
    parser.addoption(
        "--within",
        type=float,
        help="Run the quickest tests alone: as many as took these seconds together in earlier runs.",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """The processes that run tests side by side are started as quickly as what they start."""
    for spec in specs:
        spec.python = str(STARTER.folder / "python")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["python"] = sys.executable


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        sys.executable = config.workerinput["python"]  # tests of what is imported start the interpreter itself


def pytest_itemcollected(item):
    whole = {"train", "site", "checkout", "server"}  # whole runs, the site, a package
    if whole & set(getattr(item, "fixturenames", ())):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """After ``-m`` and ``-k``: what is left out by ``--within``. A test that never ran is run."""
    within = config.getoption("--within")
    if within is None:
        return
    took = config.cache.get(SECONDS, {})
    kept, total = set(), 0.0
    for item in sorted(items, key=lambda item: took.get(item.nodeid, 0.0)):
        total += took.get(item.nodeid, 0.0)
        if total <= within:
            kept.add(item.nodeid)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


def pytest_collection_finish(session):
    """What is imported by now stays: the garbage collector, which every composition wakes, need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report):
    seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish(session):
    gc.collect()
    gc.freeze()  # pytest collects five times more before it ends
    STARTER.close()
    worker = hasattr(session.config, "workerinput")  # of xdist: it tells the first process
    if not worker and hasattr(session.config, "cache"):
        session.config.cache.set(SECONDS, {**session.config.cache.get(SECONDS, {}), **seconds})


def environment_of(changes: dict[str, str | None]) -> dict[str, str]:
    """This process's environment with changes; None leaves a variable out. W&B's service of a test serves no run."""
    environment = {**os.environ, "WANDB_SERVICE": None, **changes}
    return {key: value for key, value in environment.items() if value is not None}


@pytest.fixture
def train(tmp_path):
    """``train("-m", "seed=0,1")``: run train.py as a user would, with outputs in a temporary folder.

    ``train.start`` does not wait for its end.
    """

    def words(*arguments: str) -> list[str]:
        return [str(ROOT / "train.py"), *arguments, f"paths.outputs_dir={run.outputs}"]  # type: ignore[attr-defined]

    def run(*arguments: str, code: int = 0, env: dict[str, str | None] | None = None) -> str:
        ended, said = STARTER.run(words(*arguments), ROOT, environment_of(env or {}))
        assert ended == code, said
        return said

    def start(*arguments: str, env: dict[str, str | None] | None = None) -> Started:
        return STARTER.start(words(*arguments), ROOT, environment_of(env or {}))

    run.start = start  # type: ignore[attr-defined]
    run.outputs = tmp_path / "outputs"  # type: ignore[attr-defined]
    return run


def genaug(*arguments: str, code: int = 0) -> str:
    """The console command, as installed."""
    ended, said = STARTER.run([str(CONSOLE), *arguments], ROOT, dict(os.environ))
    assert ended == code, said
    return said


def printed(*arguments: str) -> str:
    """Standard output of the console command alone: libraries may say something beside it when they end."""
    started = STARTER.start([str(CONSOLE), *arguments], ROOT, dict(os.environ))
    said = started.wait()
    assert started.returncode == 0, said
    return started.printed
