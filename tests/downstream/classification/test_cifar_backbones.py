"""The networks of the mixup papers for 32 px: sizes as published, and names that timm knows."""

import pytest
import timm
import torch

from genaug.downstream.classification.backbones import check_backbone, make_backbone

# facebookresearch/mixup-cifar10 and the papers print 11.17, 36.5 and 25.6 million
COUNTS = {"preact_resnet18_cifar": 11_171_146, "wrn28_10_cifar": 36_479_194, "densenet_bc_190_cifar": 25_624_430}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters_with_ten_classes(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name]


@pytest.mark.parametrize(
    "name, side", [("preact_resnet18_cifar", 4), ("wrn28_10_cifar", 8), ("densenet_bc_190_cifar", 8)]
)
def test_last_map_and_feature_vector(name, side):
    check_backbone(name, pretrained=False, weights_path=None)
    with torch.device("meta"):
        backbone = make_backbone(name, 32, pretrained=False, weights_path=None)
        x = torch.zeros(2, 3, 32, 32)
        assert backbone.stages(backbone.stem(x)).shape[-1] == side
        assert backbone(x).shape == (2, backbone.head_hidden_size)
    assert [backbone.get_submodule(info["module"]) is not None for info in backbone.feature_info].count(True) >= 4
