"""The trainer's keys reach torch."""

import torch

from genaug.core.device import best_device
from genaug.downstream.trainer import TrainerConfig


def test_the_number_of_threads_and_the_device_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        assert TrainerConfig(accelerator="cpu", num_threads=3).device() == "cpu"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert best_device("mps") == "mps"
