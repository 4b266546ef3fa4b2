"""Manifold mixup: MixUp at layer 0, hidden states behind the others, and nothing left behind."""

import numpy as np
import pytest
import timm
import torch

from genaug.core.errors import GenaugError
from genaug.core.seeding import derive
from genaug.downstream.classification.manifold_mixup import layer_names, manifold_mixup


def drawn(seed: int, size: int, num_layers: int, alpha: float = 2.0) -> tuple[int, float, np.ndarray]:
    """Layer, lambda and partners of a seed, drawn again by hand."""
    rng = np.random.default_rng(derive(seed, "manifold"))
    return int(rng.integers(num_layers)), float(rng.beta(alpha, alpha)), rng.permutation(size)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return timm.create_model("test_byobnet", num_classes=0).eval()


def test_at_layer_zero_it_is_mixup(backbone):
    x, weights = torch.rand(6, 3, 32, 32), torch.eye(6)
    _, lam, partners = drawn(0, 6, 1)
    with torch.no_grad(), manifold_mixup(backbone, weights, 2.0, 1, seed=0) as labels:
        out = backbone(x)
    with torch.no_grad():
        assert torch.equal(out, backbone(lam * x + (1 - lam) * x[partners]))
        assert not torch.equal(out, backbone(x))
    torch.testing.assert_close(labels, lam * weights + (1 - lam) * weights[partners])
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))


def test_behind_a_layer_its_output_is_mixed(backbone):
    x, weights = torch.rand(6, 3, 32, 32), torch.eye(6)
    seed = next(s for s in range(20) if drawn(s, 6, 3)[0] == 2)
    _, lam, partners = drawn(seed, 6, 3)
    states = []
    layer = backbone.get_submodule(layer_names(backbone, 3)[2])
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda module, inputs, output: states.append(output))
        backbone(x)
        handle.remove()
        with manifold_mixup(backbone, weights, 2.0, 3, seed):
            handle = layer.register_forward_hook(lambda module, inputs, output: states.append(output))
            backbone(x)
            handle.remove()
        plain, mixed = states
        torch.testing.assert_close(mixed, lam * plain + (1 - lam) * plain[partners])


def test_afterwards_nothing_is_mixed(backbone):
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        before = backbone(x)
        for seed in range(5):
            with manifold_mixup(backbone, torch.eye(4), 2.0, 3, seed):
                backbone(x)
        assert torch.equal(before, backbone(x))


def test_layers_of_a_resnet_and_too_many_of_them(backbone):
    with torch.device("meta"):
        resnet = timm.create_model("resnet18", num_classes=0)
    assert layer_names(resnet, 3) == ["", "layer1", "layer2"]
    with pytest.raises(GenaugError, match="manifold_layers=9, but this backbone tells only"):
        layer_names(backbone, 9)
