"""Image backbones by their names in timm."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import genaug.downstream.classification.cifar_backbones  # noqa: F401  (enters its backbones in timm's registry)
from genaug.core.errors import GenaugError, boundary


def check_backbone(
    name: str, pretrained: bool, weights_path: str | None, scratch: str = "downstream.mode=scratch"
) -> None:
    """Raise ``GenaugError`` if timm has no such backbone or weights, or ``weights_path`` is no file.

    Args:
        name: as ``downstream.backbone`` has it.
        pretrained: whether weights are wanted.
        weights_path: their file; None for timm's own.
        scratch: what to write for random weights.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise GenaugError(f"downstream.backbone={name} is no model of timm.{hint} timm.list_models() lists all.")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in known:
        raise GenaugError(f"downstream.backbone={name}: timm has no such weights, only {', '.join(known)}.")
    if pretrained and weights_path is None and not timm.is_model_pretrained(name):
        raise GenaugError(
            f"downstream.backbone={name} has no weights to download. "
            f"Write downstream.weights_path=<file>, {scratch}, or another backbone."
        )
    if weights_path is not None and not Path(weights_path).is_file():
        raise GenaugError(f"downstream.weights_path={weights_path} is not a file.")


def check_layers(name: str) -> None:
    """Raise ``GenaugError`` if timm does not know the order of the backbone's layers."""
    with torch.device("meta"):
        backbone = timm.create_model(name.partition(".")[0])
    if not hasattr(backbone, "group_matcher"):
        raise GenaugError(
            f"downstream.backbone={name} does not say which layer is above which: write downstream.layer_decay=null, or a "
            "backbone of timm."
        )


def make_backbone(name: str, image_size: int, pretrained: bool, weights_path: str | None) -> nn.Module:
    """The backbone without its classifier: images [b, 3, size, size] to features [b, ``head_hidden_size``]."""
    description = timm.get_pretrained_cfg(name)
    fixed_size = description is not None and description.fixed_input_size
    options: dict[str, Any] = {"img_size": image_size} if fixed_size else {}
    overlay = {"file": weights_path} if weights_path is not None else None
    source = f"from {weights_path}" if weights_path is not None else "by download"
    what, then = f"downstream.backbone={name} cannot be built at {image_size} px", "Choose another size or backbone."
    if pretrained:
        what = f"The weights of downstream.backbone={name} cannot be had {source}"
        then = "Write downstream.weights_path=<file> with timm's weights of this backbone, or downstream.mode=scratch."
    with boundary(what, then):
        return timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, num_classes=0, **options)


def num_features(backbone: nn.Module) -> int:
    """Length of the vector that ``make_backbone``'s network gives for each image."""
    return int(backbone.head_hidden_size)  # type: ignore[arg-type]
