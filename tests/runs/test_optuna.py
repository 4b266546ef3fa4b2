"""Sweeps that Optuna steers, by the real library."""

import statistics

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from genaug.core.combinations import parameters
from genaug.core.errors import GenaugError
from genaug.core.files import read_json

distributions = pytest.importorskip("optuna").distributions


def test_ten_trials_maximise_the_mean_over_seeds_of_the_validation_metric_and_a_failed_one_costs_itself(train):
    command = (
        "-m", "hydra/sweeper=optuna", "hydra.sweeper.num_trials=10", "preset=debug", "generator=none", "tracking=local",
        "downstream.num_steps=2", "downstream.lr=tag(log, interval(1e-4, 1e-1))", "mix.alpha=0.5,7", "seed=0,1",
    )  # fmt: skip
    assert train(*command).count("mix.alpha=7.0 must be in [0, 1]") == 1  # of several trials that drew it
    (path,) = train.outputs.glob("sweeps/*/optimization_results.yaml")
    found = yaml.safe_load(path.read_text())
    assert len(found["trials"]) == 10
    results = [read_json(path, {}) for path in train.outputs.glob("runs/*/result.json")]
    for trial in found["trials"]:
        if trial["params"]["mix.alpha"] == "7":
            assert trial["value"] is None
            continue
        runs = [r for r in results if abs(r["config"]["downstream"]["lr"] - trial["params"]["downstream.lr"]) < 1e-12]
        assert sorted(run["seed"] for run in runs) == [0, 1]
        assert trial["value"] == pytest.approx(statistics.fmean(run["metrics"]["val/accuracy_macro"] for run in runs))
    values = [trial["value"] for trial in found["trials"] if trial["value"] is not None]
    assert 2 <= len(values) < 10 and found["best_evaluated_result"] == max(values)
    said = train(*command)
    assert said.count("complete already: ") == len(results) and "best of" in said  # the same trials, from the store


@pytest.mark.parametrize(
    "word, wanted",
    [
        ("generator.t0=interval(0.1, 0.9)", distributions.FloatDistribution(0.1, 0.9)),
        ("downstream.lr=tag(log, interval(1e-4, 1e-1))", distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        ("mix.m=int(interval(1, 20))", distributions.IntDistribution(1, 20)),
        ("mix.m=range(2, 20, 4)", distributions.IntDistribution(2, 18, step=4)),
        ("mix.alpha=0.3,0.5", distributions.CategoricalDistribution(["0.3", "0.5"])),
        ("generator.num_steps=choice(4)", "4"),
    ],
)
def test_hydras_sweeps_say_where_optuna_looks(word, wanted):
    from hydra_plugins.genaug_cells.optuna_sweeper import distribution

    assert distribution(OverridesParser.create().parse_override(word)) == wanted


def test_a_search_without_anything_to_look_for_is_explained(train):
    said = train("-m", "hydra/sweeper=optuna", "preset=debug", "generator=none", "seed=0,1", code=2)
    assert "nothing to look for" in said and "interval(0.1, 0.9)" in said


def test_parameters_of_a_sweep_may_be_nested_and_lists_and_a_space_of_another_sweeper_is_explained():
    params = OmegaConf.create({"generator": {"t0": "0.1,0.5"}, "seed": [0, 1], "mix.m": None, "mix.alpha": 0.5})
    assert parameters(params) == ["generator.t0=0.1,0.5", "seed=0,1", "mix.alpha=0.5"]
    assert parameters(None) == []
    with pytest.raises(GenaugError, match=r"params\.generator\.t0=.*describes a space.*interval"):
        parameters({"generator.t0": {"type": "float", "low": 0, "high": 1}})


def test_parameters_given_as_a_dictionary_on_the_command_line_are_swept(train):
    said = train(
        "-m", "preset=debug", "generator=none", "tracking=local", "task=train", "downstream.num_steps=2",
        "hydra.sweeper.params={seed: [0, 1]}",
    )  # fmt: skip
    assert "2 runs: 2 ok" in said
