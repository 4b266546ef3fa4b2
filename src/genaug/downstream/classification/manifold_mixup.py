"""Manifold mixup (arXiv 1806.05236): MixUp of the hidden states behind a randomly chosen layer.

Layer 0 is the (normalised) input, so there it is MixUp itself; layer k is the k-th stage of timm's ``feature_info``, e.g.
``layer1`` and ``layer2`` of a ResNet. Labels are mixed once, and the loss is the cross-entropy of the
mixed label as for every other augmentation here (the paper's code takes binary cross-entropies of the softmax).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genaug.core.errors import GenaugError
from genaug.core.seeding import derive


def layer_names(backbone: nn.Module, num_layers: int) -> list[str]:
    """Names of the modules behind which is mixed, beginning with ``""``, the input.

    Raises:
        GenaugError: if the backbone does not tell so many of its layers.
    """
    known = [str(info["module"]) for info in getattr(backbone, "feature_info", [])][1:]
    if num_layers > len(known) + 1:
        raise GenaugError(
            f"augment.manifold_layers={num_layers}, but this backbone tells only {len(known) + 1} places to mix at "
            f"({', '.join(['input', *known])}). Write augment.manifold_layers={len(known) + 1} or less."
        )
    return ["", *known[: num_layers - 1]]


@contextlib.contextmanager
def manifold_mixup(backbone: nn.Module, weights: Tensor, alpha: float, num_layers: int, seed: int) -> Iterator[Tensor]:
    """Inside, one layer of ``backbone`` mixes each batch with its own permutation; the input does if layer 0 was drawn.

    Args:
        weights: class weights [b, classes].
        alpha: lambda, the share of a row's own state, is drawn from Beta(alpha, alpha).
        num_layers: number of layers from which one is drawn.
        seed: decides layer, permutation and lambda.

    Yields:
        the mixed class weights.
    """
    rng = np.random.default_rng(derive(seed, "manifold"))
    name = layer_names(backbone, num_layers)[int(rng.integers(num_layers))]
    lam = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(weights))).to(weights.device)

    def mix(state: Any) -> Any:
        return lam * state + (1 - lam) * state[partners]

    layer = backbone.get_submodule(name)
    if name:
        handle = layer.register_forward_hook(lambda module, inputs, output: mix(output))
    else:
        handle = layer.register_forward_pre_hook(lambda module, inputs: mix(inputs[0]))
    try:
        yield mix(weights)
    finally:
        handle.remove()
