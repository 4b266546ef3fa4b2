"""Components are found by themselves. What is imported on the way is counted in ``tests/test_start.py``."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.registry import COMPONENTS, component, declaring_modules, load_components
from genaug.data.sources.base import Source
from genaug.downstream.base import Downstream
from genaug.evaluation.filters import Filter
from genaug.generators.base import Generator
from genaug.generators.sdedit.config import ImageToImage
from genaug.line import line_of
from genaug.stages import WorkingPrior
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


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda: Generator(seed=0).fit(None, None, Path()), "genaug.generators.base.Generator.fit"),  # type: ignore[arg-type]
        (lambda: Generator(seed=0).generate([], None, None, None), "genaug.generators.base.Generator.generate"),  # type: ignore[arg-type]
        (lambda: Downstream(seed=0, image_size=8).forward_passes(), "genaug.downstream.base.Downstream.forward_passes"),
        (lambda: Source(seed=0).load(), "genaug.data.sources.base.Source.read"),
        (lambda: ImageToImage(t0=0.5).prompts([], None, None), "genaug.generators.sdedit.config.ImageToImage.prompts"),  # type: ignore[arg-type]
        (lambda: Filter().keeps(0.5), "genaug.evaluation.filters.Filter.keeps"),
    ],
)
def test_a_component_that_lacks_a_method_is_told_where_it_is_described(call, method):
    with pytest.raises(GenaugError, match=f"has no method {method.rpartition('.')[2]}: write one; {method} says what"):
        call()


def test_a_data_set_or_a_fit_that_returns_something_else_is_refused(monkeypatch, tmp_path):
    config = compose_typed(["generator=da_fusion", f"paths.outputs_dir={tmp_path}", "dataset.shots=1"])
    fit = line_of(config, config.dataset.load()).fit
    monkeypatch.setattr(type(config.generator), "fit", lambda *_: None)
    monkeypatch.setattr(WorkingPrior, "load", lambda _: None)
    assert fit is not None
    with pytest.raises(
        GenaugError, match="The fit of generator=da_fusion returns NoneType: return a dictionary of facts"
    ):
        fit.make(WorkingPrior(config=config), print)
    monkeypatch.setattr(type(config.dataset), "read", lambda _: None)
    with pytest.raises(GenaugError, match="The method read of dataset=digits returns NoneType: return a Dataset"):
        config.dataset.load()
