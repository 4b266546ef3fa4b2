"""From overrides to typed configurations: of one run, and of all runs of a sweep without composing each as a whole.

For a sweep, Hydra composes once for each choice of presets. A component is built once for each setting of the values that it
can read, and the configurations that agree in it share the object.
"""

import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from genaug.config import RunConfig
from genaug.config_source import EXPERIMENT, component_of, register
from genaug.core.errors import GenaugError
from genaug.core.paths import presets
from genaug.core.registry import COMPONENTS, load_components
from genaug.core.words import readable
from genaug.explanation import explain, explain_key

OF_HYDRA = ("output", "help", "hydra_help", "env", "hydra_logging", "job_logging", "sweeper", "launcher")
"""The groups of Hydra's own part of a configuration."""


def sets_value(override: str) -> bool:
    """Whether an override (``mix.alpha=0.7``, ``seed=3``) sets a value and chooses no preset, experiment or group.

    Values may be set on a configuration that was composed before; whatever else a word may be is left to Hydra.
    """
    key = override.split("=", 1)[0]
    return key in ("seed", "task") or (
        "." in key and key.replace(".", "").isidentifier() and not key.startswith("hydra.")
    )


def checked(words: Sequence[str]) -> list[str]:
    """The words of a command line as Hydra can read them, each choice of a preset being one.

    Raises:
        GenaugError: for ``generator=null``, ``generator=3``, ``~generator`` and the like, and for what is no list of strings.
    """
    if isinstance(words, str):
        raise GenaugError(f"Overrides are a list with a string for each: write {words.split()}.")
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise GenaugError(
            f'Overrides are a list with a string for each, e.g. ["generator=none", "seed=1"], not {str(words)[:80]}.'
        )
    words = readable(words)
    for word in words:
        if sets_value(word) or word.startswith("-"):
            continue
        try:
            override = _parse(word)
        except HydraException:  # said by whoever composes
            continue
        group, value = override.key_or_group, override.value()
        if not group:
            raise GenaugError(f"{word} has no key: write KEY=VALUE.")
        chosen = [] if override.is_delete() else value.list if isinstance(value, ChoiceSweep) else [value]
        if chosen and all(isinstance(name, str | QuotedString | Glob) for name in chosen):
            continue
        names = presets().get(group, [])
        if group in (EXPERIMENT, "preset") or group.startswith("hydra/"):
            raise GenaugError(f"{word} names no preset: leave {group} out, or name one.")
        if "none" in names and all(name is None for name in chosen):
            raise GenaugError(f"{word} names no preset: write {group}=none.")
        if names:
            raise GenaugError(f"{word} names no preset. There are: {', '.join(f'{group}={name}' for name in names)}.")
    return words


@dataclass(frozen=True, slots=True)
class _Base:
    """What Hydra composed for one choice of presets."""

    config: DictConfig
    plain: dict[str, Any]
    """The same as plain values, interpolations as they are written."""
    reads: dict[str, set[str]]
    """For each key of the top level, those whose values it can read: itself and, through interpolations, others."""


class Composer:
    """``composer(["generator=psld", "seed=3"])`` is the configuration of that job."""

    def __init__(self, compose: Callable[[list[str]], DictConfig]):
        """``compose`` gives Hydra's configuration of some choices, without its ``hydra`` section."""
        self.compose = compose
        self.bases: dict[tuple[str, ...], _Base] = {}
        self.parts: dict[tuple[tuple[str, ...], str, tuple[str, ...]], Any] = {}
        self.last: dict[tuple[str, ...], tuple[list[str], DictConfig]] = {}
        """For each choice of presets, the keys that the last job has set, and the configuration that it left."""

    def __call__(self, overrides: Sequence[str]) -> RunConfig:
        choices = tuple(text for text in overrides if not sets_value(text))
        values = [text for text in overrides if sets_value(text)]
        base = self._base(choices)
        anywhere = any("${" in text for text in values)  # a value that refers to others
        config: DictConfig | None = None
        parts: dict[str, Any] = {}
        begins = [(text, _parse(text).key_or_group.partition(".")[0]) for text in values]
        for name, read in base.reads.items():
            seen = tuple(text for text, begin in begins if anywhere or begin in read)
            key = (choices, name, seen)
            if key not in self.parts:
                config = config or self._with_values(choices, values)
                part = config[name]
                self.parts[key] = OmegaConf.to_object(part) if OmegaConf.is_config(part) else part
            parts[name] = self.parts[key]
        return RunConfig(**parts)

    def _with_values(self, choices: tuple[str, ...], values: Sequence[str]) -> DictConfig:
        """Hydra's configuration of these choices with the values set; where a job sets the keys of the job before it, as those
        of a sweep do, each to a plain value, it sets them on that one's."""
        overrides = [_parse(text) for text in values]
        keys = [override.key_or_group for override in overrides]
        former, config = self.last.pop(choices, (None, self.bases[choices].config))
        is_new = former != keys
        config = copy.deepcopy(self.bases[choices].config) if is_new else config
        for override in overrides:
            try:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            except (ConfigAttributeError, ConfigKeyError) as error:
                raise ConfigCompositionException(f"Could not override '{override.key_or_group}'") from error
        if is_new:
            check_keys(config)
        if not any(isinstance(override.value(), dict | list) for override in overrides):
            self.last[choices] = keys, config
        return config

    def _base(self, choices: tuple[str, ...]) -> _Base:
        if choices not in self.bases:
            config = self.compose(list(choices))
            plain: Any = OmegaConf.to_container(config, resolve=False)
            self.bases[choices] = _Base(config, plain, _reads(plain))
        return self.bases[choices]

    def fitting(self, jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
        """The jobs of a sweep, each with the keys that its components have: ``generator.t0=0.2`` beside
        ``generator=none,da_fusion`` says nothing of ``none``. A key that no job has stays, so that it is refused.

        Returns:
            the jobs, each once, and a sentence for each key that some of them do not have.
        """
        lacking: dict[str, dict[str, bool]] = {}  # by key, then by the choice of its group: whether that has it
        places: list[_Base | None] = []
        seen: set[tuple[tuple[str, ...], str]] = set()
        for job in jobs:
            choices = tuple(text for text in job if not sets_value(text))
            try:
                base = self._base(choices)
            except Exception:  # said where this job is composed
                places.append(None)
                continue
            places.append(base)
            for key in (_parse(text).key_or_group for text in job if sets_value(text)):
                if (choices, key) in seen:
                    continue
                seen.add((choices, key))
                group, config = key.partition(".")[0], base.config
                chosen = (
                    str(OmegaConf.select(config, f"{group}.name")) if OmegaConf.is_dict(config.get(group)) else group
                )
                lacking.setdefault(key, {})[chosen] = _has(base, key)
        partial = {key: found for key, found in lacking.items() if len(set(found.values())) == 2}
        kept: dict[tuple[str, ...], list[str]] = {}
        for job, base in zip(jobs, places, strict=True):
            words = [
                text
                for text in job
                if base is None
                or not sets_value(text)
                or (key := _parse(text).key_or_group) not in partial
                or _has(base, key)
            ]
            kept.setdefault(tuple(words), words)
        notes = [
            f"{key} applies to {', '.join(name for name, has in found.items() if has)}, not to "
            f"{', '.join(name for name, has in found.items() if not has)}"
            for key, found in partial.items()
        ]
        return list(kept.values()), notes


def _has(base: _Base, key: str) -> bool:
    """Whether a composed configuration has a dotted key."""
    node: Any = base.plain
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _reads(plain: dict[str, Any]) -> dict[str, set[str]]:
    names = set(map(str, plain))
    reads: dict[str, set[str]] = {}
    for name, content in plain.items():
        text = str(content)
        paths = re.findall(r"\$\{\s*([^:${}\s]+)\s*\}", text)
        named = {path.partition(".")[0] for path in paths}
        alone = named <= names and len(paths) == text.count(
            "${"
        )  # else relative, nested or a resolver: it may lead anywhere
        reads[str(name)] = {str(name)} | (named if alone else names)
    while any(reads[other] - read for read in reads.values() for other in read):
        for read in reads.values():
            read |= {name for other in read for name in reads[other]}
    return reads


@functools.cache
def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def without_hydra(words: Sequence[str], *kept: str) -> list[str]:
    """Words of a composition of which Hydra's own part is thrown away: without its groups but ``kept``, it takes a quarter less
    time. Words that speak of Hydra's part stay as they are."""
    if any("hydra" in word.partition("=")[0] for word in words):
        return list(words)
    return [*words, *(f"~hydra/{group}" for group in OF_HYDRA if group not in kept)]


def composer_of(loader: ConfigLoader, master: DictConfig) -> Composer:
    """The composer of a sweep's jobs, as its sweeper and its launcher see them."""

    def compose(choices: list[str]) -> DictConfig:
        config = loader.load_sweep_config(master, choices)
        with open_dict(config):
            del config["hydra"]
        return config

    return Composer(compose)


def compose_typed(overrides: list[str]) -> RunConfig:
    """The configuration that ``python train.py <overrides>`` would run."""
    conf = register()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            config = hydra.compose("config", without_hydra(checked(overrides)))
            with open_dict(config):
                config.pop("hydra", None)
            return typed(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise GenaugError(explain(error)) from error


def compose_whole(choice: str) -> RunConfig:
    """The configuration of one preset, for a look at its keys: a key that a user has to give holds ``NEEDED``, and a detector
    stands with data that have boxes."""
    group, _, name = choice.partition("=")
    words = [choice]
    load_components()
    if group == "downstream" and name in presets()[group]:
        detects = COMPONENTS[group][component_of(group, name)].task == "detection"  # type: ignore[attr-defined]
        words += ["dataset=digit_scenes", "augment=none"] if detects else []
    while True:
        try:
            config = compose_typed(words)
            config.dataset.name = config.dataset.name.replace("NEEDED", "")  # a folder's own, unless it is given one
            return config
        except GenaugError as error:
            needed = re.match(r"([\w.]+) is needed here", str(error))
            if needed is None:
                raise
            words.append(f"{needed[1]}=NEEDED")


def typed(config: DictConfig) -> RunConfig:
    """The typed configuration; from here on nobody sees a DictConfig.

    Raises:
        GenaugError: as ``check_keys`` and the components do.
    """
    check_keys(config)
    result = OmegaConf.to_object(config)
    assert isinstance(result, RunConfig)
    return result


def check_keys(config: DictConfig) -> None:
    """Raise ``GenaugError`` for a key that no component has (appended with ``+``), naming the nearest one."""
    for key in _unknown_keys(config, ""):
        raise GenaugError(explain_key(key))


def _unknown_keys(node: DictConfig, prefix: str) -> list[str]:
    kind = OmegaConf.get_type(node)
    fields = {f.name for f in dataclasses.fields(kind)} if kind is not None and dataclasses.is_dataclass(kind) else None
    unknown = []
    for key, child in node.items_ex(resolve=False):
        if fields is not None and key not in fields:
            unknown.append(f"{prefix}{key}")
        elif isinstance(child, DictConfig) and len(child):  # 0 of one that is missing, None or an interpolation
            unknown += _unknown_keys(child, f"{prefix}{key}.")
    return unknown
