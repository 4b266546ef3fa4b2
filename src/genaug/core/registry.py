"""Components by group and name.

``@component("generator", "da_fusion")`` above a dataclass makes it known to Hydra as ``generator/_da_fusion``; a
preset ``conf/generator/da_fusion.yaml`` starts with ``defaults: [_da_fusion, _self_]`` and states its values.

Nobody keeps a list of components. Every module of this package with a line that begins with ``@component(`` is imported when
a configuration is composed, and no other is, so it must import nothing slow at its top: torch, diffusers, transformers, timm
and the like stand in the module that does the work, which is imported inside the component's methods. Packages outside
this repository add their own through the entry point group ``genaug.components``: each names a module to import.
"""

import functools
import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from genaug.core.errors import GenaugError
from genaug.core.fields import checked
from genaug.core.identity import identified

T = TypeVar("T")

DECLARATION = b"\n@component("

COMPONENTS: dict[str, dict[str, type]] = {}
"""Every component that is declared so far, by group and name; ``config_source`` shows them to Hydra."""


def component(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Declare a config dataclass as ``<group>/_<name>``; ``<group>/<name>`` is its name in identities.

    Raises:
        GenaugError: if the class is no dataclass yet, or another one has this name.
    """

    def register(cls: type[T]) -> type[T]:
        where = f"{cls.__module__}.{cls.__qualname__}"
        if "__dataclass_fields__" not in vars(cls):
            raise GenaugError(
                f"{where} is no dataclass: write @dataclass(kw_only=True, slots=True) below @component({group!r}, {name!r})."
            )
        other = COMPONENTS.setdefault(group, {}).setdefault(name, cls)
        if (known := f"{other.__module__}.{other.__qualname__}") != where:
            raise GenaugError(f"{known} and {where} are both called {group}/{name}. Give one of them another name.")
        COMPONENTS[group][name] = cls
        return section(group.replace("/", "."), f"{group}/{name}")(cls)

    return register


def section(key: str, name: str) -> Callable[[type[T]], type[T]]:
    """Declare a config dataclass that is a part of a component (``generator.mask``): its fields are checked under ``key``, and
    ``name`` stands for it in identities."""

    def register(cls: type[T]) -> type[T]:
        return identified(name)(checked(key, cls))

    return register


@functools.cache
def load_components() -> None:
    """Import every module that declares components, this package's and those of installed plug-ins, once per process."""
    for module in declaring_modules():
        importlib.import_module(module)
    for entry in entry_points(group="genaug.components"):
        entry.load()


def declaring_modules() -> list[str]:
    """Names of this package's modules with a line that begins with ``@component(``: their text is read, nothing is imported."""
    root = Path(__file__).parents[1]
    files = [file.relative_to(root.parent) for file in sorted(root.rglob("*.py")) if DECLARATION in file.read_bytes()]
    return [".".join(file.with_suffix("").parts) for file in files]
