"""Which noise DreamDA draws: of which image, step and row, and how strong."""

import itertools

import numpy as np
import pytest

from genaug.generators.dreamda import batches
from genaug.priors.config import PriorConfig
from genaug.priors.random_weights import save_random_prior
from tests.generators.dreamda.test_dreamda import DATASET, dreamda, make, pixels


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = save_random_prior(tmp_path_factory.mktemp("prior"))
    return PriorConfig(path=str(folder), image_size=32).load("cpu")


def drawn(prior, monkeypatch, **fields):
    """Seeds of each draw of two variants of one source: the start, then posterior and bottleneck of each step."""
    seeds = []
    real = batches.draw_noise
    monkeypatch.setattr(batches, "draw_noise", lambda given, shape: seeds.append(tuple(given)) or real(given, shape))
    make(prior, dreamda(source_codes="fresh", **fields), sources=DATASET.train[:1])
    return seeds


def test_each_step_and_row_of_each_variant_has_noise_of_its_own(prior, monkeypatch):
    start, *later = drawn(prior, monkeypatch, start="per_source", noise_rows="independent")
    assert start[0] == start[1]  # that of the source
    every = list(itertools.chain(*later))
    assert len(later) >= 2 * 5 and len(set(every)) == len(every)


def test_a_start_of_each_variant_is_its_own(prior, monkeypatch):
    start, *_ = drawn(prior, monkeypatch, start="per_variant")
    assert start[0] != start[1]


def test_relative_noise_is_counted_in_its_unit(prior):
    fields = {"sigma_mode": "relative", "source_codes": "shared"}
    one = make(prior, dreamda(sigma=0.5, sigma_unit=2.0, **fields), same_names=True)
    other = make(prior, dreamda(sigma=1.0, sigma_unit=1.0, **fields), same_names=True)
    weaker = make(prior, dreamda(sigma=0.5, sigma_unit=1.0, **fields), same_names=True)
    assert all(np.array_equal(pixels(one[key]), pixels(other[key])) for key in one)
    assert any(not np.array_equal(pixels(one[key]), pixels(weaker[key])) for key in one)
