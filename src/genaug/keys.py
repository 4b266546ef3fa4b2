"""The presets and keys that there are, and what they mean: docstrings and rules as they stand in the source."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from genaug.config import RunConfig
from genaug.config_source import component_of, files_of
from genaug.core.paths import presets
from genaug.core.registry import COMPONENTS, load_components


def known_keys() -> dict[str, set[str]]:
    """Keys that some choice of each group accepts, e.g. ``{"mix": {"alpha", "m", "name"}, "": {"seed", …}}``."""
    root = OmegaConf.structured(RunConfig)
    keys: dict[str, set[str]] = {"": set(root)}
    for group in map(str, root):  # those with one fixed type, e.g. paths
        if not OmegaConf.is_missing(root, group) and isinstance(root[group], DictConfig):
            keys[group] = set(root[group])
    for group, components in COMPONENTS.items():
        for component in components.values():
            node = OmegaConf.structured(component)
            keys.setdefault(group.replace("/", "."), set()).update(map(str, node))
            for key in node:
                if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, str(key)):
                    continue
                if isinstance(node[key], DictConfig):
                    keys.setdefault(f"{group}.{key}", set()).update(map(str, node[key]))
    return keys


def explain_presets(group: str) -> list[tuple[str, str]]:
    """The presets of a group, each with the comment at the head of its file."""
    found = []
    for name in presets()[group]:
        text = files_of(group, name)[0].read_text(encoding="utf-8")
        head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        found.append((name, " ".join(line.lstrip("# ") for line in head)))
    return found


def explain_fields(component: Any, indent: str = "") -> list[tuple[str, str, str, str]]:
    """(key, value, docstring, rule) of every field of a config dataclass: its docstring read from the source, its rule in words
    as it is enforced, e.g. ``at least 1``; each empty where there is none."""
    docs = _docstrings(type(component))
    rows = []
    for f in fields(component):
        value = getattr(component, f.name)
        if is_dataclass(value):
            rows.append((indent + f.name, "", docs.get(f.name, ""), ""))
            rows += explain_fields(value, indent + f.name + ".")
        else:
            rows.append((indent + f.name, str(value), docs.get(f.name, ""), str(f.metadata.get("rule", ""))))
    return rows


def explain_meaning(key: str) -> dict[tuple[str, str], list[str]]:
    """What a key such as ``generator.t0`` means: the presets that have it by (docstring, rule); nothing if none has it. A key
    that belongs to no preset, e.g. ``seed``, has an empty list of them."""
    meanings: dict[tuple[str, str], list[str]] = {}
    for name, owner, found in _owners(key):
        rule = str(found.metadata.get("rule", ""))
        meanings.setdefault((_docstrings(owner).get(found.name, ""), rule), []).extend([name] if name else [])
    return meanings


def known_options(key: str) -> list[str]:
    """What a key such as ``prior.dtype`` may hold, where it is one of a few words; nothing for others."""
    options: dict[str, None] = {}
    for _, owner, found in _owners(key):
        rule = found.metadata.get("rule")
        options |= dict.fromkeys(map(str, rule.options if rule is not None else ()))
        options |= dict.fromkeys(("false", "true") if bool in _types(owner, found.name) else ())
    return list(options)


def _owners(key: str) -> Iterator[tuple[str, type, Field[Any]]]:
    """Each preset that has a key, with the class and the field; an empty name where the key belongs to no preset."""
    load_components()
    group, _, leaf = key.partition(".")
    components = {name: COMPONENTS.get(group, {}).get(component_of(group, name)) for name in presets().get(group, [])}
    owners = [(name, component) for name, component in components.items() if component is not None]
    for name, owner in owners or [("", RunConfig)]:
        *parents, last = (leaf if owners else key).split(".")
        for parent in parents:
            owner = next((kind for kind in _types(owner, parent) if isinstance(kind, type)), object)
        found = {f.name: f for f in fields(owner)} if is_dataclass(owner) else {}
        if last in found:
            yield name, owner, found[last]


def _types(owner: type, name: str) -> tuple[Any, ...]:
    """The types that a field may have: ``Erasure | None`` has two."""
    hint = get_type_hints(owner).get(name) if is_dataclass(owner) else None
    return get_args(hint) or (hint,)


def _docstrings(component: type) -> dict[str, str]:
    """The text below each field of a dataclass and its parents, read from the source."""
    docs: dict[str, str] = {}
    for cls in filter(is_dataclass, reversed(component.__mro__)):
        docs |= _own_docstrings(cls)
    return docs


@functools.cache
def _own_docstrings(cls: type) -> dict[str, str]:
    import ast
    import inspect
    import textwrap

    docs = {}
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[statement.target.id] = " ".join(value.value.split())
    return docs
