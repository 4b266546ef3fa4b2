"""A project of its own for each test: the real conf/ and one small experiment."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from genaug.priors.layout import PARTS
from genaug.tables.sweep import Sweep, expand, look_up
from tests.conftest import ROOT
from tests.tables.finished_cells import EXPERIMENT, write_experiment

composed: dict[tuple[str, ...], Sweep] = {}  # composing is slow, and the cells are the same in every project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with conf/ and experiments/paper/item.yaml, made the current one."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for part in PARTS:  # only the weights' digest is asked for
        (tmp_path / "prior" / part).mkdir(parents=True)
        (tmp_path / "prior" / part / "config.json").write_text('{"block_out_channels": [1, 1, 1, 1]}')
    write_experiment(tmp_path, {**EXPERIMENT, "prior": {"path": str(tmp_path / "prior")}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep_of(project: Path) -> Callable[..., Sweep]:
    """``expand("paper/item", overrides)`` with the states of this project's outputs."""

    def sweep(*overrides: str) -> Sweep:
        if overrides not in composed:
            composed[overrides] = expand("paper/item", overrides)
        cells = [dataclasses.replace(cell) for cell in composed[overrides].cells]
        outputs = project / "outputs"
        look_up(cells, outputs / "runs")
        return Sweep(item="paper/item", extra=overrides, cells=cells, outputs=outputs)

    return sweep
