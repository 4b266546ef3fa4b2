"""The page of each method names its presets, and functions that exist."""

import dataclasses
import importlib
import re

import pytest

from tests.conftest import ROOT

PACKAGES = ROOT / "src" / "genaug" / "generators"
FAMILIES = {
    "collage": "generator/collage/*",
    "dalda": "generator/dalda*",
    "diff_ii": "generator/diff_ii*",
    "dreamda": "generator/dreamda*",
    "gif": "generator/gif*",
    "instances": "generator/instance_augmentation*",
    "lora": "generator/lora/*",
    "latent_interpolation": "generator/latent_interpolation*",
    "psld": "generator/psld*",
    "sdedit": "generator/*_fusion*",
    "tokens": "generator/tokens/*",
}


@pytest.mark.parametrize("package", FAMILIES)
def test_a_methods_page_names_all_its_presets(package: str) -> None:
    page = (PACKAGES / package / "README.md").read_text()
    for path in (ROOT / "conf").glob(f"{FAMILIES[package]}.yaml"):
        short = path.stem.replace(package, "", 1)  # `_64` after `latent_interpolation_32`
        assert f"`{path.stem}`" in page or f"`{short}`" in page or path.stem.endswith("_harmonised"), path.stem


@pytest.mark.parametrize("package", FAMILIES)
def test_a_methods_page_points_at_functions_that_exist(package: str) -> None:
    page = (PACKAGES / package / "README.md").read_text()
    config = importlib.import_module(f"genaug.generators.{package}.config")
    sections = [cls for cls in vars(config).values() if dataclasses.is_dataclass(cls)]
    keys = {f.name for cls in sections for f in dataclasses.fields(cls)}  # `solver.omega` is a key, no function
    found = 0
    for name, attribute in re.findall(r"`(\w+)\.(?!py`)(\w+)[.\w]*`", page):
        if (PACKAGES / package / f"{name}.py").exists() and attribute not in keys:
            assert hasattr(importlib.import_module(f"genaug.generators.{package}.{name}"), attribute), (
                f"{name}.{attribute}"
            )
            found += 1
    assert found >= 4
