"""Settings that an experiment on one's own images leaves open (``chosen_by: check``): chosen from what is in the folder.

They are overrides like those of the command line, which win over them, and so do the values of a ``preset=``. They are chosen
once for a data set, its draw and a prior, and kept in a file: the runs, the plan and the verdict read the same, elsewhere too.
"""

import io
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from genaug.composition import checked, compose_typed
from genaug.config import RunConfig
from genaug.config_source import component_of, files_of
from genaug.core.errors import GenaugError, boundary
from genaug.core.files import write_text
from genaug.core.foreign import check_overrides, read_foreign_yaml
from genaug.core.identity import canonical, fingerprint
from genaug.core.names import safe_name
from genaug.core.paths import experiment_files
from genaug.core.registry import COMPONENTS, load_components
from genaug.data.images import inspect_all
from genaug.data.sample import Dataset
from genaug.data.sources.layout import Layout
from genaug.data.sources.recognition import LAYOUTS, recognise
from genaug.evaluation.prior_check import PriorCheck, source_identity, stored_check
from genaug.evaluation.suggestions import Suggestion, image_size, model, suggestions
from genaug.explanation import explain_unknown_preset

if TYPE_CHECKING:
    from genaug.priors.model import Prior

VERSION = 1
READ = ("dataset", "prior", "leakage", "downstream", "trainer", "paths")
"""Groups of keys that decide what is chosen."""
ONE = (("dataset.shots", "dataset.fraction"),)
"""Keys that say one thing in two ways."""
FILE = "settings.yaml"


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings of one experiment on one folder."""

    settings: tuple[Suggestion, ...] = ()
    """Those in force: neither the command line nor a preset says otherwise."""
    file: Path | None = None
    """Where they are kept; None where nothing is chosen, or the prior could not be looked at."""
    note: str = ""
    """What could not be looked at, and why."""

    @property
    def overrides(self) -> list[str]:
        return [setting.override for setting in self.settings]

    @property
    def lines(self) -> list[str]:
        """For people: each setting with its reason, and where to change it."""
        if not self.settings:
            return [self.note] if self.note else []
        kept = f" ({self.file}; a key on the command line wins)" if self.file else ""
        width = max(len(setting.override) for setting in self.settings)
        rows = [f"  {setting.override:<{width}}  {setting.why}" for setting in self.settings]
        return [f"chosen for these images{kept}:", *rows, *([self.note] if self.note else [])]


def chooses(item: str) -> bool:
    """Whether an experiment is for one's own images and leaves settings to them."""
    file = experiment_files().get(item)
    return file is not None and read_foreign_yaml(file).get("chosen_by") is not None


def with_chosen(words: Sequence[str]) -> tuple[list[str], Choice]:
    """A command line's words with the settings that its experiment leaves open, and what was chosen."""
    words = checked(words)
    items = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    found = (
        choose(items[-1], [word for word in words if not word.startswith(("experiment=", "-"))]) if items else Choice()
    )
    return [*words, *found.overrides], found


def choose(item: str, words: Sequence[str]) -> Choice:
    """What ``experiment=<item>`` with these overrides leaves open; empty for an experiment that states all of its settings.

    Raises:
        GenaugError: if the folder cannot be read, or holds data for another task.
    """
    file = experiment_files().get(item)
    content = read_foreign_yaml(file) if file is not None else {}
    if content.get("chosen_by") is None:
        return Choice()
    if content["chosen_by"] != "check":
        raise GenaugError(
            f"{file}: chosen_by: {content['chosen_by']} is unknown. Write chosen_by: check, or leave it out."
        )
    words = checked(words)
    given = {word.partition("=")[0].lstrip("+~") for word in words}
    if not given & {"dataset.root", "dataset.path"}:
        raise GenaugError(f"experiment={item} is for your own images: write dataset.root=FOLDER.")
    single = _single(item, words)
    layout = _layout(single, given)
    start = [f"experiment={item}", *(setting.override for setting in layout), *single]
    config = compose_typed(start)
    if config.dataset.task != config.downstream.task:
        other = f"{item.rpartition('/')[0]}/{config.dataset.task}"
        raise GenaugError(
            f"experiment={item} is for {config.downstream.task}, and these images are labelled for {config.dataset.task}: "
            f"write experiment={other}."
        )
    settings, place, note = _kept(item, config, start)
    taken = given | {key for pair in ONE if given & set(pair) for key in pair} | _of_preset(content, words)
    if "downstream" in given and not any(word.startswith("downstream=") for word in single):
        taken.add("downstream.batch_size")  # of several models, each has its own
    left = [row for row in settings if row.override.partition("=")[0] not in taken and _any_has(row.override, words)]
    return Choice((*layout, *left), place, note)


def _any_has(setting: str, words: Sequence[str]) -> bool:
    """Whether a component that the words choose has the key of a setting; true where they choose none of its group."""
    group, _, key = setting.partition("=")[0].partition(".")
    names = [name for word in words if word.startswith(f"{group}=") for name in word.partition("=")[2].split(",")]
    load_components()
    components = [COMPONENTS[group][component_of(group, name)] for name in names if key and files_of(group, name)]
    has = [key.partition(".")[0] in component.__dataclass_fields__ for component in components]  # type: ignore[attr-defined]
    return any(has) or len(has) < len(names) or not names


def _single(item: str, words: Sequence[str]) -> list[str]:
    """The overrides that say what is chosen from, the same for all runs."""
    parser, found = OverridesParser.create(), []
    for word in words:
        override = parser.parse_override(word)
        if not override.is_sweep_override():
            found += [word] if override.key_or_group.partition(".")[0] in READ else []
        elif override.key_or_group in ("dataset", "dataset.root", "dataset.path"):
            raise GenaugError(f"{word}: experiment={item} chooses its settings for one data set. Run it once for each.")
    return found


def _layout(words: Sequence[str], given: set[str]) -> list[Suggestion]:
    """How the folder is read, where no ``dataset=`` says it."""
    root = next((word.partition("=")[2] for word in words if word.startswith("dataset.root=")), None)
    if "dataset" in given or root is None:
        return []
    override = OverridesParser.create().parse_override(f"dataset.root={root}")
    found = found_layout(Path(str(override.value())).expanduser(), words)
    if found.key != "dataset.root":
        needed = [*(row.override for row in layout_settings(found)), f"{found.key}={found.root}"]
        raise GenaugError(
            f"{found.root} is {LAYOUTS[found.preset]}: write {shlex.join(needed)} in place of dataset.root."
        )
    return [row for row in layout_settings(found) if row.override.partition("=")[0] not in given]


def found_layout(folder: Path, words: Sequence[str]) -> Layout:
    """What a folder is found to hold; class folders where ``dataset.class_names=`` names them, and a table where
    ``dataset.table=`` does."""
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    if "dataset.class_names" in given:
        return Layout(root=folder, preset="image_folder", task="classification")
    return recognise(folder, given.get("dataset.table"))


def named_layout(folder: Path, words: Sequence[str]) -> Layout | None:
    """A folder as ``dataset=`` says that it is read; None if no word says it.

    Raises:
        GenaugError: if there is no such preset, or it reads no folder.
    """
    preset = next((word.partition("=")[2] for word in words if word.startswith("dataset=")), None)
    if preset is None:
        return None
    if not files_of("dataset", preset):
        raise GenaugError(explain_unknown_preset(f"dataset/{preset}"))
    load_components()
    component = COMPONENTS["dataset"][component_of("dataset", preset)]
    key = next((key for key in ("root", "path") if key in component.__dataclass_fields__), None)  # type: ignore[attr-defined]
    if key is None:
        raise GenaugError(f"dataset={preset} reads no folder: leave it out, and the folder's layout is looked for.")
    return Layout(root=folder, preset=preset, task=component.task, key=f"dataset.{key}")  # type: ignore[attr-defined]


def layout_settings(layout: Layout) -> list[Suggestion]:
    """What is written so that a run reads a folder that was recognised."""
    why = f"the folder holds {LAYOUTS[layout.preset]}"
    return [
        Suggestion(f"dataset={layout.preset}", why),
        *(Suggestion(word, "as found in it") for word in layout.overrides),
    ]


def _kept(item: str, config: RunConfig, start: Sequence[str]) -> tuple[list[Suggestion], Path | None, str]:
    """The settings from their file, which is written now if it is not there; the file, and what could not be looked at."""
    source = {key: value for key, value in canonical(config.dataset).items() if key not in ("seed", "image_size")}
    learner = sorted(word for word in start if word.startswith("downstream"))
    key = fingerprint("settings", VERSION, item, source, canonical(config.prior, read=False), learner)
    file = config.paths.outputs / "check" / f"{safe_name(config.dataset.name, 'folder')}-{key[:8]}" / FILE
    with config.paths.store.lock(f"settings-{key}"):
        if file.is_file():
            return _read(file), file, ""
        settings, seen = _settings(config, start)
        if isinstance(seen, str):
            return settings, None, f"{seen} So generator.t0 is left as the methods have it, and nothing is kept."
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, _text(config, settings))
    return settings, file, ""


def _settings(config: RunConfig, start: Sequence[str]) -> tuple[list[Suggestion], PriorCheck | str | None]:
    """Settings for a data set, and what the prior makes of it or why that could not be seen; None where it does not matter."""
    device, dataset = config.trainer.device(), config.dataset.load()
    side = median_side(dataset)
    chosen = model(dataset.task, device)
    words = [f"dataset.image_size={image_size(side, dataset.task, device)}"]
    words += [] if any(word.startswith("downstream=") for word in start) else [chosen.override]
    config = compose_typed([start[0], *words, *start[1:]])
    seen: PriorCheck | str | None = None
    if dataset.task == "classification":
        try:
            config.prior.check_available()
            seen, _ = look(config, dataset, device)
        except GenaugError as error:
            seen = str(error)
    judged = seen if isinstance(seen, PriorCheck) else None
    learner = config.downstream
    warmup = getattr(learner, "warmup_steps", 0)
    rows = suggestions(dataset, side, device, judged, learner.batch_size, warmup)
    if isinstance(seen, str):
        rows = [row for row in rows if not row.override.startswith("generator.t0=")]
    return rows, seen


def look(config: RunConfig, dataset: Dataset, device: str) -> tuple[PriorCheck, Path]:
    """What the prior makes of these images, as every run looks at it, and the picture of it; what takes seconds is said."""
    prior, source = config.prior, source_identity(config.dataset)

    def load() -> "Prior":
        print(f"looking at what prior={prior.name} makes of some of the images …", file=sys.stderr, flush=True)
        return prior.load(device)

    return stored_check(config.paths.store, prior, source, dataset, load, config.leakage.class_names)


def median_side(dataset: Dataset) -> int:
    """Longer side of the median image, in pixels."""
    samples = (*dataset.train, *dataset.val, *dataset.test)
    facts = inspect_all(sample.image for sample in samples if isinstance(sample.image, Path))
    sides = [max(facts[s.image].size) if isinstance(s.image, Path) else max(s.open().size) for s in samples]
    return sorted(sides)[len(sides) // 2]


def _text(config: RunConfig, settings: Iterable[Suggestion]) -> str:
    head = (
        f"# Chosen for {config.dataset.name} and prior={config.prior.name}. Runs, plan and verdict read it: change values\n"
        "# before the first run, or give a key on the command line, which wins. Without it they are chosen again.\n"
    )
    rows = [{"set": setting.override, "because": setting.why} for setting in settings]
    stream = io.StringIO()
    yaml.safe_dump({"settings": rows}, stream, sort_keys=False, allow_unicode=True, width=1000)
    return head + stream.getvalue()


def _read(file: Path) -> list[Suggestion]:
    content = read_foreign_yaml(file)
    with boundary(f"{file} cannot be read", "Correct it, or remove it: the settings are chosen again."):
        rows = [Suggestion(str(row["set"]), str(row.get("because", ""))) for row in content["settings"]]
    check_overrides([row.override for row in rows], str(file))
    return rows


def _of_preset(content: Mapping[str, Any], words: Sequence[str]) -> set[str]:
    """Keys that the chosen ``preset=`` sets, and the experiment's own section for it."""
    names = [word.partition("=")[2] for word in words if word.startswith("preset=")]
    if not names or names[-1] == "null":
        return set()
    files = files_of("preset", names[-1])[:1]
    parts = [*(yaml.safe_load(file.read_text(encoding="utf-8")) for file in files), content.get(names[-1]) or {}]
    found: set[str] = set()
    for part in parts:
        chosen = [entry for entry in part.get("defaults", ()) if isinstance(entry, Mapping)]
        found |= {str(key).removeprefix("override /") for entry in chosen for key in entry}
        found |= set(_keys({key: value for key, value in part.items() if key not in ("defaults", "hydra")}))
        found |= set((part.get("hydra") or {}).get("sweeper", {}).get("params", {}))
    return found


def _keys(content: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
