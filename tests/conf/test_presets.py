"""Every preset and every experiment composes to a typed configuration."""

import re

import pytest

from genaug.app import compose_typed
from tests.conftest import ROOT

GROUPS = ("dataset", "prior", "leakage", "generator", "mix", "augment", "downstream", "trainer", "tracking")
PRESETS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
EXPERIMENTS = sorted(
    p.relative_to(ROOT / "experiments").with_suffix("").as_posix() for p in (ROOT / "experiments").rglob("*.yaml")
)


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_under_its_own_name(group, name):
    overrides = [f"{group}={name}"]
    if group == "dataset":
        overrides += [f"dataset.{key}=somewhere" for key in re.findall(r"^(root): \?\?\?", _schema(name), re.MULTILINE)]
    preset = getattr(compose_typed(overrides), group)
    if hasattr(preset, "name"):
        assert preset.name == name


def _schema(name: str) -> str:
    return "root: ???" if name == "image_folder" else ""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name):
    assert compose_typed([f"experiment={name}"]).experiment == name
