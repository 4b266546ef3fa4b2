"""Folders of any name can be written on a command line."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from genaug.core.errors import GenaugError
from genaug.core.words import readable, with_outputs


def value_of(word):
    override = OverridesParser.create().parse_override(word)
    return None if override.is_sweep_override() else override.value()


@pytest.mark.parametrize(
    "name", ["Vögel 2026", "a,b", "Tom's birds", "x=y", "(1)", "[raw]", "{a}", "写真", "50% #1", "a:b", "null", "007"]
)
def test_a_folder_is_read_as_its_name_is_written(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (word,) = readable([f"dataset.root={folder}"])
    assert value_of(word) == str(folder)


@pytest.mark.parametrize(
    "word",
    ["seed=0,1", "generator=none,psld", "mix.m=3", "-m", "seed=range(0,8)", "generator.t0=[0.25,0.5]", "~generator.t0",
     "generator.prompt='a {name}'", "generator.t0=[0.2"],
)  # fmt: skip
def test_what_hydra_reads_or_refuses_for_a_reason_stays_as_it_is(word):
    assert readable([word]) == [word]


def test_text_beyond_ascii_is_text():
    assert value_of(readable(["prior.vocabulary=größe"])[0]) == "größe"


@pytest.mark.parametrize("value", ["made/train-{000000..000003}.tar", "a photo of a {name}"])
def test_braces_within_text_are_text(value):
    assert value_of(readable([f"generator.prompt={value}"])[0]) == value


@pytest.mark.parametrize("value", ["{a:1", "choice(a,{b}", "${x}/{a", "a {name", "a {name},b {name}"])
def test_what_is_left_open_stays_for_hydra_to_refuse(value):
    assert readable([f"generator.prompt={value}"]) == [f"generator.prompt={value}"]


def test_the_outputs_folder_may_be_written_as_for_the_other_commands():
    placed = ["seed=1", "paths.outputs_dir=my runs", "-m"]
    assert with_outputs(["seed=1", "--outputs", "my runs", "-m"]) == placed
    assert with_outputs(["seed=1", "--outputs=my runs", "-m"]) == placed
    with pytest.raises(GenaugError, match="followed by no folder"):
        with_outputs(["seed=1", "--outputs"])
