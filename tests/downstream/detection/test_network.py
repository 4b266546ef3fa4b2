"""Pretrained weights in torchvision's own layout load, freeze what they must, and are refused where they do not fit."""

from pathlib import Path

import numpy as np
import pytest
import timm
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


FIRST = [name for name, architecture in ARCHITECTURES.items() if not architecture.whole]
SECOND = [name for name, architecture in ARCHITECTURES.items() if architecture.whole]


@pytest.mark.parametrize("architecture", FIRST)
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


@pytest.mark.parametrize("architecture", SECOND)
def test_coco_weights_of_the_second_versions_load_and_fine_tune(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = getattr(detection, ARCHITECTURES[architecture].name)(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    state = theirs.state_dict()
    config = detector(architecture, weights="coco", weights_path=str(tmp_path / "weights.pth"), trainable_layers=2)
    network = build_network(config, 3)
    own, layer = network.state_dict(), ARCHITECTURES[architecture].class_layer
    dropped = {key for key in own if not torch.equal(own[key], state[key])} if own.keys() == state.keys() else None
    assert dropped and all(key.startswith(layer) for key in dropped)
    assert own[f"{layer}bias" if architecture == "retinanet_v2" else f"{layer}cls_score.bias"].numel() in (4, 27)
    learns = {name.partition(".")[0] for name, w in network.backbone.body.named_parameters() if w.requires_grad}
    assert learns == {"layer3", "layer4"}
    everything = build_network(detector(architecture, trainable_layers=0), 3)
    assert all(weight.requires_grad for weight in everything.parameters())
    losses = network(
        [torch.rand(3, 64, 64)], [{"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([2])}]
    )
    assert all(torch.isfinite(loss) for loss in losses.values())


def timm_file(name: str, folder: Path) -> str:
    """A pretrained file in timm's layout, with statistics that are no defaults."""
    torch.manual_seed(2)
    state = timm.create_model(name).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
    torch.save(state, folder / f"{name}.pth")
    return str(folder / f"{name}.pth")


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("faster_rcnn", "test_resnet"), ("retinanet", "test_vit"), ("fcos", "test_convnext"), ("faster_rcnn", "test_vit")],
)
def test_a_backbone_of_timm_loads_its_weights_and_learns(architecture: str, backbone: str, tmp_path: Path) -> None:
    path = timm_file(backbone, tmp_path)
    network = build_network(detector(architecture, backbone=backbone, weights="backbone", weights_path=path), 3)
    own = network.backbone.body.state_dict()
    read = {key.replace("model.", ""): value for key, value in torch.load(path, weights_only=True).items()}
    shared = [key for key in own if key.replace("model.", "").replace("stages_", "stages.") in read]
    assert len(shared) > 0.8 * len(own)
    assert all(torch.equal(own[key], read[key.replace("model.", "").replace("stages_", "stages.")]) for key in shared)
    maps = network.backbone(torch.rand(2, 3, 96, 64))
    finest = 4 if architecture == "faster_rcnn" else 8
    sizes = [(-(-96 // (finest * 2**i)), -(-64 // (finest * 2**i))) for i in range(5)]
    assert [tuple(found.shape[1:]) for found in maps.values()] == [(256, *size) for size in sizes]
    pyramid = network.backbone
    strides = [pyramid.body.feature_info.reduction()[place] for place in pyramid.places]
    assert strides == (
        [16] * 3 if architecture == "retinanet" else [16] * 4 if "vit" in backbone else list(pyramid.strides)
    )
    statistics = {key: value.clone() for key, value in own.items() if "running" in key}
    network.train()
    images, targets = (
        [torch.rand(3, 64, 64)],
        [{"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([2])}],
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = next(iter(network.backbone.body.parameters())).detach().clone()
    torch.stack(list(network(images, targets).values())).sum().backward()
    optimizer.step()
    assert not torch.equal(next(iter(network.backbone.body.parameters())), before)
    assert all(torch.equal(network.backbone.body.state_dict()[key], value) for key, value in statistics.items())
    frozen = detector(architecture, backbone=backbone, weights="backbone", weights_path=path, trainable_layers=0)
    assert not any(weight.requires_grad for weight in build_network(frozen, 3).backbone.body.parameters())


def test_a_backbone_of_timm_sees_pictures_normalised_as_its_weights_were_trained() -> None:
    network = build_network(detector("fcos", backbone="test_vit"), 2)
    wanted = timm.get_pretrained_cfg("test_vit")
    assert network.transform.image_mean == list(wanted.mean) == [0.5, 0.5, 0.5]
    assert network.transform.image_std == list(wanted.std)


def test_maps_of_a_vit_lie_where_the_picture_has_them() -> None:
    """A bright corner is bright in the same corner of every map."""
    pyramid = build_network(detector("faster_rcnn", backbone="test_vit"), 2).backbone
    dark, lit = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    lit[:, :, :16, 48:] = 1.0
    with torch.no_grad():
        for one, other in zip(pyramid.eval().maps(dark), pyramid.maps(lit), strict=True):
            change = (one - other).abs().sum(1)[0]
            half = change.shape[0] // 2
            assert change[:half, half:].mean() == max(
                change[i * half : (i + 1) * half, j * half : (j + 1) * half].mean() for i in (0, 1) for j in (0, 1)
            )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"architecture": "tiny", "backbone": "test_vit"}, "does not go with downstream.architecture=tiny"),
        ({"architecture": "faster_rcnn_v2", "backbone": "test_vit"}, "architecture=faster_rcnn, retinanet or fcos"),
        ({"architecture": "fcos", "backbone": "test_vit", "weights": "coco"}, "no COCO weights"),
        ({"architecture": "fcos", "backbone": "test_vit", "trainable_layers": 3}, "as a whole"),
    ],
)
def test_options_that_no_backbone_of_timm_has_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(GenaugError, match=said):
        detector(**fields)  # type: ignore[arg-type]


def test_backbones_of_timm_that_do_not_suit_are_refused_with_the_reason() -> None:
    with pytest.raises(GenaugError, match=r"no model of timm.*Did you mean"):
        detector("fcos", backbone="test_rsnet").check("detection")
    with pytest.raises(GenaugError, match=r"downstream\.weights=none, or another backbone"):
        detector("fcos", backbone="wrn28_10_cifar", weights="backbone").check("detection")
    with pytest.raises(GenaugError, match=r"cannot see images of 64 x 32 px"):
        build_network(detector("fcos", backbone="maxvit_rmlp_pico_rw_256"), 2)
    with pytest.raises(GenaugError, match=r"feature maps of stride 14"):
        build_network(detector("fcos", backbone="vit_small_patch14_dinov2"), 2)


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
