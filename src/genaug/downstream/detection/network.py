"""The networks of ``detector.Detector``."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import detection, get_model_weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from genaug.core.errors import GenaugError, boundary

if TYPE_CHECKING:
    from genaug.downstream.detection.config import Detector


@dataclass(kw_only=True, frozen=True, slots=True)
class Architecture:
    """What tells torchvision's detectors apart."""

    name: str
    """torchvision's, by which it finds COCO weights."""
    build: Any
    class_layer: str
    """Prefix of the layer whose shape depends on the classes."""
    deep: bool
    """Whether the feature pyramid has two coarser maps on top and lacks the finest."""
    whole: bool = False
    """Whether ``build`` makes the ResNet-50 itself."""


ARCHITECTURES = {
    "faster_rcnn": Architecture(
        name="fasterrcnn_resnet50_fpn",
        build=detection.FasterRCNN,
        class_layer="roi_heads.box_predictor.",
        deep=False,
    ),
    "retinanet": Architecture(
        name="retinanet_resnet50_fpn",
        build=detection.RetinaNet,
        class_layer="head.classification_head.cls_logits.",
        deep=True,
    ),
    "fcos": Architecture(
        name="fcos_resnet50_fpn",
        build=detection.FCOS,
        class_layer="head.classification_head.cls_logits.",
        deep=True,
    ),
    "faster_rcnn_v2": Architecture(
        name="fasterrcnn_resnet50_fpn_v2",
        build=detection.fasterrcnn_resnet50_fpn_v2,
        class_layer="roi_heads.box_predictor.",
        deep=False,
        whole=True,
    ),
    "retinanet_v2": Architecture(
        name="retinanet_resnet50_fpn_v2",
        build=detection.retinanet_resnet50_fpn_v2,
        class_layer="head.classification_head.cls_logits.",
        deep=True,
        whole=True,
    ),
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
    return 1 if config.architecture.startswith("faster_rcnn") else 0


def build_network(config: "Detector", num_classes: int) -> nn.Module:
    """A detector as torchvision has them: in training ``(images, targets) -> losses``, otherwise ``images -> detections``.

    Images are float [3, h, w] in [0, 1] of any size; they are padded, never resized (``auto`` stretches them).

    Raises:
        GenaugError: if the weights cannot be had or do not fit.
    """
    if config.auto is not None:
        from genaug.downstream.detection.auto_network import build_auto

        return build_auto(config, num_classes)
    side = config.image_size
    common: dict[str, Any] = {"min_size": side, "max_size": side, "_skip_resize": True}
    if first_label(config):
        common |= {"box_score_thresh": config.min_score, "box_detections_per_img": config.max_detections}
    else:
        common |= {"score_thresh": config.min_score, "detections_per_img": config.max_detections}
    if config.architecture == "tiny":
        anchors = AnchorGenerator(sizes=((4,), (8,)), aspect_ratios=((1.0,), (1.0,)))
        head = FCOSHead(TinyBackbone.out_channels, 1, num_classes, num_convs=2)
        return detection.FCOS(
            TinyBackbone(), num_classes, anchor_generator=anchors, head=head, topk_candidates=200, **common
        )
    architecture = ARCHITECTURES[config.architecture]
    if not first_label(config):
        common |= {"topk_candidates": 1000}
    num_labels = num_classes + first_label(config)
    if config.backbone is not None:
        from genaug.downstream.detection.pyramid import TimmPyramid

        pyramid = TimmPyramid(config, architecture.deep)
        return architecture.build(pyramid, num_labels, image_mean=pyramid.mean, image_std=pyramid.std, **common)
    if architecture.whole:
        network = architecture.build(weights=None, weights_backbone=None, num_classes=num_labels, **common)
        if config.weights != "none":
            _freeze(network.backbone.body, config.trainable_layers)
    else:
        network = architecture.build(_backbone(config, architecture), num_labels, **common)
    if config.weights == "coco":
        load_matching(network, _state(config, architecture.name), "the detector", but=architecture.class_layer)
        if config.architecture != "fcos":  # torchvision's COCO weights of these two were trained without the epsilon
            for module in network.modules():
                if isinstance(module, FrozenBatchNorm2d):
                    module.eps = 0.0
    elif config.weights == "backbone":
        load_matching(network.backbone.body, _state(config, "resnet50"), "the ResNet-50")
    return network


def _backbone(config: "Detector", architecture: Architecture) -> nn.Module:
    """ResNet-50 with a feature pyramid. Pretrained, from a file or a download alike, its first stages and all statistics of
    its batch normalisation stay as they are; from scratch everything learns."""
    pretrained = config.weights != "none"
    return resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if pretrained else nn.BatchNorm2d,
        trainable_layers=config.trainable_layers if pretrained else 5,
        **({"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)} if architecture.deep else {}),
    )


def _freeze(body: nn.Module, trainable_layers: int) -> None:
    """As torchvision does: all but the last stages of a ResNet, 0 to 5, keep their weights; statistics still follow."""
    learns = ("layer4", "layer3", "layer2", "layer1", "conv1", "bn1")[: trainable_layers + (trainable_layers == 5)]
    for name, weight in body.named_parameters():
        weight.requires_grad_(name.startswith(learns))


def _state(config: "Detector", name: str) -> dict[str, Tensor]:
    """The tensors of ``downstream.weights``, from the file if there is one."""
    then = (
        "On a machine without a network give a file of torchvision's weights (downstream.weights_path=FILE), or write "
    )
    if config.weights_path is None:
        with boundary(f"downstream.weights={config.weights} cannot be downloaded", f"{then}downstream.weights=none."):
            return get_model_weights(name).DEFAULT.get_state_dict(progress=False)  # type: ignore[attr-defined]
    path = Path(config.weights_path).expanduser()
    if not path.is_file():
        raise GenaugError(f"downstream.weights_path={config.weights_path} is not a file.")
    with boundary(f"downstream.weights_path={config.weights_path} cannot be read as weights", "Download it again."):
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        return dict(state)


def load_matching(network: nn.Module, state: dict[str, Tensor], what: str, but: str = "\0") -> None:
    """Load the weights of all layers but those whose names start with ``but`` (the class layer, which is made for the data).

    Raises:
        GenaugError: if a tensor of another layer is absent or of another shape; it names the first.
    """
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(but)}
    wrong = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if wrong:
        found = f"of shape {list(state[wrong[0]].shape)}" if wrong[0] in state else "absent"
        raise GenaugError(
            f"downstream.weights_path: {len(wrong)} of {len(own)} tensors of {what} are not in those weights, e.g. {wrong[0]} "
            f"{list(own[wrong[0]].shape)} is {found}: they are of another network. Write a file of torchvision's own weights."
        )
    network.load_state_dict({key: state[key] for key in own}, strict=False)
