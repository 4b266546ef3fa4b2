"""The shape of the code: imports point down the list of rooms, no circles, no long files, no private names of others.

Imports are read from the source, wherever they stand in it; those for type checking alone do not count.
"""

import ast
import functools
import importlib
import importlib.util
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

SRC = ROOT / "src"
ROOMS = (
    "core", "data", "drawing", "tracking", "priors", "generators", "downstream", "evaluation",
    "config", "config_source", "keys", "explanation", "composition", "choosing", "stages", "line", "runs", "tables",
)  # fmt: skip
"""Packages and files: each may import itself and those before it. Everything else (run, app, api, cli) is above them all."""
MOST_LINES = 350
PRIVATE = {
    "hydra._internal.core_plugins.basic_sweeper": "genaug.core.combinations",
    "omegaconf._utils.get_yaml_loader": "genaug.core.foreign",
}
"""Foreign names that are not public, and the only module that uses each, for want of a public way."""


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every module of ours by its name."""
    modules = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text())
    return modules


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports when it runs, inside functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from (name for other in node.orelse for name in imports(other))
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield from imports(node)


def room(module: str) -> str:
    """``downstream`` of ``genaug.downstream.trainer``; empty for what is above all rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


@functools.cache
def graph() -> dict[str, set[str]]:
    """Modules of ours that each module of ours imports."""
    edges: dict[str, set[str]] = {}
    for module, tree in sources().items():
        found = set()
        for name in imports(tree):
            while name and name not in sources():  # from a.b import c: a.b.c is a module, or a.b is
                name = name.rpartition(".")[0]
            if name:
                found.add(name)
        edges[module] = found - {module}
    return edges


def test_imports_point_down_the_list_of_rooms():
    height = {name: place for place, name in enumerate((*ROOMS, ""))}
    upwards = {
        (module, other)
        for module, others in graph().items()
        for other in others
        if module.startswith("genaug.") and height[room(other)] > height[room(module)] and other != "genaug"
    }
    assert upwards == set(), "an import points up"


def test_the_only_circles_are_a_config_with_its_implementation_in_one_package():
    for circle in circles():
        folders = {module.rpartition(".")[0] for module in circle}
        assert len(folders) == 1, f"{sorted(circle)} import each other"


def circles() -> list[set[str]]:
    """Groups of modules that reach each other."""
    reached = {module: _reachable(module) for module in graph()}
    groups = [{other for other in reached[module] if module in reached[other]} | {module} for module in graph()]
    return [group for i, group in enumerate(groups) if len(group) > 1 and group not in groups[:i]]


def _reachable(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for other in graph()[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def test_no_file_is_too_long_to_be_read():
    lengths = {path.relative_to(SRC).as_posix(): len(path.read_text().splitlines()) for path in SRC.rglob("*.py")}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set(), f"above {MOST_LINES} lines"


OF_NODES = ("_get_node", "_is_missing", "_is_none", "_is_interpolation", "_metadata", "_content", "_value")
"""Methods of OmegaConf's nodes for its own use; its public functions (``OmegaConf.is_missing`` …) do the same."""


def private_names() -> set[tuple[str, str]]:
    """(foreign private name, module of ours that uses it), of Hydra and OmegaConf."""
    used = set()
    for module, tree in sources().items():
        for name in imports(tree):
            if name.startswith(("hydra.", "omegaconf.")) and any(part.startswith("_") for part in name.split(".")):
                used.add((name, module))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in OF_NODES:
                used.add((node.attr, module))
    return used


def test_private_names_of_hydra_and_omegaconf_stand_in_one_place_each():
    assert private_names() == set(PRIVATE.items())


@pytest.mark.parametrize("name", PRIVATE)
def test_the_private_names_that_we_use_still_exist(name):
    module, _, member = name.rpartition(".")
    found = hasattr(importlib.import_module(module), member) or importlib.util.find_spec(name)
    assert found, f"{name} is gone: {PRIVATE[name]} needs another way"
