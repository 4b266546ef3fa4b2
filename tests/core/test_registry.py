"""Components are found by themselves. What is imported on the way is counted in ``tests/test_start.py``."""

from dataclasses import dataclass

import pytest

from genaug.core.errors import GenaugError
from genaug.core.registry import COMPONENTS, component, declaring_modules, load_components
from tests.conftest import ROOT


def test_each_module_that_calls_component_is_found():
    found = {module.replace(".", "/") + ".py" for module in declaring_modules()}
    calling = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "genaug").rglob("*.py")
        if "@component(" in "\n".join(line for line in path.read_text().splitlines() if line.startswith("@"))
    }
    assert found == calling and len(found) > 25


def test_every_group_has_its_components():
    load_components()
    assert {"classifier", "detector"} < COMPONENTS["downstream"].keys()
    assert {"none", "psld", "dreamda", "folder"} < COMPONENTS["generator"].keys()
    assert {"digits", "image_folder", "hf"} < COMPONENTS["dataset"].keys()
    groups = {"mix", "filter", "augment", "prior", "leakage", "leakage/erasure", "tracking", "trainer"}
    assert groups < COMPONENTS.keys()


def test_a_class_that_is_no_dataclass_and_a_name_that_is_taken_are_refused(monkeypatch):
    load_components()
    monkeypatch.setitem(COMPONENTS, "generator", dict(COMPONENTS["generator"]))

    @dataclass
    class Base:
        pass

    class Forgotten(Base):
        pass

    with pytest.raises(
        GenaugError, match=r"Forgotten is no dataclass: write @dataclass\(kw_only=True.* below @component"
    ):
        component("generator", "forgotten")(Forgotten)
    ours = COMPONENTS["generator"]["psld"]
    with pytest.raises(GenaugError, match=r"Psld and .*Base are both called generator/psld\. Give one"):
        component("generator", "psld")(Base)
    assert COMPONENTS["generator"]["psld"] is ours and "forgotten" not in COMPONENTS["generator"]
    assert component("generator", "own")(Base) is component("generator", "own")(Base)
