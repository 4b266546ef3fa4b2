"""Components by group and name.

``@component("generator", "da_fusion")`` above a dataclass makes it known to Hydra as ``generator/_da_fusion``; a
preset ``conf/generator/da_fusion.yaml`` starts with ``defaults: [_da_fusion, _self_]`` and states its values. Packages
outside this repository add their own through the entry point group ``genaug.components``: each names a module whose import
registers them.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar

from genaug.core.fields import checked
from genaug.core.identity import identified

T = TypeVar("T")

COMPONENTS: dict[str, dict[str, type]] = {}
"""Every component that is declared so far, by group and name; ``config_source`` shows them to Hydra."""

MODULES = (
    "genaug.evaluation.filters",
    "genaug.data.mixing",
    "genaug.data.sources.coco",
    "genaug.data.sources.coco_classification",
    "genaug.data.sources.digit_scenes",
    "genaug.data.sources.digits",
    "genaug.data.sources.hub",
    "genaug.data.sources.image_folder",
    "genaug.data.sources.imagenet",
    "genaug.data.sources.leafy_spurge",
    "genaug.data.sources.mnist",
    "genaug.data.sources.shenzhen",
    "genaug.data.sources.torchvision_sets",
    "genaug.data.sources.voc",
    "genaug.data.sources.voc_classification",
    "genaug.data.sources.webdataset_shards",
    "genaug.data.sources.yolo",
    "genaug.data.augmentation",
    "genaug.downstream.self_training.config",
    "genaug.downstream.classification.config",
    "genaug.downstream.detection.config",
    "genaug.generators.sdedit.da_fusion",
    "genaug.generators.sdedit.diff_mix",
    "genaug.generators.dreamda.config",
    "genaug.generators.folder",
    "genaug.generators.latent_interpolation.config",
    "genaug.generators.none",
    "genaug.generators.psld.config",
    "genaug.generators.sdedit.real_guidance",
    "genaug.priors.leakage",
    "genaug.priors.config",
    "genaug.tracking.record",
    "genaug.downstream.trainer",
)
"""Modules that declare components, none of which imports torch at its top."""


def component(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Declare a config dataclass as ``<group>/_<name>``; ``<group>/<name>`` is its name in identities."""

    def register(cls: type[T]) -> type[T]:
        COMPONENTS.setdefault(group, {})[name] = cls
        return section(group.replace("/", "."), f"{group}/{name}")(cls)

    return register


def section(key: str, name: str) -> Callable[[type[T]], type[T]]:
    """Declare a config dataclass that is a part of a component (``generator.mask``): its fields are checked under ``key``, and
    ``name`` stands for it in identities."""

    def register(cls: type[T]) -> type[T]:
        return identified(name)(checked(key, cls))

    return register


def load_components() -> None:
    """Import every module that declares components, this package's and those of installed plug-ins."""
    for module in MODULES:
        importlib.import_module(module)
    for entry in entry_points(group="genaug.components"):
        entry.load()
