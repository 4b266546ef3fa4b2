"""Diff-Mix: the class of the prompt is drawn per image, and the label is shared between both classes."""

from pathlib import Path

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.generators.publishing import check_generated
from genaug.generators.sdedit.diff_mix import DiffMix, mixed_label
from genaug.generators.tokens.config import TextualInversion
from genaug.priors.config import PriorConfig
from genaug.priors.loading import load_prior
from genaug.priors.random_weights import save_random_prior

CLASSES = ("cat", "dog", "dining table", "no image")


def patterns(per_class: int = 2) -> Dataset:
    random = np.random.default_rng(0)
    samples = []
    for i in range(per_class * 3):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        samples.append(Sample(id=str(i), digest=digest_bytes(pixels.tobytes()), image=pixels, label={i % 3: 1.0}))
    return Dataset(name="patterns", task="classification", class_names=CLASSES, train=tuple(samples), val=(), test=())


def diff_mix(**fields: object) -> DiffMix:
    tokens = TextualInversion(seed=0, num_steps=1, batch_size=1)
    return DiffMix(**{"name": "m", "seed": 0, "class_names": False, "num_steps": 4, "tokens": tokens, **fields})  # type: ignore[arg-type]


def test_the_label_follows_the_papers_formula() -> None:
    s, gamma = 0.7, 0.8
    assert mixed_label({0: 1.0}, 2, s**gamma, 1.0) == pytest.approx({0: 1 - 0.7**0.8, 2: 0.7**0.8})
    assert sum(mixed_label({0: 1.0}, 2, s**gamma, 0.9).values()) == pytest.approx(0.9)  # the released code
    assert mixed_label({1: 1.0}, 1, 0.3, 1.0) == pytest.approx({1: 1.0})  # the source's own class
    assert mixed_label({0: 1.0}, 2, 1.0, 1.0) == {2: 1.0}  # s = 1: the target alone
    assert mixed_label({0: 0.5, 1: 0.5}, 1, 0.5, 1.0) == pytest.approx({0: 0.25, 1: 0.75})


def test_targets_are_drawn_uniformly_from_the_classes_that_have_a_token() -> None:
    dataset = patterns()
    for targets, expected in (
        ("all", {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
        ("others", {1: 1 / 2, 2: 1 / 2}),
        ("own", {0: 1.0}),
    ):
        generator = diff_mix(targets=targets)
        drawn = [generator.draw(dataset.train[0], j, dataset)["target"] for j in range(600)]
        shares = {CLASSES.index(name): drawn.count(name) / 600 for name in set(drawn)}
        assert shares.keys() == expected.keys()
        assert all(
            abs(shares[c] - p) < 0.08 for c, p in expected.items()
        )  # four standard deviations: 4 sqrt(p q / 600)


@pytest.mark.parametrize("label_sum", [1.0, 0.9])
def test_images_carry_the_drawn_class_in_prompt_and_label(tmp_path: Path, label_sum: float) -> None:
    folder = save_random_prior(tmp_path / "prior")
    prior = load_prior(PriorConfig(path=str(folder), image_size=32), "cpu")
    dataset, generator = patterns(), diff_mix(targets="others", t0=[0.5, 1.0], label_sum=label_sum)
    (tmp_path / "fitted").mkdir()
    generator.fit(dataset, prior, tmp_path / "fitted")
    variants = [generator.variant_of(source, j, dataset, "f") for source in dataset.train for j in range(2)]
    assert len({v.fingerprint for v in variants}) == len(variants)
    made = list(generator.generate(variants, dataset, prior, tmp_path / "fitted"))
    assert len(made) == len(variants)
    for generated in made:
        target, t0 = generated.variant.draws["target"], generated.variant.draws["t0"]
        assert generated.about["prompt"] == f"a photo of a <{target.replace(' ', '_')}>"
        assert generated.label is not None
        assert generated.label[CLASSES.index(target)] == pytest.approx(label_sum * t0**0.8)
        assert sum(generated.label.values()) == pytest.approx(label_sum)
        check_generated(generated, generator, dataset)  # a pool holds such labels


def test_another_gamma_makes_other_pool_members_but_the_law_of_targets_does_not() -> None:
    dataset = patterns()
    one, two, own = (diff_mix(gamma=1.0), diff_mix(gamma=0.5), diff_mix(targets="own", gamma=1.0))
    source = dataset.train[0]
    assert one.variant_of(source, 0, dataset, "f").fingerprint != two.variant_of(source, 0, dataset, "f").fingerprint
    same = [j for j in range(20) if one.draw(source, j, dataset)["target"] == "cat"]
    assert same
    for j in same:  # an image of the same drawn class and level is the very same image
        assert (
            one.variant_of(source, j, dataset, "f").fingerprint == own.variant_of(source, j, dataset, "f").fingerprint
        )


@pytest.mark.parametrize("fields", [{"targets": "any"}, {"gamma": -1.0}, {"label_sum": 0.0}])
def test_wrong_settings_are_refused(fields: dict) -> None:
    with pytest.raises(GenaugError, match=f"generator.{next(iter(fields))}"):
        diff_mix(**fields)
