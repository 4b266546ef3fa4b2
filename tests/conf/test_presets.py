"""Every preset composes to a typed configuration whose identity is on record, so that no commit changes one unawares."""

import pytest

from tests.golden.identities import PRESETS, changed, component_of, of_preset, with_preset


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_a_preset_composes_under_its_own_name_with_the_identity_on_record(group, name):
    config = with_preset(group, name)
    preset = component_of(config, group)
    of_the_users = group == "dataset" and getattr(preset, "root", getattr(preset, "path", None)) == "somewhere"
    assert getattr(preset, "name", name) == ("somewhere" if of_the_users and name != "mnist" else name)
    assert not (lines := changed(f"{group}/{name}", of_preset(config, group, name))), lines
    if group == "downstream":
        work = preset.forward_passes()
        assert work.count > 0 and work.gflop is not None, "run benchmarks/forward_gflop.py"


def test_the_operations_of_a_backbone_are_those_that_torch_counts():
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from genaug.core.cost import forward_gflop

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        timm.create_model("test_resnet", num_classes=10).eval()(torch.zeros(1, 3, 32, 32))
    assert forward_gflop("test_resnet", 32) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-3)
