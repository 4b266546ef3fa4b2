"""Every experiment composes, plainly and shrunk, its table section fits its sweep, and the overview is up to date."""

import functools
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from genaug.evaluation.statistics import seeds_needed
from genaug.tables.arrangement import collect
from genaug.tables.overview import OWN, WITH_RECORDS, num_combinations, stale, with_records
from genaug.tables.render import markdown
from genaug.tables.spec import items, members, read_spec
from genaug.tables.sweep import Sweep, expand, together
from genaug.tables.table import Table, text_of
from tests.conftest import ROOT
from tests.golden.identities import ITEMS, WITH_RUNS, changed, compose, of_experiment


def seeds_that_it_needs(table: Table) -> int:
    """The fewest at which a test over all comparisons of the table can find one."""
    wanted = {key: text_of(value) for key, value in table.spec.baseline.items()}
    places = [dict(zip(table.spec.keys(), (*entry.row, *entry.column), strict=True)) for entry in table.entries]
    return seeds_needed(sum(any(wanted.get(key, value) != value for key, value in place.items()) for place in places))


def problems(sweep: Sweep) -> list[str]:
    return sorted({cell.reason for cell in sweep.cells if cell.state == "invalid"})


@functools.cache
def expanded(item: str, *extra: str) -> Sweep:
    """Its sweep on a machine without results; that of a mean over data sets is made of those that it takes the mean of."""
    if members(item) != [item]:
        return together(item, [expanded(name, *extra) for name in members(item)])
    return expand(item, extra, ROOT / "outputs of nobody")


@pytest.mark.slow
@pytest.mark.parametrize("item", ITEMS)
def test_an_experiment_composes_its_table_section_reads_its_sweep_and_its_identities_are_on_record(item: str) -> None:
    sweep = expanded(item)
    assert not problems(sweep)
    assert {cell.config.experiment for cell in sweep.cells if cell.config} == set(members(item))
    spec = read_spec(item)  # a published value without a cell is refused
    table = collect(sweep, spec)
    assert spec.title in markdown(table)
    if item.startswith(("demo/", "replication/")) and spec.metric.startswith("test/"):
        assert all(entry.wanted >= seeds_that_it_needs(table) for entry in table.entries)
    assert not stale(item), "run: genaug experiments --write"
    if item in WITH_RUNS:
        assert not (lines := changed(f"experiment/{item}", of_experiment(sweep))), lines


@pytest.mark.parametrize("item", [item for item in items() if item.startswith(OWN)])
def test_an_experiment_for_a_users_folder_composes(item: str) -> None:
    assert compose(f"experiment={item}").experiment == item


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["preset=smoke"]], ids=["whole", "smoke"])
def test_the_experiments_for_a_users_folder_compose_and_share_their_baseline(extra: list[str], tmp_path: Path) -> None:
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40, 40), (i, 0, c)).save(tmp_path / "mine" / name / f"{i}.png")
    sweep = expand("own/classification", [*extra, f"dataset.root={tmp_path / 'mine'}"], tmp_path / "outputs")
    assert not problems(sweep)
    assert {cell.config.dataset.name for cell in sweep.cells if cell.config} == {"mine"}
    assert {cell.config.experiment for cell in sweep.cells if cell.config} == {"own/classification"}
    table = collect(sweep, read_spec("own/classification"))
    assert extra or all(entry.wanted >= seeds_that_it_needs(table) for entry in table.entries)
    baselines = {c.fingerprint for c in sweep.cells if c.config and c.config.generator.name == "none"}
    assert len(baselines) == len({(c.config.augment.name, c.config.seed) for c in sweep.cells if c.config})


@pytest.mark.slow
@pytest.mark.parametrize("item", ITEMS)
def test_a_smoke_run_has_few_valid_cells_on_embedded_data_with_the_tiny_prior(item: str) -> None:
    sweep = expanded(item, "preset=smoke")
    assert not problems(sweep)
    assert 2 <= len(sweep.cells) <= 16 * len(members(item))
    for cell in sweep.cells:
        assert cell.config is not None
        assert cell.config.dataset.name in ("digits", "digit_scenes")
        assert cell.config.prior.path == "tiny"
        assert cell.config.seed in (0, 1)
    assert collect(sweep, read_spec(item)).reduced


def test_combinations_are_counted_as_hydra_sweeps_them() -> None:
    assert num_combinations({"generator": "none,psld", "generator.t0": "0.5,[0.25,0.5]", "seed": "range(0,8)"}) == 32


def test_the_overview_lists_every_experiment_and_no_other() -> None:
    index = (ROOT / "experiments" / "README.md").read_text()
    found = []
    for paper in re.findall(r"^\| \[(\w+)\]\(\1/README.md\)", index, flags=re.MULTILINE):
        page = (ROOT / "experiments" / paper / "README.md").read_text()
        found += [f"{paper}/{name}" for name in re.findall(r"^\| \[(\w+)\]", page, flags=re.MULTILINE)]
    assert found == ITEMS


def test_every_record_belongs_to_an_experiment_and_names_its_run() -> None:
    root = ROOT / "experiments" / "results"
    for path in root.rglob("*.json"):
        record = json.loads(path.read_text())
        assert record["item"] == path.relative_to(root).with_suffix("").as_posix() and record["item"] in items()
        assert record["reduced"] == any(not override.startswith("seed=") for override in record["overrides"])
        assert record["states"].get("complete") and record["entries"]
        for environment in record["environments"]:
            assert environment["git_revision"] and (environment["gpu"] or environment["cpu"])


@pytest.mark.parametrize("page", WITH_RECORDS)
def test_a_page_shows_the_records_as_they_are(page: str) -> None:
    text = (ROOT / page).read_text()
    assert with_records(text) == text, "run: genaug experiments --write"
