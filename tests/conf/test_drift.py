"""Presets that are meant to agree in values of ours do agree, save in what they are meant to differ in."""

import dataclasses

import pytest

from genaug.composition import compose_typed

SIDE_BY_SIDE = {
    ("amst_tiny", "classifier_tiny"): set(),
    ("probe_clean", "probe_ref"): {"bn_mode", "normalize", "select", "evaluation"},
    ("amst_scratch", "amst"): {"backbone", "mode", "backbone_lr_scale", "lr"},
    ("amst_figure", "amst"): {"num_rounds", "accumulate", "lambda_aux"},
    ("seed_label", "amst"): {"label"},
    ("soft_label", "amst"): {"label"},
    ("real_images", "amst"): {"label"},
    ("fixmatch", "amst"): {"label", "lambda_strong", "strong_num_ops"},
    ("flexmatch", "fixmatch"): {"label"},
    ("debiasmatch", "fixmatch"): {"label"},
    ("dst", "fixmatch"): {"label", "tau_c"},
    ("wrn28_10", "preact_resnet18"): {"backbone"},
    ("densenet_bc_190", "preact_resnet18"): {"backbone"},
    ("fcos", "retinanet"): {"architecture"},
    ("faster_rcnn_v2", "faster_rcnn"): {"architecture"},
    ("retinanet_v2", "retinanet"): {"architecture"},
    ("probe_ref_deit", "probe_ref"): {"backbone", "image_size"},
}
"""(preset, the one that holds its values): keys in which they differ on purpose."""


@pytest.mark.parametrize("pair", SIDE_BY_SIDE, ids=" ".join)
def test_presets_that_stand_side_by_side_differ_in_nothing_else(pair):
    one, other = (compose_typed([f"downstream={name}"]).downstream for name in pair)
    shared = {field.name for field in dataclasses.fields(one)} & {field.name for field in dataclasses.fields(other)}
    different = {key for key in shared - {"name"} if getattr(one, key) != getattr(other, key)}
    assert different == SIDE_BY_SIDE[pair]
