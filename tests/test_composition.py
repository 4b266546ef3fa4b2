"""What a composer gives is what Hydra composes, whatever it gave before."""

import re

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from genaug.composition import Composer, compose_typed, compose_whole, sets_value
from genaug.config_source import register
from genaug.core.errors import GenaugError

JOBS = (
    ["seed=1", "dataset.image_size=16"],
    ["seed=2", "dataset.image_size=16"],
    ["seed=2", "dataset.image_size=32"],  # what follows it, in another component, follows
    ["seed=2", "downstream.image_size=16", "dataset.image_size=32"],
    ["seed=0", "mix.alpha=0.3"],
    ["mix.alpha=0.3", "task=fit"],
    ["generator=real_guidance_he2022", "generator.t0_by_shots={1: 0.1}"],
    ["generator=real_guidance_he2022", "generator.t0_by_shots={2: 0.2}"],
    ["generator=real_guidance_he2022"],
    ["mix.alpha=${generator.t0}", "generator.t0=0.5"],
    ["mix.alpha=${generator.t0}", "generator.t0=0.25"],
    ["leakage=none", "seed=3"],
    ["experiment=psld/digit_scenes", "dataset.fraction=0.5"],
    # the same keys again, with values of every kind
    ["generator=da_fusion", "generator.t0=0.3", "mix.alpha=0.1", "seed=4"],
    ["generator=da_fusion", "generator.t0=[0.25,0.5]", "mix.alpha=0.2", "seed=5"],
    ["generator=da_fusion", "generator.t0=0.4", "mix.alpha=0.3", "seed=6"],
    ["generator=da_fusion", "generator.t0=0.4", "mix.alpha=${generator.t0}", "seed=6"],
    ["generator=da_fusion", "generator.t0=0.6", "mix.alpha=0.4", "seed=7"],
    ["generator=pipeline", "generator.path=x", "generator.strength=0.6", "dataset.shots=3"],
    ["generator=pipeline", "generator.path=x", "generator.strength=null", "dataset.shots=null"],
    ["generator=pipeline", "generator.path=x", "generator.strength=0.7", "dataset.shots=4"],
)


def test_the_smallest_run_fits_the_shortest_autoencoder_unless_told_otherwise():
    def num_steps(*words):
        return compose_typed([*words, "preset=debug"]).generator.training.num_steps  # type: ignore[attr-defined]

    assert num_steps("generator=latent_interpolation") == num_steps("generator=acai") == 24
    assert num_steps("generator=acai", "generator.training.num_steps=7") == 7
    assert compose_typed(["generator=acai"]).generator.training.num_steps == 800  # type: ignore[attr-defined]
    assert compose_typed(["generator=real_guidance", "preset=debug"]).generator.name == "real_guidance"


@pytest.fixture
def composer():
    def compose(choices):
        with hydra.initialize_config_dir(str(register()), version_base="1.3"):
            return hydra.compose("config", choices)

    return Composer(compose)


@pytest.mark.slow
def test_jobs_are_what_hydra_composes_in_any_order(composer):
    expected = [compose_typed(job) for job in JOBS]
    for order in (JOBS, JOBS[::-1]):
        found = {tuple(job): composer(job) for job in order}
        assert [found[tuple(job)] for job in JOBS] == expected


def test_configurations_share_what_they_agree_in(composer):
    first, second = composer(["seed=1", "mix.alpha=0.3"]), composer(["seed=1", "mix.alpha=0.5"])
    assert first.dataset is second.dataset and first.generator is second.generator and first.mix != second.mix
    assert composer(["seed=2", "mix.alpha=0.3"]).mix is first.mix


@pytest.mark.parametrize("wrong", ["mix.alhpa=1", "generator.tokens={alhpa: 1}", "nowhere.key=1"])
def test_a_key_that_does_not_exist_is_refused_every_time(composer, wrong):
    for _ in range(2):
        with pytest.raises((HydraException, OmegaConfBaseException, GenaugError)):
            composer(["seed=1", wrong])


def test_a_value_that_is_refused_leaves_nothing_behind(composer):
    jobs = [["mix.alpha=0.3", "downstream.image_size=16"], ["mix.alpha=0.6", "downstream.image_size=24"]]
    expected = [compose_typed(job) for job in jobs]
    assert composer(jobs[0]) == expected[0]
    with pytest.raises((HydraException, OmegaConfBaseException, GenaugError)):
        composer(["mix.alpha=0.9", "downstream.image_size=many"])
    assert composer(jobs[1]) == expected[1]


def test_only_values_are_set_on_what_was_composed_before():
    assert all(map(sets_value, ("seed=1", "task=fit", "mix.alpha=0.5", "generator.tokens.init=the")))
    assert not any(
        map(sets_value, ("generator=none", "experiment=a/b", "+mix.new=1", "~mix.m", "generator/tokens=x", "hydra.x=1"))
    )


def test_a_key_reaches_the_runs_whose_component_has_it_and_the_others_go_on_without(composer):
    jobs = [["generator=none", "generator.t0=0.2", "seed=0"], ["generator=real_guidance", "generator.t0=0.2", "seed=0"]]
    found, notes = composer.fitting(jobs)
    assert found == [["generator=none", "seed=0"], jobs[1]]
    assert notes == ["generator.t0 applies to real_guidance, not to none"]


def test_runs_that_become_equal_are_one(composer):
    jobs = [["generator=none", f"generator.t0={t0}"] for t0 in (0.2, 0.5)]
    jobs += [["generator=real_guidance", f"generator.t0={t0}"] for t0 in (0.2, 0.5)]
    found, _ = composer.fitting(jobs)
    assert found == [["generator=none"], *jobs[2:]]


def test_a_key_that_no_run_has_stays_and_is_refused(composer):
    jobs = [["generator=none", "generator.strength=0.2"], ["generator=real_guidance", "generator.strength=0.2"]]
    found, notes = composer.fitting(jobs)
    assert found == jobs and notes == []
    with pytest.raises(Exception, match="strength"):
        composer(found[1])


def test_a_preset_that_is_edited_between_two_compositions_holds_what_it_says_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / "mix" / "mine.yaml"
    file.parent.mkdir(parents=True)
    for m in (3, 14):
        file.write_text(f"defaults: [_replace, _self_]\nname: replace\nalpha: 0.5\nm: {m}\n")
        assert compose_typed(["mix=mine"]).mix.m == m
    file.unlink()
    with pytest.raises(GenaugError, match="mine"):
        compose_typed(["mix=mine"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: da_fusion", "defaults in {file} must be a list, e.g. defaults: [acai, _self_]"),
        ("defaults:", "defaults in {file} must be a list"),
        ("defaults: [[a]]", "['a'] in the defaults of {file} names no preset"),
        ("defaults: [null]", "None in the defaults of {file} names no preset"),
        ("defaults: [{generator: 3}]", "{{'generator': 3}} in the defaults of {file} names no preset"),
        ("defaults: [_self_]", "{file} does not say which generator it changes"),
        ("t0: 0.3", "{file} does not say which generator it changes"),
        ("defaults: [_nothing, _self_]", "{file} builds on _nothing, and no class is declared by @comp"),
        ("defaults: [_self_, _self_]", "{file} does not say which generator it changes"),
        ("- a", "{file} cannot be read as YAML (it holds list"),
        ("", "{file} cannot be read as YAML (it holds nothing"),
        ("defaults: [", "{file} cannot be read as YAML (line 1: expected"),
        ("\tt0: 1", "{file} cannot be read as YAML (line 1: found character"),
    ],
)
def test_a_file_that_is_no_preset_is_named_with_its_fault(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / "generator" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for look in (lambda: compose_typed(["generator=mine"]), lambda: compose_whole("generator=mine")):
        with pytest.raises(GenaugError, match=f"^{re.escape(said.format(file=file))}"):
            look()
