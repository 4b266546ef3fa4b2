"""The trainer's keys reach torch, and those of a GPU leave a CPU alone."""

import pytest
import torch

from genaug.core.device import best_device
from genaug.downstream import trainer
from genaug.downstream.trainer import TrainerConfig


def test_the_number_of_threads_and_the_device_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        assert TrainerConfig(accelerator="cpu", num_threads=3).device() == "cpu"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert best_device("mps") == "mps"


@pytest.fixture
def flags():
    """The switches of torch, all off at first and restored afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, (True, True, True)),
    ({"tf32": False}, (False, False, True)),
    ({"cudnn_benchmark": False}, (True, True, False)),
])  # fmt: skip
def test_a_gpu_multiplies_by_tf32_and_tries_convolutions(flags, monkeypatch, settings, expected):
    monkeypatch.setattr(trainer, "best_device", lambda accelerator: "cuda")
    assert TrainerConfig(**settings).device() == "cuda"
    assert flags() == expected


def test_a_cpu_is_left_as_it_is(flags, monkeypatch):
    monkeypatch.setattr(trainer, "best_device", lambda accelerator: "cpu")
    assert TrainerConfig().device() == "cpu" and flags() == (False, False, False)
    assert TrainerConfig().workers() == 0


@pytest.mark.parametrize(("cores", "devices", "expected"), [(1, 1, 0), (4, 1, 3), (64, 1, 8), (16, 4, 3)])
def test_a_gpu_is_fed_by_the_other_cores(monkeypatch, cores, devices, expected):
    monkeypatch.setattr(trainer, "best_device", lambda accelerator: "cuda")
    monkeypatch.setattr(trainer.os, "cpu_count", lambda: cores)
    assert TrainerConfig(devices=devices).workers() == expected
    assert TrainerConfig(devices=devices, num_workers=2).workers() == 2
