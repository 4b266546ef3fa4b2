"""Experiments on data sets that have to be downloaded, each on a small tree in its true layout, read by the true code."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genaug.api import sweep
from genaug.tables.arrangement import collect
from genaug.tables.plan import plan
from genaug.tables.render import markdown
from genaug.tables.spec import read_spec
from genaug.tables.sweep import expand
from tests.conf.stand_ins import TREES, dataset_of, on_stand_in
from tests.golden.identities import ITEMS

ON_STAND_INS = [item for item in ITEMS if dataset_of(item) in TREES]


@pytest.fixture
def words_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Overrides that run an experiment on its stand-in."""

    def words(item: str) -> list[str]:
        TREES[dataset_of(item)](tmp_path / "data", monkeypatch)
        return on_stand_in(item, tmp_path / "data")

    return words


@pytest.mark.slow
@pytest.mark.parametrize("item", ON_STAND_INS)
def test_an_experiment_finds_all_that_it_needs_in_its_data_sets_layout(
    item: str, words_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    found = expand(item, words_of(item), tmp_path / "outputs")
    assert {(cell.state, cell.reason) for cell in found.cells} == {("missing", "")}
    planned = plan(found, read_spec(item))
    assert not planned.stand_ins and not planned.uncounted
    assert planned.cost.to_make["train"] == planned.distinct_runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("item", "changes"),
    [
        ("unidiffda/cub_1shot", ["generator=none,diffuse_mix", "downstream.num_steps=2"]),
        ("psld/bone_xrays", ["downstream.num_steps=2", "downstream.warmup_steps=0", "generator.num_steps=4"]),
        ("dreamda/stl10_semi_supervised", ["downstream=fixmatch", "downstream.num_steps=4", "generator.num_steps=4"]),
        (
            "latent_interpolation/ilsvrc2012_interpolations",
            ["downstream.num_steps=2", "generator.training.num_steps=4"],
        ),
        ("da_fusion/masks_coco", ["generator=real_guidance", "downstream.num_steps=2", "generator.num_steps=4"]),
    ],
)
def test_an_experiment_runs_from_its_data_sets_files_to_its_table(
    item: str, changes: list[str], words_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    words = [*words_of(item), *changes, "seed=0"]
    outputs = tmp_path / "outputs"
    sweep([f"experiment={item}", *words, "tracking=local", f"paths.outputs_dir={outputs}"])
    table = collect(expand(item, words, outputs), read_spec(item))
    assert set(table.states) == {"complete"} and all(entry.n == entry.wanted for entry in table.entries)
    names = {entry.dataset for entry in table.entries if entry.values}
    assert names in ({dataset_of(item)}, {"data"})  # a folder of one's own is called as it is
    assert read_spec(item).title in markdown(table)
