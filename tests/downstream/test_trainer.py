"""The trainer's keys reach torch, and those of a GPU leave a CPU alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from genaug.composition import compose_typed
from genaug.core.device import best_device
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical, fingerprint
from genaug.downstream import trainer
from genaug.downstream.classification.module import LightningClassifier, Network
from genaug.downstream.trainer import TrainerConfig


def test_the_number_of_threads_and_the_device_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        assert TrainerConfig(accelerator="cpu", num_threads=3).device() == "cpu"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_taken_where_torch_sees_it_and_refused_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for accelerator in ("gpu", "cuda", "mps"):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(GenaugError, match=rf"trainer\.accelerator={accelerator}, but torch sees no GPU"):
            best_device(accelerator)
    assert best_device("auto") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
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


@pytest.mark.parametrize(("device", "asked", "expected"), [
    ("cuda", None, torch.channels_last),
    ("cuda", False, torch.preserve_format),
    ("cpu", None, torch.preserve_format),
    ("cpu", True, torch.channels_last),
    ("mps", None, torch.preserve_format),
])  # fmt: skip
def test_channels_are_innermost_on_a_gpu_and_elsewhere_if_asked_for(monkeypatch, device, asked, expected):
    monkeypatch.setattr(trainer, "best_device", lambda accelerator: device)
    assert TrainerConfig(channels_last=asked).memory_format() is expected


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}])
def test_the_layout_in_memory_changes_a_training_by_rounding_alone(classify, monkeypatch, tmp_path, settings):
    layouts, found = [], []
    step = LightningClassifier.training_step

    def watched(self, *arguments):
        weights = [weight for weight in self.scored.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
        layouts.append(all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights))
        return step(self, *arguments)

    monkeypatch.setattr(LightningClassifier, "training_step", watched)
    for innermost in (True, None):
        # Adam divides by small numbers and so enlarges the last digits
        result = classify(
            trainer={"channels_last": innermost}, folder=tmp_path / str(innermost), optimizer="sgd", **settings
        )
        found.append(torch.tensor([row["probability"] for row in result["predictions"]]))
    assert layouts == [True] * 6 + [False] * 6
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


def test_a_layout_that_is_asked_for_counts_for_the_identity_and_none_leaves_it_as_it_was():
    identities = {fingerprint(TrainerConfig(channels_last=asked)) for asked in (None, False, True)}
    assert len(identities) == 3 and fingerprint(TrainerConfig()) in identities
    assert "channels_last" not in canonical(TrainerConfig())


def test_the_layout_decides_ties_of_pooling_and_nothing_else():
    config = compose_typed(["generator=none", "mix=real_only", "dataset.shots=1"])
    digits = torch.stack(
        [torch.from_numpy(np.array(sample.open())).permute(2, 0, 1) for sample in config.dataset.load().train]
    )
    targets = torch.arange(len(digits))

    def gradient(images, layout):
        torch.manual_seed(0)
        network = Network(config.downstream, len(digits)).to(memory_format=layout)
        functional.cross_entropy(network(images.contiguous(memory_format=layout)), targets).backward()
        return torch.cat([weight.grad.flatten() for weight in network.parameters()])

    def difference(images):
        usual, innermost = gradient(images, torch.contiguous_format), gradient(images, torch.channels_last)
        return float((usual - innermost).norm() / usual.norm())

    noise = torch.rand(digits.shape, generator=torch.Generator().manual_seed(0))
    assert difference(noise) < 1e-5 < 1e-4 < difference(digits)
