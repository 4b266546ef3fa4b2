"""One budget for all methods."""

import dataclasses

import numpy as np
import pytest

from genaug.app import compose_typed
from genaug.data.sample import Dataset, Sample
from tests.conftest import ROOT

HARMONISED = sorted(path.stem for path in (ROOT / "conf" / "generator").glob("*_harmonised.yaml"))


@pytest.mark.parametrize("name", HARMONISED)
def test_harmonised_presets_make_as_many_images_at_fifty_network_evaluations_each(name: str) -> None:
    config = compose_typed([f"generator={name}", "preset=harmonised"])
    assert (config.mix.name, config.mix.m, config.mix.alpha) == ("replace", 5, 0.5)  # type: ignore[attr-defined]
    generator = config.generator
    source = Sample(id="a", digest="a", image=np.zeros((8, 8, 3), np.uint8), label={0: 1.0})
    dataset = Dataset(name="d", task="classification", class_names=("x",), train=(source,), val=(), test=())
    variant = generator.variant(source, 0, dataset, "f")
    levels = generator.t0 if isinstance(generator.t0, list) else [generator.t0]  # type: ignore[attr-defined]
    costs = [generator.cost([dataclasses.replace(variant, draws={**variant.draws, "t0": level})]) for level in levels]
    assert sum(costs) / len(costs) == 50
