"""Components by group and name, as Hydra sees them.

``@component("generator", "da_fusion")`` above a dataclass stores it in Hydra's ConfigStore as ``generator/_da_fusion``; a
preset ``conf/generator/da_fusion.yaml`` starts with ``defaults: [_da_fusion, _self_]`` and states its values. Packages
outside this repository add their own through the entry point group ``genaug.components``: each names a module whose import
registers them.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar

from hydra.core.config_store import ConfigStore

T = TypeVar("T")

MODULES = (
    "genaug.data.sources.digits",
    "genaug.data.sources.image_folder",
    "genaug.data.sources.voc",
    "genaug.data.sources.coco",
    "genaug.data.sources.yolo",
    "genaug.data.sources.digit_scenes",
    "genaug.data.sources.mnist",
    "genaug.data.sources.voc_classification",
    "genaug.data.sources.coco_classification",
    "genaug.data.sources.leafy_spurge",
    "genaug.data.sources.torchvision_sets",
    "genaug.data.sources.imagenet",
    "genaug.data.sources.shenzhen",
    "genaug.data.sources.hub",
    "genaug.data.sources.webdataset_shards",
    "genaug.data.filters",
    "genaug.data.mixing",
    "genaug.data.transforms",
    "genaug.priors.config",
    "genaug.generators.none",
    "genaug.generators.real_guidance",
    "genaug.generators.da_fusion",
    "genaug.generators.psld",
    "genaug.downstream.classifier",
    "genaug.downstream.detector",
    "genaug.generators.latent_interpolation",
    "genaug.generators.diff_mix",
    "genaug.generators.dreamda",
    "genaug.downstream.amst",
    "genaug.leakage",
    "genaug.trainer",
    "genaug.tracking",
    "genaug.paths",
)
"""Modules that declare components, none of which imports torch at its top."""


def component(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a config dataclass as ``<group>/_<name>``."""

    def register(cls: type[T]) -> type[T]:
        ConfigStore.instance().store(group=group, name=f"_{name}", node=cls)
        return cls

    return register


def load_components() -> None:
    """Import every module that declares components, this package's and those of installed plug-ins."""
    for module in MODULES:
        importlib.import_module(module)
    for entry in entry_points(group="genaug.components"):
        entry.load()
