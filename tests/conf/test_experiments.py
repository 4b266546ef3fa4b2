"""Every experiment composes, plainly and shrunk, its table section fits its sweep, and the overview is up to date."""

from pathlib import Path

import pytest

from genaug.tables.overview import num_combinations, stale
from genaug.tables.render import markdown
from genaug.tables.spec import items, read_spec
from genaug.tables.sweep import Sweep, expand
from genaug.tables.table import collect


def problems(sweep: Sweep) -> list[str]:
    return sorted({cell.reason for cell in sweep.cells if cell.state == "invalid"})


@pytest.mark.parametrize("item", items())
def test_an_experiment_composes_and_its_table_section_reads_its_sweep(item: str, tmp_path: Path) -> None:
    sweep = expand(item, ["seed=0"], tmp_path)
    assert not problems(sweep)
    spec = read_spec(item)  # a published value without a cell is refused
    assert spec.title in markdown(collect(sweep, spec))


@pytest.mark.parametrize("item", items())
def test_a_smoke_run_has_few_valid_cells_on_embedded_data_with_the_tiny_prior(item: str, tmp_path: Path) -> None:
    sweep = expand(item, ["preset=smoke"], tmp_path)
    assert not problems(sweep)
    assert 2 <= len(sweep.cells) <= 16
    for cell in sweep.cells:
        assert cell.config is not None
        assert cell.config.dataset.name in ("digits", "digit_scenes")
        assert cell.config.prior.path == "tiny"
        assert cell.config.seed in (0, 1)


def test_combinations_are_counted_as_hydra_sweeps_them() -> None:
    assert num_combinations({"generator": "none,psld", "generator.t0": "0.5,[0.25,0.5]", "seed": "range(0,8)"}) == 32


def test_the_overview_of_experiments_is_up_to_date() -> None:
    assert not stale(), "run: genaug experiments --write"
