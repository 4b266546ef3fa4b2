"""The public API from a program of one's own, in a folder of one's own."""

import subprocess
import sys

import pytest

import genaug
from genaug.core.errors import GenaugError
from genaug.keys import explain_presets
from genaug.tables.selection import last_sweep
from tests.conftest import ROOT


def test_import_genaug_imports_neither_torch_nor_hydra():
    program = "import sys, genaug; print([m for m in ('torch', 'hydra', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_can_be_had_and_no_other():
    for name in genaug.__all__:
        assert callable(getattr(genaug, name)), name
    with pytest.raises(AttributeError, match="no engine"):
        _ = genaug.engine


def test_a_configuration_is_typed_and_checked():
    config = genaug.compose(["generator=real_guidance", "generator.t0=0.25", "seed=3"])
    assert (config.generator.t0, config.seed) == (0.25, 3)
    with pytest.raises(GenaugError, match=r"generator\.t0"):
        genaug.compose(["generator=real_guidance", "generator.t0=2"])


def test_a_sweep_runs_and_its_results_are_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fast = ["dataset.shots=1", "downstream.num_steps=2", "downstream.warmup_steps=0", "tracking=local", "mix.m=1"]
    frame = genaug.sweep(["generator=none", "seed=0,1", *fast])
    assert frame["seed"].tolist() == [0, 1]
    again = genaug.run(["generator=none", "seed=0", *fast])
    assert again["cell"] == frame["run"][0]
    assert (tmp_path / "outputs" / "runs" / again["cell"] / "result.json").is_file()
    found = genaug.results("generator=none")
    assert found["test/accuracy_macro"][0] == again["metrics"]["test/accuracy_macro"]
    assert found["downstream.num_steps"][0] == 2
    with pytest.raises(GenaugError, match="No finished run"):
        genaug.results("generator=psld")
    assert sorted(genaug.results(last=True)["seed"]) == [0, 1]  # the sweep is on record
    genaug.sweep(["generator=none", "seed=1", "downstream.lr=0.01,-1", *fast])
    assert genaug.results(last=True)["seed"].tolist() == [1]
    assert last_sweep(tmp_path / "outputs")[1] == 1
    with pytest.raises(GenaugError, match="No run of this sweep finished"):
        genaug.sweep(["generator=real_guidance", "mix.m=0", "seed=0,1"])


def test_an_experiment_of_several_runs_is_no_single_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        GenaugError, match=r"^experiment=demo/compare is a sweep, of which 3 runs are asked for.* generator=none seed=2"
    ):
        genaug.run(["experiment=demo/compare", "seed=2"])
    fast = ["preset=debug", "seed=2", "tracking=local"]
    run = genaug.run(["experiment=demo/compare", "generator=none", *fast])
    assert (run["names"]["generator"], run["seed"]) == ("none", 2)
    found = genaug.sweep(["experiment=demo/compare", "generator=none", *fast])
    assert found["run"].tolist() == [run["cell"]]


def test_overrides_as_people_first_write_them_are_explained():
    with pytest.raises(GenaugError, match=r"a string for each: write \['generator=none', 'seed=1'\]"):
        genaug.compose("generator=none seed=1")
    for words in (
        {"generator": "none"},
        iter(["generator=none"]),
        ["generator=none", 3],
        genaug.compose(["generator=none"]),
    ):
        with pytest.raises(GenaugError, match=r'a list with a string for each, e\.g\. \["generator=none", "seed=1"\]'):
            genaug.run(words)
    with pytest.raises(GenaugError, match=r'results\("generator=none", "seed=0"\)'):
        genaug.results(["generator=none"])
    for pool in (None, {"pool": "1234"}):
        with pytest.raises(genaug.GenaugError, match=r'result\["pool"\], which is None for a run without generated'):
            genaug.load_pool(pool)
    with pytest.raises(GenaugError, match=r"generator=none,da_fusion names several values.*genaug\.sweep in Python"):
        genaug.run(["generator=none,da_fusion"])
    with pytest.raises(GenaugError, match=r"^-m is an option of the command line"):
        genaug.sweep(["-m", "generator=none,da_fusion"])


def test_own_presets_and_experiments_stand_beside_those_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "generator").mkdir(parents=True)
    (tmp_path / "conf" / "generator" / "mine.yaml").write_text(
        "defaults: [real_guidance, _self_]\nname: mine\nt0: 0.15\n"
    )
    (tmp_path / "experiments" / "my").mkdir(parents=True)
    (tmp_path / "experiments" / "my" / "test.yaml").write_text("# @package _global_\nmix:\n  m: 3\n")
    config = genaug.compose(["generator=mine", "experiment=my/test"])
    assert (config.generator.name, config.generator.t0, config.mix.m) == ("mine", 0.15, 3)
    assert config.experiment == "my/test"
    assert genaug.compose(["experiment=demo/compare"]).experiment == "demo/compare"


def test_a_preset_that_an_experiment_chooses_without_override_is_told_how_to_choose_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments" / "my").mkdir(parents=True)
    (tmp_path / "experiments" / "my" / "test.yaml").write_text("# @package _global_\ndefaults:\n- mix: concat\n")
    with pytest.raises(GenaugError, match=r"defaults of .*test\.yaml, write `override /mix: concat` for `mix: concat`"):
        genaug.compose(["experiment=my/test"])


def test_an_own_preset_stands_in_for_the_one_of_the_package_that_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "generator" / "real_guidance_low.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# Mine.\ndefaults: [real_guidance, _self_]\nt0: 0.11\n")
    assert genaug.compose(["generator=real_guidance_low"]).generator.t0 == 0.11
    assert ("real_guidance_low", "Mine.") in explain_presets("generator")
    own.write_text("defaults: [real_guidance_low, _self_]\nt0: 0.11\n")
    with pytest.raises(GenaugError, match=r"real_guidance_low\.yaml builds on itself: give it a name of its own"):
        genaug.compose(["generator=real_guidance_low"])
    own.write_text("defaults: [around, _self_]\nt0: 0.11\n")
    own.with_name("around.yaml").write_text("defaults: [real_guidance_low, _self_]\n")
    with pytest.raises(GenaugError, match=r"around\.yaml builds on itself by way of real_guidance_low"):
        genaug.compose(["generator=real_guidance_low"])
    own.write_text("defaults: [_nobody, _self_]\nname: real_guidance_low\n")
    with pytest.raises(
        GenaugError, match=r"on _nobody, and no class is declared by @component\('generator', 'nobody'\)"
    ):
        genaug.compose(["generator=real_guidance_low"])


def test_completion_offers_the_public_names_alone():
    assert dir(genaug) == [
        "FixedShareBatches",
        "GenaugError",
        "MixedDataset",
        "__version__",
        "compose",
        "load_pool",
        "results",
        "run",
        "sweep",
    ]
