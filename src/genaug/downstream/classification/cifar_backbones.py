"""Backbones for 32 px images that timm does not have, under timm's registry: the three of the mixup and LSI papers.

``preact_resnet18_cifar`` (arXiv 1603.05027, as in facebookresearch/mixup-cifar10: no norm after the last block),
``wrn28_10_cifar`` (arXiv 1605.07146) and ``densenet_bc_190_cifar`` (arXiv 1608.06993, growth 40). With a linear layer to
ten classes: 11.17, 36.48 and 25.62 million parameters.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and ReLU; the shortcut starts after the first norm where it is a convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False) if stride != 1 or in_channels != channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        return self.conv2(F.relu(self.norm2(self.conv1(h)))) + shortcut


class BottleneckLayer(nn.Module):
    """DenseNet-BC: a 1x1 convolution to 4 k channels and a 3x3 one to k, whose output joins the input."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(h)))], dim=1)


class CifarNetwork(nn.Module):
    """A 3x3 stem, stages, an optional last norm, global average pooling and, with ``num_classes``, a linear layer.

    ``feature_info`` lists the outputs of stem and stages, as timm's models do.
    """

    def __init__(self, stem: nn.Conv2d, stages: list[nn.Module], num_features: int, last_norm: bool, num_classes: int):
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.norm = nn.Sequential(nn.BatchNorm2d(num_features), nn.ReLU()) if last_norm else nn.Identity()
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.fc = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
        self.feature_info = [{"module": name} for name in ("stem", *(f"stages.{i}" for i in range(len(stages))))]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.stages(self.stem(x))).mean(dim=(2, 3)))


def _preactivated(stem: int, widths: list[int], depth: int, last_norm: bool, num_classes: int) -> CifarNetwork:
    stages: list[nn.Module] = []
    before = stem
    for i, width in enumerate(widths):
        blocks = [PreActBlock(before, width, stride=2 if i else 1)]
        blocks += [PreActBlock(width, width, stride=1) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
        before = width
    return CifarNetwork(nn.Conv2d(3, stem, 3, 1, 1, bias=False), stages, before, last_norm, num_classes)


def _densenet(depth: int, growth: int, num_classes: int) -> CifarNetwork:
    channels = 2 * growth
    stem = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
    stages: list[nn.Module] = []
    for i in range(3):
        layers: list[nn.Module] = []
        if i:  # transition: halves channels and size
            layers += [
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            channels //= 2
        for _ in range((depth - 4) // 6):
            layers.append(BottleneckLayer(channels, growth))
            channels += growth
        stages.append(nn.Sequential(*layers))
    return CifarNetwork(stem, stages, channels, last_norm=True, num_classes=num_classes)


def _he(network: CifarNetwork) -> CifarNetwork:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


@register_model
def preact_resnet18_cifar(pretrained: bool = False, num_classes: int = 10, **kwargs: Any) -> CifarNetwork:
    """PreAct ResNet-18 with torch's initialisation, as in mixup-cifar10."""
    return _preactivated(64, [64, 128, 256, 512], 2, last_norm=False, num_classes=num_classes)


@register_model
def wrn28_10_cifar(pretrained: bool = False, num_classes: int = 10, **kwargs: Any) -> CifarNetwork:
    """Wide ResNet of depth 28 and width 10, without dropout."""
    return _he(_preactivated(16, [160, 320, 640], 4, last_norm=True, num_classes=num_classes))


@register_model
def densenet_bc_190_cifar(pretrained: bool = False, num_classes: int = 10, **kwargs: Any) -> CifarNetwork:
    """DenseNet-BC of depth 190 and growth 40."""
    return _he(_densenet(190, 40, num_classes))
