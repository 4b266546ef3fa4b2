"""A feature pyramid on any backbone of timm, for torchvision's detectors."""

import contextlib
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from genaug.core.errors import GenaugError, boundary

if TYPE_CHECKING:
    from genaug.downstream.detection.config import Detector

ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's families are told that images come in any size; the last needs no telling."""


class TimmPyramid(nn.Module):
    """Images [b, 3, h, w], h and w multiples of 32, to five maps of 256 channels: strides 4 to 64, or 8 to 128 if ``deep``.

    A pretrained backbone keeps the statistics of its batch normalisation, as torchvision's ResNet-50 does. Maps of a ViT, which
    all have one stride, are scaled to those of the pyramid (a plain form of ViTDet's, arXiv 2203.16527).

    Raises:
        GenaugError: if the backbone or its weights cannot be had, it has no such maps, or takes images of one size alone.
    """

    out_channels = 256

    def __init__(self, config: "Detector", deep: bool):
        super().__init__()
        assert config.backbone is not None
        key = f"downstream.backbone={config.backbone}"
        self.strides = (8, 16, 32) if deep else (4, 8, 16, 32)
        pretrained = config.weights != "none"
        overlay = {"file": config.weights_path} if config.weights_path is not None else None
        with boundary(
            f"{key} cannot be built with downstream.weights={config.weights}",
            "Write another backbone, downstream.weights_path=<file of timm's weights>, or downstream.weights=none.",
        ):
            body = _created(config.backbone, pretrained=pretrained, pretrained_cfg_overlay=overlay, features_only=True)
        self.mean, self.std = list(body.pretrained_cfg["mean"]), list(body.pretrained_cfg["std"])
        """Statistics of the pictures that the weights were trained on."""
        found = list(body.feature_info.reduction())
        if len(set(found)) == 1 and 32 % found[0] == 0:
            self.places = [len(found) - len(self.strides) + i for i in range(len(self.strides))]
            self.places = [max(0, place) for place in self.places]
        elif set(self.strides) <= set(found):
            self.places = [found.index(stride) for stride in self.strides]
        else:
            raise GenaugError(
                f"{key} has feature maps of stride {', '.join(map(str, found))}, but the pyramid of "
                f"downstream.architecture={config.architecture} needs {', '.join(map(str, self.strides))}, or one stride that "
                "divides 32. Write another backbone, e.g. convnext_tiny.fb_in22k."
            )
        self.channels = [body.feature_info.channels()[place] for place in self.places]
        if pretrained:
            body = freeze_batch_norm_2d(body)
            body.requires_grad_(config.trainable_layers > 0)
        self.body = body
        top = LastLevelP6P7(self.out_channels, self.out_channels) if deep else LastLevelMaxPool()
        self.pyramid = FeaturePyramidNetwork(self.channels, self.out_channels, top)
        side = max(64, 32 * math.ceil(config.image_size / 32))
        with boundary(
            f"{key} cannot see images of {side} x {side - 32} px",
            "A detector gives it images of many shapes: write another backbone, or another downstream.image_size.",
        ):
            was_training = body.training
            body.eval()
            with torch.no_grad():
                self.maps(torch.zeros(1, 3, side - 32, side))
            body.train(was_training)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps [b, c, h / stride, w / stride], finest first."""
        height, width = images.shape[-2:]
        all_maps, chosen = self.body(images), []
        for place, channels, stride in zip(self.places, self.channels, self.strides, strict=True):
            found = all_maps[place]
            if found.shape[1] != channels:
                found = found.permute(0, 3, 1, 2)  # Swin and its kin have channels last
            size = (height // stride, width // stride)
            if found.shape[-2:] != size:
                found = functional.interpolate(found, size, mode="bilinear", antialias=True, align_corners=False)
            chosen.append(found)
        return chosen

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid(OrderedDict((str(i), found) for i, found in enumerate(self.maps(images))))


def _created(name: str, **options: Any) -> Any:
    """timm's feature extractor, told in its family's way that images come in any size."""
    for told in ANY_SIZE[:-1]:
        with contextlib.suppress(TypeError):
            return timm.create_model(name, **options, **told)
    return timm.create_model(name, **options, **ANY_SIZE[-1])
