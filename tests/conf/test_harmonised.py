"""One budget for all methods."""

import dataclasses

import numpy as np
import pytest

from genaug.composition import compose_typed
from genaug.core.identity import canonical
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Variant
from tests.conftest import ROOT

HARMONISED = sorted(path.stem for path in (ROOT / "conf" / "generator").glob("*_harmonised.yaml"))
METHODS = {"real_guidance", "da_fusion", "diff_mix", "psld", "dreamda"}


def composed(name: str):
    return compose_typed([f"generator={name}", "preset=harmonised", "leakage=none"])


def levels(variant: Variant, t0: object) -> list[Variant]:
    """The variant at each level that may be drawn for it."""
    every = t0 if isinstance(t0, list) else [t0]
    return [dataclasses.replace(variant, draws={**variant.draws, "t0": level}) for level in every]


def test_every_diffusion_method_has_a_harmonised_preset() -> None:
    assert {name.removesuffix("_harmonised") for name in HARMONISED} == METHODS


@pytest.mark.parametrize("name", HARMONISED)
def test_harmonised_presets_make_as_many_images_at_fifty_network_evaluations_each(name: str) -> None:
    config = composed(name)
    assert (config.mix.name, config.mix.m, config.mix.alpha) == ("replace", 5, 0.5)  # type: ignore[attr-defined]
    generator = config.generator
    source = Sample(id="a", digest="a", image=np.zeros((8, 8, 3), np.uint8), label={0: 1.0})
    dataset = Dataset(name="d", task="classification", class_names=("x", "y"), train=(source,), val=(), test=())
    variants = [generator.variant_of(source, j, dataset, "f") for j in range(config.mix.m)]
    costs = [
        generator.forward_passes(list(drawn)).count
        for drawn in zip(*(levels(variant, getattr(generator, "t0", None)) for variant in variants), strict=True)
    ]
    per_image = sum(costs) / len(costs) / len(variants)
    # a step of DreamDA takes three evaluations, so 50 is out of its reach: 51 is nearest
    assert per_image == (51 if name == "dreamda_harmonised" else 50)


def test_harmonised_presets_train_the_same_classifier_for_as_many_steps() -> None:
    trainings = [
        [canonical(part) for part in (config.downstream, config.mix, config.augment)]
        for config in map(composed, HARMONISED)
    ]
    assert all(training == trainings[0] for training in trainings)
    assert trainings[0][0]["num_steps"] > 0
