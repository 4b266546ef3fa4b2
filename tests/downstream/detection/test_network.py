"""Pretrained weights in torchvision's own layout load, freeze what they must, and are refused where they do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import detection, resnet50
from torchvision.ops import FrozenBatchNorm2d

from genaug.core.errors import GenaugError
from genaug.data.sample import Boxes, Sample
from genaug.downstream.detection.batches import BoxedImages
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.module import detect
from genaug.downstream.detection.network import ARCHITECTURES, build_network

NUM_KEYS = {"faster_rcnn": 295}  # of the file that torchvision publishes


def detector(architecture: str, **fields: object) -> Detector:
    given = {"name": "d", "seed": 0, "image_size": 64, "architecture": architecture, "warmup_steps": 0, "num_steps": 2}
    return Detector(**{**given, **fields})


def published(architecture: str, folder: Path) -> Path:
    """A file as torchvision publishes it: frozen statistics, so no counters of batches."""
    torch.manual_seed(1)
    network = getattr(detection, ARCHITECTURES[architecture].name)(weights=None, weights_backbone=None)
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
    torch.save(state, folder / f"{architecture}.pth")
    return folder / f"{architecture}.pth"


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_coco_weights_in_a_file_load_and_fine_tune(architecture: str, tmp_path: Path) -> None:
    path = published(architecture, tmp_path)
    state = torch.load(path, weights_only=True)
    assert len(state) == NUM_KEYS.get(architecture, len(state))
    config = detector(architecture, weights="coco", weights_path=str(path), trainable_layers=2)
    network = build_network(config, 3)
    own = network.state_dict()
    layer = ARCHITECTURES[architecture].class_layer
    assert all(torch.equal(own[key], state[key]) for key in own if not key.startswith(layer))
    norms = [module for module in network.backbone.modules() if "BatchNorm" in type(module).__name__]
    assert norms and all(isinstance(module, FrozenBatchNorm2d) for module in norms)
    assert {norm.eps for norm in norms} == ({1e-5} if architecture == "fcos" else {0.0})
    body = network.backbone.body
    learns = {name for name, weight in body.named_parameters() if weight.requires_grad}
    assert {name.partition(".")[0] for name in learns} == {"layer3", "layer4"}
    before = {key: value.clone() for key, value in own.items()}
    targets = [{"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([2])}]
    optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=1e-3)
    torch.stack(list(network([torch.rand(3, 64, 64)], targets).values())).sum().backward()
    optimizer.step()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith(layer) for key in changed) and any("layer4" in key for key in changed)
    assert not any("running" in key or "layer1" in key or "body.conv1" in key for key in changed)


def test_a_backbone_in_a_file_is_frozen_as_a_downloaded_one(tmp_path: Path) -> None:
    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "resnet50.safetensors")
    for name in ("resnet50.pth", "resnet50.safetensors"):
        config = detector("retinanet", weights="backbone", weights_path=str(tmp_path / name), trainable_layers=3)
        body = build_network(config, 2).backbone.body
        assert torch.equal(body.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])
        assert isinstance(body.bn1, FrozenBatchNorm2d)
        assert not body.layer1[0].conv1.weight.requires_grad and body.layer2[0].conv1.weight.requires_grad


def test_everything_learns_from_scratch() -> None:
    body = build_network(detector("fcos", trainable_layers=0), 2).backbone.body
    assert isinstance(body.bn1, nn.BatchNorm2d) and all(weight.requires_grad for weight in body.parameters())


def test_weights_of_another_network_are_refused_with_the_first_that_is_wrong(tmp_path: Path) -> None:
    path = published("fcos", tmp_path)
    with pytest.raises(
        GenaugError, match=r"not in those weights, e\.g\. \S+ .* is absent: they are of another network"
    ):
        build_network(detector("retinanet", weights="coco", weights_path=str(path)), 2)
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(GenaugError, match=r"broken\.pth cannot be read as weights"):
        build_network(detector("fcos", weights="coco", weights_path=str(tmp_path / "broken.pth")), 2)


def test_detections_are_scaled_back_to_the_pixels_of_the_image_in_both_directions() -> None:
    class Everything(nn.Module):
        """Finds the whole scaled image and a box in it."""

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            height, width = images[0].shape[-2:]
            boxes = torch.tensor([[0, 0, width, height], [16.0, 6.0, 32.0, 18.0]])
            return [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([1, 2])}]

    pixels = np.zeros((33, 100, 3), dtype=np.uint8)  # at 64 px it is 64 x 21: the scales differ, .64 and .6364
    source = Sample(
        id="x", digest="x", image=pixels, boxes=Boxes(xyxy=np.zeros((0, 4)), labels=np.zeros(0), crowd=np.zeros(0))
    )
    (found,) = detect(Everything(), [source], BoxedImages(64), 1, "cpu")
    assert found.xyxy[0].tolist() == pytest.approx([0, 0, 100, 33])
    assert found.xyxy[1].tolist() == pytest.approx([25, 6 * 33 / 21, 50, 18 * 33 / 21], rel=1e-5)
    assert found.labels.tolist() == [0, 1]
