"""Every preset and every experiment composes to a typed configuration."""

import pytest

from tests.conftest import ROOT
from tests.golden.identities import compose

GROUPS = ("dataset", "prior", "leakage", "generator", "mix", "augment", "downstream", "trainer", "tracking")
PRESETS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
EXPERIMENTS = sorted(
    p.relative_to(ROOT / "experiments").with_suffix("").as_posix() for p in (ROOT / "experiments").rglob("*.yaml")
)


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_under_its_own_name(group, name):
    preset = getattr(compose(f"{group}={name}"), group)
    of_the_users = group == "dataset" and getattr(preset, "root", getattr(preset, "path", None)) == "somewhere"
    assert getattr(preset, "name", name) == ("somewhere" if of_the_users and name != "mnist" else name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name):
    assert compose(f"experiment={name}").experiment == name


@pytest.mark.parametrize("name", [name for group, name in PRESETS if group == "downstream"])
def test_the_operations_of_every_downstream_network_are_known(name):
    work = compose(f"downstream={name}").downstream.forward_passes()
    assert work.count > 0 and work.gflop is not None, "run benchmarks/forward_gflop.py"


def test_the_operations_of_a_backbone_are_those_that_torch_counts():
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from genaug.core.cost import forward_gflop

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        timm.create_model("test_resnet", num_classes=10).eval()(torch.zeros(1, 3, 32, 32))
    assert forward_gflop("test_resnet", 32) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-3)
