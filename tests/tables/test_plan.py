"""A plan counts what cells share, with the data and with a stand-in of their size."""

import copy
from pathlib import Path

import pytest

from genaug.composition import compose_typed
from genaug.core.cost import FORWARD_GFLOP
from genaug.core.errors import GenaugError
from genaug.tables.plan import COUNTED, plan, report_plan, stand_in
from genaug.tables.spec import parse_spec, read_spec
from genaug.tables.sweep import Sweep
from tests.tables.finished_cells import EXPERIMENT, finish_all


def test_images_that_cells_share_are_counted_once(sweep_of) -> None:
    found = plan(sweep_of(), read_spec("paper/item"))
    assert found.states == {"missing": 24} and found.distinct_runs == 24
    # six seeds, ten classes, M = 2: the two shots of a seed contain its one shot
    assert found.cost.to_make["generate"] == 6 * 10 * 2 * 2
    assert found.cost.requested_images == 6 * 10 * (1 + 2) * 2
    assert found.cost.passes["generate"] == {
        "U-Net": found.cost.to_make["generate"] * 2 * 12,
        "VAE": found.cost.to_make["generate"],
    }  # t0 = 0.5 of 25 steps, two prompts each
    assert (found.cost.pools, found.cost.to_make["fit"]) == (12, 0)


def test_swept_alpha_costs_nothing_and_complete_cells_cost_nothing(sweep_of) -> None:
    spec = read_spec("paper/item")
    one, three = plan(sweep_of(), spec), plan(sweep_of("mix.alpha=0.3,0.5,0.7"), spec)
    assert (
        three.cost.to_make["generate"] == one.cost.to_make["generate"]
        and three.cost.passes["generate"] == one.cost.passes["generate"]
    )
    assert three.distinct_runs == 12 + 3 * 12
    done = plan(finish_all(sweep_of()), spec)
    assert done.states == {"complete": 24} and done.cost.to_make["generate"] == 0
    assert done.cost.to_make["train"] == 0 and done.cost.count(*COUNTED) == 0


def test_training_is_counted_in_images_that_go_through_the_network(sweep_of) -> None:
    found = plan(sweep_of(), read_spec("paper/item"))
    assert found.cost.to_make["train"] == 24
    assert found.cost.passes["train"] == {"test_resnet": 24 * 400 * 32}  # classifier_tiny: 400 steps of 32
    tflop = 24 * 400 * 32 * FORWARD_GFLOP["test_resnet"][1] * 3 / 1000
    assert found.cost.hours("a100", train_use=0.1)["train"] == pytest.approx(tflop / 31.2 / 3600)


@pytest.mark.parametrize(
    ("overrides", "network", "count"),
    [
        (["generator=da_fusion"], "U-Net", 10 * 4 * 200),
        (["generator=latent_interpolation"], "autoencoder", None),
        (["dataset=digit_scenes", "downstream=detector_tiny", "generator=psld_fast"], "detector_tiny", None),
    ],
)
def test_what_a_generator_learns_with_is_counted(overrides: list[str], network: str, count: int | None) -> None:
    config = compose_typed(overrides)
    work = config.generator.fit_forward_passes(config.dataset.load())
    assert work is not None and work.network == network and work.count > 0
    if count is not None:
        assert work.count == count


def test_what_learns_nothing_costs_nothing_to_fit() -> None:
    config = compose_typed(["generator=dreamda", "leakage=none"])
    assert not config.generator.fits and config.generator.fit_forward_passes(config.dataset.load()) is None


def test_without_the_data_a_stand_in_of_the_stated_size_is_counted(sweep_of, monkeypatch: pytest.MonkeyPatch) -> None:
    from genaug.data.sources.digits import Digits

    def absent(self: Digits) -> None:
        raise GenaugError("digits are not here")

    section = {**copy.deepcopy(EXPERIMENT["table"]), "scale": {"digits": {"classes": 10, "train": 20}}}
    sweep = sweep_of()
    monkeypatch.setattr(Digits, "read", absent)
    found = plan(sweep, parse_spec(section, "x"))
    assert found.cost.to_make["generate"] == 240 and found.stand_ins
    assert plan(sweep_of(), parse_spec(section, "x"), use_data=False).cost.to_make["generate"] == 240
    without = plan(sweep, read_spec("paper/item"))
    assert without.cost.to_make["generate"] == 0 and "table.scale" in without.uncounted[0]


def test_hours_need_a_known_gpu_and_fall_with_its_rate(sweep_of) -> None:
    found = plan(sweep_of(), read_spec("paper/item"))
    for stage, spent in found.cost.hours("a100").items():
        assert spent == pytest.approx(found.cost.hours("h200")[stage] * 790 / 312)
    with pytest.raises(GenaugError, match="gpu=h2o0 is not known"):
        found.cost.hours("h2o0")
    assert "on one H200" in report_plan(found, "h200")


def test_a_stand_in_has_the_size_it_is_asked_for() -> None:
    data = stand_in("voc", "classification", 20, 16)
    assert len(data.train) == 320 and len({sample.digest for sample in data.train}) == 320


def test_a_filter_is_part_of_a_cell_only_where_a_pool_reaches_training(project: Path) -> None:
    from genaug.runs.cell import cell_fingerprint

    prior = f"prior.path={project / 'prior'}"
    fingerprints = {
        (generator, chosen): cell_fingerprint(compose_typed([f"generator={generator}", f"filter={chosen}", prior]))
        for generator in ("none", "real_guidance")
        for chosen in ("none", "blank")
    }
    assert fingerprints["none", "none"] == fingerprints["none", "blank"]
    assert fingerprints["real_guidance", "none"] != fingerprints["real_guidance", "blank"]


def test_planning_reads_each_data_set_once_and_writes_each_component_once(
    sweep_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genaug.core import identity
    from genaug.data.sources.digits import Digits

    calls = {"read": 0, "components": 0}
    read, canonical = Digits.read, identity.canonical

    def counted_read(self: Digits):
        calls["read"] += 1
        return read(self)

    def counted_canonical(value, *arguments, **keywords):
        calls["components"] += hasattr(type(value), "identity_name")
        return canonical(value, *arguments, **keywords)

    sweep = sweep_of("mix.alpha=0.3,0.5,0.7")
    monkeypatch.setattr(Digits, "read", counted_read)
    monkeypatch.setattr(identity, "canonical", counted_canonical)
    found = plan(sweep, read_spec("paper/item"))
    assert calls["read"] == 1  # for two shot counts and six seeds
    # what runs share is written once: not three times for three alpha, nor for every image
    assert calls["components"] < 12 * found.cost.pools
    assert found.cost.to_make["generate"] == 240


@pytest.mark.parametrize(("files", "start"), [((), "genaug sweep"), (("train.py",), "python train.py -m")])
def test_a_plan_names_the_command_that_there_is_where_it_is_read(files, start, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(item="demo/compare", extra=("seed=0",), cells=[], outputs=tmp_path)
    assert sweep.command == f"{start} experiment=demo/compare seed=0"
