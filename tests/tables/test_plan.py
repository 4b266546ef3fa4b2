"""A plan counts what cells share, with the data and with a stand-in of their size."""

import copy
from pathlib import Path

import pytest

from genaug.errors import GenaugError
from genaug.tables.plan import plan, report_plan, stand_in
from genaug.tables.spec import parse_spec, read_spec
from tests.tables.finished_cells import EXPERIMENT, finish_all


def test_images_that_cells_share_are_counted_once(sweep_of) -> None:
    found = plan(sweep_of(), read_spec("paper/item"))
    assert found.states == {"missing": 24} and found.distinct_cells == 24
    # six seeds, ten classes, M = 2: the two shots of a seed contain its one shot
    assert found.cost.images == 6 * 10 * 2 * 2
    assert found.cost.requested_images == 6 * 10 * (1 + 2) * 2
    assert found.cost.evaluations == found.cost.images * 2 * 12  # t0 = 0.5 of 25 steps, two prompts each
    assert (found.cost.pools, found.cost.fitted) == (12, 0)


def test_swept_alpha_costs_nothing_and_complete_cells_cost_nothing(sweep_of) -> None:
    spec = read_spec("paper/item")
    one, three = plan(sweep_of(), spec), plan(sweep_of("mix.alpha=0.3,0.5,0.7"), spec)
    assert three.cost.images == one.cost.images and three.cost.evaluations == one.cost.evaluations
    assert three.distinct_cells == 12 + 3 * 12
    done = plan(finish_all(sweep_of()), spec)
    assert done.states == {"complete": 24} and done.cost.images == 0


def test_without_the_data_a_stand_in_of_the_stated_size_is_counted(sweep_of, monkeypatch: pytest.MonkeyPatch) -> None:
    from genaug.data.sources.digits import Digits

    def absent(self: Digits) -> None:
        raise GenaugError("digits are not here")

    section = {**copy.deepcopy(EXPERIMENT["table"]), "scale": {"digits": {"classes": 10, "train": 20}}}
    sweep = sweep_of()
    monkeypatch.setattr(Digits, "read", absent)
    found = plan(sweep, parse_spec(section, "x"))
    assert found.cost.images == 240 and found.stand_ins
    without = plan(sweep, read_spec("paper/item"))
    assert without.cost.images == 0 and "table.scale" in without.uncounted[0]


def test_hours_need_a_known_gpu_and_fall_with_its_rate(sweep_of) -> None:
    found = plan(sweep_of(), read_spec("paper/item"))
    assert found.cost.hours("a100") == pytest.approx(found.cost.hours("h200") * 790 / 312)
    with pytest.raises(GenaugError, match="gpu=h2o0 is not known"):
        found.cost.hours("h2o0")
    assert "on one H200" in report_plan(found, "h200")


def test_a_stand_in_has_the_size_it_is_asked_for() -> None:
    data = stand_in("voc", 20, 16)
    assert len(data.train) == 320 and len({sample.digest for sample in data.train}) == 320


def test_a_filter_is_part_of_a_cell_only_where_a_pool_reaches_training(project: Path) -> None:
    from genaug.app import compose_typed
    from genaug.cell import cell_fingerprint

    prior = f"prior.path={project / 'prior'}"
    fingerprints = {
        (generator, chosen): cell_fingerprint(compose_typed([f"generator={generator}", f"filter={chosen}", prior]))
        for generator in ("none", "real_guidance")
        for chosen in ("none", "blank")
    }
    assert fingerprints["none", "none"] == fingerprints["none", "blank"]
    assert fingerprints["real_guidance", "none"] != fingerprints["real_guidance", "blank"]
