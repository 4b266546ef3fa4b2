"""The networks of ``detector.Detector``."""

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model_weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from genaug.core.errors import GenaugError, boundary

if TYPE_CHECKING:
    from genaug.downstream.detection.config import Detector

BUILDERS = {
    "faster_rcnn": "fasterrcnn_resnet50_fpn",
    "retinanet": "retinanet_resnet50_fpn",
    "fcos": "fcos_resnet50_fpn",
}


class TinyBackbone(nn.Module):
    """Feature maps of 64 channels at strides 4 and 8, joined top-down."""

    out_channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 24, 2), _block(24, 48, 2), _block(48, 48, 1))
        self.deep = nn.Sequential(_block(48, 96, 2), _block(96, 96, 1))
        self.pyramid = FeaturePyramidNetwork([48, 96], self.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.stem(images)
        return self.pyramid(OrderedDict([("0", shallow), ("1", self.deep(shallow))]))


def _block(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def first_label(config: "Detector") -> int:
    """The network's index of class 0: Faster R-CNN keeps 0 for the background."""
    return 1 if config.architecture == "faster_rcnn" else 0


def build_network(config: "Detector", num_classes: int) -> nn.Module:
    """A torchvision detector: in training ``(images, targets) -> losses``, otherwise ``images -> detections``.

    Images are float [3, h, w] in [0, 1] of any size; they are padded, never resized.

    Raises:
        GenaugError: if the weights cannot be had or do not fit.
    """
    side = config.image_size
    common: dict[str, Any] = {"min_size": side, "max_size": side, "_skip_resize": True}
    if config.architecture == "faster_rcnn":
        common |= {"box_score_thresh": config.min_score, "box_detections_per_img": config.max_detections}
    else:
        common |= {"score_thresh": config.min_score, "detections_per_img": config.max_detections}
    if config.architecture == "tiny":
        anchors = AnchorGenerator(sizes=((4,), (8,)), aspect_ratios=((1.0,), (1.0,)))
        head = FCOSHead(TinyBackbone.out_channels, 1, num_classes, num_convs=2)
        return detection.FCOS(
            TinyBackbone(), num_classes, anchor_generator=anchors, head=head, topk_candidates=200, **common
        )
    name = BUILDERS[config.architecture]
    frozen = {"trainable_backbone_layers": config.trainable_layers}
    if config.architecture != "faster_rcnn":
        common |= {"topk_candidates": 1000}
    build = getattr(detection, name)
    with boundary(
        f"downstream.weights={config.weights} cannot be had",
        "On a machine without a network give a file of torchvision's weights (downstream.weights_path=FILE), or write "
        "downstream.weights=none.",
    ):
        download = config.weights_path is None
        backbone = "DEFAULT" if config.weights == "backbone" and download else None
        network = build(
            weights=None, weights_backbone=backbone, num_classes=num_classes + first_label(config), **frozen, **common
        )
        if config.weights == "none":
            return network
        if config.weights == "coco":
            load_matching(network, _state(config, name), "the detector")
        elif config.weights_path is not None:
            load_matching(network.backbone.body, _state(config, name), "the ResNet-50")
    return network


def _state(config: "Detector", name: str) -> dict[str, Tensor]:
    if config.weights_path is not None:
        path = Path(config.weights_path).expanduser()
        if not path.is_file():
            raise GenaugError(f"downstream.weights_path={config.weights_path} is not a file.")
        with boundary(
            f"downstream.weights_path={config.weights_path} cannot be read as weights", "Download the file again."
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    return get_model_weights(name).DEFAULT.get_state_dict(progress=False)  # type: ignore[attr-defined]


def load_matching(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load the tensors whose shapes fit: all but the class layer.

    Raises:
        GenaugError: if fewer than nine in ten do.
    """
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if len(fitting) < 0.9 * len(own):
        raise GenaugError(
            f"Only {len(fitting)} of {len(own)} tensors of {what} are in those weights: they are of another network."
        )
    network.load_state_dict(fitting, strict=False)
