"""Tiny cells of the real classes: scikit-learn's digits, timm's smallest networks, a pool of altered digits."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from genaug.data.augmentation import Augment
from genaug.data.mixing import Mix, RealOnly
from genaug.data.pool import Pool
from genaug.data.sample import Dataset
from genaug.data.sources.digits import Digits
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.config import Classifier
from genaug.downstream.trainer import TrainerConfig
from tests.golden.predictions import inverted

NUM_TEST, NUM_VAL = 60, 30
torch.set_num_threads(1)


class ListRecord:
    """A record that keeps what it is given."""

    def __init__(self):
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.lines: list[str] = []
        self.seconds = 0.0

    def add_seconds(self, seconds: float) -> None:
        self.seconds += seconds

    def rewind(self, step: int) -> None:
        pass

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    dataset = Digits(name="digits", shots=2, seed=0).load()
    return dataclasses.replace(dataset, test=dataset.test[:NUM_TEST], val=dataset.val[:NUM_VAL])


@pytest.fixture(scope="session")
def pool(digits: Dataset) -> Pool:
    """Two inverted copies of every training digit but the first."""
    return inverted(digits)


@pytest.fixture
def classify(digits: Dataset, tmp_path: Path):
    """Trains one tiny cell; keyword arguments replace fields of the classifier."""

    def run(
        mix: Mix | None = None,
        pool: Pool | None = None,
        augment: Augment | None = None,
        folder: Path | None = None,
        dataset: Dataset = digits,
        trainer: dict[str, Any] | None = None,
        interpolate: Any = None,
        record: ListRecord | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        defaults = {"seed": 0, "image_size": 32, "num_steps": 6, "batch_size": 8, "backbone": "test_byobnet"}
        classifier = Classifier(name="tiny", **(defaults | fields))
        data = TrainingData(
            dataset=dataset, mix=mix or RealOnly(), pool=pool, augment=augment or Augment(), interpolate=interpolate
        )
        config = TrainerConfig(**({"accelerator": "cpu"} | (trainer or {})))
        classifier.check_dataset(data.dataset)  # as a run does, before anything is generated
        return classifier.train(data, config, folder or tmp_path / "cell", record or ListRecord())

    return run


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A "pretrained" checkpoint in timm's layout."""
    import timm

    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "test_byobnet.pth"
    torch.save(timm.create_model("test_byobnet").state_dict(), path)
    return str(path)


@pytest.fixture
def record() -> ListRecord:
    return ListRecord()
