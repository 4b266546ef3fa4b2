"""Where Hydra finds what is not in ``conf/``: components by their dataclasses, and ``experiments/``, each read when asked for.

Hydra copies its own ConfigStore for every composition and for every group that ``--help`` lists, so nothing of ours is kept
in it. ``register`` adds this source to the search path of this process alone: other Hydra applications see nothing of it.
What was read is kept pickled, which loads six times faster than a ``DictConfig`` is copied, and sixty times than YAML is read.
"""

import functools
import pickle
import warnings
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genaug.config import RunConfig
from genaug.core.errors import GenaugError
from genaug.core.foreign import read_foreign_yaml, read_yaml
from genaug.core.paths import experiment_files, presets, project_root, roots
from genaug.core.registry import COMPONENTS, load_components

EXPERIMENT, SMOKE = "experiment", "reduced/smoke"
"""Groups that ``experiments/`` fills: what an experiment sets, and what ``preset=smoke`` changes in it (its ``smoke:``)."""
SMALLEST = "smallest/debug"
"""Group that ``Generator.smallest`` fills, by the generator's presets: what ``preset=debug`` changes in it."""


# a launcher's preset of ours is meant to be checked against the plugin's of the same name
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


class GenaugSource(ConfigSource):
    """``genaug://<checkout>`` holds ``generator/_da_fusion``, ``experiment/demo/compare``, ``reduced/smoke/demo/compare`` …"""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        load_components()
        files = experiment_files()
        self.entries: dict[str, type | Path] = {"run_config": RunConfig}
        for group, components in COMPONENTS.items():
            self.entries |= {f"{group}/_{name}": component for name, component in components.items()}
        for section in (EXPERIMENT, SMOKE):
            self.entries |= {f"{section}/{item}": file for item, file in files.items()}
        self.groups = {""}
        for name in (*self.entries, f"{SMALLEST}/"):
            while name := name.rpartition("/")[0]:
                self.groups.add(name)

    def __deepcopy__(self, memo: Any) -> "GenaugSource":
        """Itself, for nothing in it changes: Hydra copies its sources for every composition."""
        return self

    @staticmethod
    def scheme() -> str:
        return "genaug"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in self.groups

    def is_config(self, config_path: str) -> bool:
        config_path = config_path.removesuffix(".yaml")
        group, _, name = config_path.rpartition("/")
        return config_path in self.entries or (group == SMALLEST and bool(files_of("generator", name)))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        kinds = {ObjectType.GROUP: self.groups, ObjectType.CONFIG: self.entries}
        paths = [path for kind, found in kinds.items() if results_filter in (None, kind) for path in found if path]
        return sorted({name for parent, _, name in (path.rpartition("/") for path in paths) if parent == config_path})

    def load_config(self, config_path: str) -> ConfigResult:
        config_path = config_path.removesuffix(".yaml")
        entry = self.entries.get(config_path)
        if config_path.startswith(f"{SMALLEST}/"):
            generator = COMPONENTS["generator"][component_of("generator", config_path.removeprefix(f"{SMALLEST}/"))]
            config = OmegaConf.create({"generator": generator.smallest} if generator.smallest else {})  # type: ignore[attr-defined]
            return ConfigResult(
                provider=self.provider, path=self.full_path(), config=config, header={"package": "_global_"}
            )
        if entry is None:
            raise ConfigLoadError(f"There is no component and no experiment {config_path}.")
        package = None
        if isinstance(entry, Path):
            item = config_path.removeprefix(f"{EXPERIMENT}/").removeprefix(f"{SMOKE}/")
            cell, smoke = _read(entry, entry.stat().st_mtime_ns, item)
            kept, package = smoke if config_path.startswith(f"{SMOKE}/") else cell, "_global_"
        else:
            kept = _structured(entry)
        config = pickle.loads(kept)
        return ConfigResult(provider=self.provider, path=self.full_path(), config=config, header={"package": package})


class KeptSource(ConfigSource):
    """``kept://file:///…/conf`` is ``file:///…/conf``, of which each file is read again only where it has changed."""

    kept: ClassVar[dict[tuple[str, str, tuple[int, int] | None], bytes]] = {}
    """What was read, by source, name, and the file's time and size."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        found: list[Any] = Plugins.instance().discover(ConfigSource)
        sources: dict[str, type[ConfigSource]] = {source.scheme(): source for source in found}
        self.of = sources[self.path.partition("://")[0]](provider, self.path)

    def __deepcopy__(self, memo: Any) -> "KeptSource":
        return self

    @staticmethod
    def scheme() -> str:
        return "kept"

    def available(self) -> bool:
        return self.of.available()

    def is_group(self, config_path: str) -> bool:
        return self.of.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self.of.is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return self.of.list(config_path, results_filter)

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.of.path, f"{config_path.removesuffix('.yaml')}.yaml")
        state = file.stat() if file.is_file() else None
        key = (self.full_path(), config_path, state and (state.st_mtime_ns, state.st_size))
        if key not in self.kept:
            if state is not None:
                check_preset(file, config_path.rpartition("/")[0])
            self.kept[key] = pickle.dumps(self.of.load_config(config_path))
        found = pickle.loads(self.kept[key])
        component = _component_below(config_path, found)
        return found if component is None else pickle.loads(_merged(component, self.kept[key]))


class GenaugSearchPath(SearchPathPlugin):
    """Puts the current folder's ``conf/`` before the project's and the source behind it, whatever ``hydra.searchpath`` adds."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for root in roots()[:-1]:
            search_path.prepend(provider="own", path=str(root / "conf"), anchor="main")
        for element in search_path.get_path():
            scheme, _, place = (element.path or "").rpartition("://")
            if place and scheme in ("", "file", "pkg"):
                element.path = f"kept://{scheme or 'file'}://{place}"
        search_path.append(provider="genaug", path=f"genaug://{project_root()}")


def register() -> Path:
    """Make components, experiments and the list of presets known to Hydra; returns the conf folder."""
    for plugin in (GenaugSource, KeptSource, GenaugSearchPath):
        Plugins.instance().register(plugin)
    OmegaConf.register_new_resolver("presets", list_presets, replace=True)
    store = ConfigStore.instance()
    store.__deepcopy__ = lambda memo: store  # type: ignore[attr-defined]  # what it holds is copied where it is read
    return project_root() / "conf"


def check_preset(file: Path, group: str) -> None:
    """Raise ``GenaugError`` for the file of a preset that cannot be read, whose ``defaults`` name no presets, or that
    configures no component of its group."""
    entries = read_yaml(file).get("defaults", [])
    base = next((name for name in presets().get(group, ()) if name != file.stem), "default")
    if not isinstance(entries, list):
        raise GenaugError(f"defaults in {file} must be a list, e.g. defaults: [{base}, _self_].")
    for entry in entries:
        (chosen,) = entry.values() if isinstance(entry, dict) and len(entry) == 1 else (entry,)
        names = chosen if isinstance(chosen, list) and chosen is not entry else [chosen]
        if not all(isinstance(name, str) or (name is None and isinstance(entry, dict)) for name in names):
            raise GenaugError(f"{entry} in the defaults of {file} names no preset: write NAME, or GROUP: NAME.")
        if group not in COMPONENTS or not isinstance(entry, str) or entry == "_self_":
            continue
        _chain(group, entry)  # refuses a circle, in which Hydra would go round
        name = entry.removeprefix("_")
        if name != entry and name not in COMPONENTS[group]:
            raise GenaugError(
                f"{file} builds on {entry}, and no class is declared by @component({group!r}, {name!r}). Write that above it, "
                "in a file of genaug, or in a module that an installed package names as an entry point of genaug.components."
            )
    if group in COMPONENTS and not any(isinstance(entry, str) and entry != "_self_" for entry in entries):
        raise GenaugError(
            f"{file} does not say which {group} it changes: begin with a preset or a component, e.g. "
            f"defaults: [{base}, _self_]."
        )


def files_of(group: str, name: str) -> list[Path]:
    """The files of a preset, the current folder's first."""
    return [file for root in roots() if (file := root / "conf" / group / f"{name}.yaml").is_file()]


def component_of(group: str, name: str) -> str:
    """The component that a preset configures, e.g. ``dreamda``: where the first lines of its ``defaults`` lead."""
    return _built_on(group, name)[1]


def stated(group: str, name: str, key: str) -> Any:
    """What a preset's file, or one that it builds on, says of a key; None if none does."""
    return next((content[key] for content in _built_on(group, name)[0] if key in content), None)


def _built_on(group: str, name: str) -> tuple[list[DictConfig], str]:
    """The file of a preset and those that it builds on, its own first, and the component at their end.

    Raises:
        GenaugError: if there is no such preset.
    """
    contents, name = _chain(group, name)
    if not name.startswith("_"):
        raise GenaugError(f"There is no preset {group}={name}.")
    return contents, name.removeprefix("_")


def _chain(group: str, name: str) -> tuple[list[DictConfig], str]:
    """The contents of a preset's file and of those that it builds on, and the name at their end, of which there is no file.

    Raises:
        GenaugError: if a preset builds on itself, at once or by way of others.
    """
    names: list[str] = []
    contents: list[DictConfig] = []
    while files := files_of(group, name):
        if name in names:
            ways = ", ".join(other for other in names[names.index(name) :] if other != name)
            raise GenaugError(
                f"{files[0]} builds on itself{ways and f' by way of {ways}'}: give it a name of its own, or write what it "
                "builds on."
            )
        content = OmegaConf.load(files[0])
        assert isinstance(content, DictConfig)
        names.append(name)
        contents.append(content)
        name = next((base for base in content.get("defaults", ()) if isinstance(base, str)), "_self_")
    return contents, name


def list_presets() -> str:
    """The presets of every group, for ``--help``."""
    lines = [f"{group:<17} {', '.join(names)}" for group, names in presets().items()]
    papers: dict[str, list[str]] = {}
    for paper, _, item in (name.rpartition("/") for name in sorted(experiment_files())):
        papers.setdefault(paper, []).append(item)
    lines += [f"experiment={f'{paper}/…' if paper else ''}  {', '.join(found)}" for paper, found in papers.items()]
    return "\n".join(lines)


@functools.cache
def _structured(component: type) -> bytes:
    return pickle.dumps(OmegaConf.structured(component))


def _component_below(preset: str, found: ConfigResult) -> type | None:
    """The component that a preset builds on, where it builds on nothing else: ``defaults: [_mixup, _self_]``."""
    defaults = found.config.get("defaults") if isinstance(found.config, DictConfig) else None
    if found.header["package"] is not None or defaults is None or len(defaults) != 2 or defaults[1] != "_self_":
        return None
    group, base = preset.rpartition("/")[0], str(defaults[0])
    return COMPONENTS.get(group, {}).get(base.removeprefix("_")) if base.startswith("_") else None


@functools.cache
def _merged(component: type, preset: bytes) -> bytes:
    """A preset with the component's values below its own, as Hydra would merge them for each composition."""
    found = pickle.loads(preset)
    own = {key: value for key, value in found.config.items_ex(resolve=False) if key != "defaults"}
    try:
        found.config = OmegaConf.merge(OmegaConf.structured(component), own)
    except OmegaConfBaseException:  # a wrong key or value, of which Hydra says where it stands
        return preset
    return pickle.dumps(found)


@functools.cache
def _read(file: Path, mtime_ns: int, item: str) -> tuple[bytes, bytes]:
    """An experiment's own settings and its ``smoke:`` section."""
    content = OmegaConf.create(read_foreign_yaml(file))
    if OmegaConf.select(content, "table.overall") is not None:
        raise GenaugError(
            f"experiment={item} is the mean of others and has no run of its own: genaug sweep experiment={item}."
        )
    for entry in content.get("defaults", ()):
        group = str(next(iter(entry))) if OmegaConf.is_dict(entry) else ""
        if group in presets():
            raise GenaugError(
                f"In the defaults of {file}, write `override /{group}: {entry[group]}` for `{group}: {entry[group]}`."
            )
    for of_others in ("table", "chosen_by"):  # read by tables/spec.py and choosing.py
        content.pop(of_others, None)
    smoke = content.pop("smoke", OmegaConf.create({}))
    content.experiment = item
    return pickle.dumps(content), pickle.dumps(smoke)
