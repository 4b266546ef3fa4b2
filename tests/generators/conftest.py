"""A prior and a CLIP with random weights and a small data set, shared by the tests of generators."""

from pathlib import Path

import numpy as np
import pytest

from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.priors.config import PriorConfig
from genaug.priors.random_weights import save_random_prior

CLASSES = ("cat", "dog", "dining table")


@pytest.fixture(scope="session")
def prior_folder(tmp_path_factory):
    return save_random_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="session")
def shared_prior(prior_folder):
    return PriorConfig(path=str(prior_folder), image_size=32).load("cpu")


@pytest.fixture
def prior(shared_prior):
    shared_prior.num_evaluations = 0
    return shared_prior


def make_dataset(seed: int = 0, per_class: int = 3) -> Dataset:
    """Random 8x8 patterns enlarged to 32 px, three classes."""
    random = np.random.default_rng(seed)
    samples = []
    for i in range(per_class * len(CLASSES)):
        pixels = np.kron(random.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((4, 4, 1), dtype=np.uint8))
        label = {i % len(CLASSES): 1.0}
        samples.append(Sample(id=f"{seed}/{i}", digest=digest_bytes(pixels.tobytes()), image=pixels, label=label))
    return Dataset(name="patterns", task="classification", class_names=CLASSES, train=tuple(samples), val=(), test=())


@pytest.fixture
def dataset():
    return make_dataset()


@pytest.fixture(scope="session")
def clip(prior_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a CLIP with random weights."""
    from tests.generators.pipeline.tiny_conditions import save_clip

    return str(save_clip(tmp_path_factory.mktemp("clip"), prior_folder))
