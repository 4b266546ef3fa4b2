"""Files from elsewhere hold values: they build nothing, read nothing of this machine, and change nothing of Hydra."""

import pytest
import yaml

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.foreign import check_overrides, check_values, read_foreign_yaml
from genaug.tables.spec import read_spec
from tests.conftest import ROOT

BAD = {
    "dataset:\n  root: ${oc.env:HOME}\n": r"dataset\.root: .*\$\{oc\.env:…\} would be worked out",
    "dataset:\n  root: 'a/${ oc.decode : x}/b'\n": r"oc\.decode",
    "mix:\n  m: ['${now:%Y}']\n": r"\$\{now:…\}",
    "generator:\n  _target_: os.system\n": r"generator\._target_, which would let the file choose",
    "a:\n  - b:\n      _partial_: true\n": r"a\.b\._partial_",
    "hydra:\n  callbacks:\n    x: 1\n": r"sets hydra\.callbacks",
    "hydra:\n  searchpath: [/tmp]\n": r"sets hydra\.searchpath",
    "hydra:\n  launcher:\n    _target_: os.system\n": r"hydra\.launcher\._target_",
    "table:\n  title: ${oc.env:USER}\n": r"table\.title",
    "- a\n": "it holds list",
    "b: 1\na: [\n": r"cannot be read as YAML \(line 3: expected the node content",
    "a: 1\na: 2\n": "cannot be read as YAML",
    "": "it holds nothing",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_more_than_a_value_is_refused_with_its_place(tmp_path, text):
    path = tmp_path / "item.yaml"
    path.write_text(text)
    with pytest.raises(GenaugError, match=BAD[text]) as error:
        read_foreign_yaml(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "item.yaml").write_bytes("title: Größe".encode("utf-16"))
    with pytest.raises(GenaugError, match=r"item\.yaml cannot be read as YAML"):
        read_foreign_yaml(tmp_path / "item.yaml")


def test_values_and_names_of_other_values_pass(tmp_path):
    content = {
        "defaults": [{"override /dataset": "digits"}, "_self_"],
        "downstream": {"image_size": "${dataset.image_size}"},
    }
    check_values(content, "x")
    paths = list((ROOT / "experiments").rglob("*.yaml"))
    assert len(paths) >= 50
    for path in paths:
        assert read_foreign_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "override", ["hydra.searchpath=[/x]", "+hydra/launcher=x", "+a._target_=b", "a={_target_:b}", "a=${oc.env:B}"]
)
def test_overrides_from_a_record_are_choices_and_values(override):
    check_overrides(["mix.alpha=0.5", "generator=none", "+reduced=x", "dataset.name=my_own_set"], "x")
    with pytest.raises(GenaugError):
        check_overrides([override], "x")


def test_an_experiment_from_elsewhere_is_refused_when_it_is_run_and_when_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "experiments" / "p").mkdir(parents=True)
    (tmp_path / "experiments" / "p" / "i.yaml").write_text("# @package _global_\ndataset:\n  name: ${oc.env:HOME}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenaugError, match=r"oc\.env"):
        compose_typed(["experiment=p/i"])
    with pytest.raises(GenaugError, match=r"oc\.env"):
        read_spec("p/i")
