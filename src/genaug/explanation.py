"""What a user reads when something is wrong: errors in our words, Hydra's and OmegaConf's among them."""

import difflib
import errno
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genaug.config_source import component_of
from genaug.core.errors import GenaugError, first_line, out_of_memory
from genaug.core.paths import experiment_files, presets
from genaug.core.registry import COMPONENTS
from genaug.keys import known_keys

EXTRAS = {
    "JoblibLauncher": "joblib",
    "LocalLauncher": "submitit_local",
    "SlurmLauncher": "submitit_slurm",
    "RayLauncher": "ray",
}
"""The extras that bring launchers, and the ``hydra/launcher`` of each, by the launcher's class."""
NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""What a system says of a path that a user chose and at which nothing can be read or written."""
ELSEWHERE = {
    "strength": "t0",
    "num_inference_steps": "num_steps",
    "steps": "num_steps",
    "epochs": "num_steps",
    "guidance_scale": "guidance",
    "learning_rate": "lr",
    "size": "image_size",
    "num_variants": "m",
    "model": "backbone",
    "k": "shots",
}
"""What other libraries call our keys."""


def message(error: BaseException) -> str | None:
    """What a user should read instead of a traceback; None for a fault of ours."""
    for link in _chain(error):
        if isinstance(link, GenaugError):
            return str(link)
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({link.filename})" if link.filename else ""
            return f"The disk is full{where}. Free space and run the same command again: nothing already made is lost."
        if isinstance(link, OSError) and link.errno in NO_PLACE and link.filename is not None:
            return f"{link.filename} cannot be used ({link.strerror}). Name another place, or mend its permissions."
        if out_of_memory(link):
            return (
                f"There is not enough memory ({first_line(link)}). In training, write a smaller downstream.batch_size or "
                "trainer.precision=bf16-mixed; what is made already is kept, and the same command goes on from there."
            )
    if isinstance(error, HydraException | OmegaConfBaseException) or "Invalid defaults list" in str(error):
        return explain(error)
    if match := re.search(r"Unknown plugin class : '[\w.]+\.(\w+)'", str(error)):
        extra = EXTRAS.get(match.group(1), "")
        return (
            f"hydra/launcher={extra} comes with an extra that is not installed: pip install 'genaug[{extra}]'. Without it, a "
            "sweep runs small runs side by side on this machine, and others one after the other."
        )
    if 'Could not detect "srun"' in str(error):
        return "No srun is here: start hydra/launcher=submitit_slurm where sbatch works, or try hydra/launcher=submitit_local."
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while error is not None:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def explain(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages in our words, with suggestions."""
    links = _chain(error)
    if own := next((link for link in links if isinstance(link, GenaugError)), None):
        return str(own)
    for link in links:
        if isinstance(link, OverrideParseException):
            reason = link.message.splitlines()[0]
            if str(link.override).startswith("-"):
                return f"{link.override} is an option of the command line: leave it out here."
            if str(link.override) in experiment_files():
                return f"{link.override} is an experiment: write experiment={link.override}."
            if "=" not in str(link.override):
                return explain_bare_word(str(link.override))
            return (
                f"{link.override} cannot be read as KEY=VALUE ({reason}): close every bracket and quotation mark, and put a "
                "value with special characters between two kinds of quotes, e.g. 'generator.prompt=\"a {name}, red\"'."
            )
    said = [text for link in links if (text := str(link).strip()) not in ("", "None")]
    text = "\n".join(said)
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^'\s]+)'?", text):
        return explain_key(match.group(1).rstrip(".").replace("/", "."))
    if match := re.search(r"(?:In '([\w/]+)': )?Could not (?:find|load) '([^'\s]+)'", text):
        by, _, name = (match.group(1) or "").rpartition("/")
        return f"In {by}={name}: " * bool(by) + explain_unknown_preset(match.group(2))
    if match := re.search(r"Ambiguous value for argument '(.*)'", text):
        key, _, value = match.group(1).partition("=")
        return (
            f"{key}={value} names several values, and this is one run. Add -m (genaug sweep; genaug.sweep in Python) for a run "
            f"with each, or write {key}=[{value}] for one list."
        )
    if match := re.search(r"full_key: ([\w.]+)", text):
        key = match.group(1)
        reason = next(message for message in said if "full_key:" in message).splitlines()[0]
        if "missing mandatory value" in reason.lower():
            return f"{key} is needed here: write {key}=VALUE."
        if preset := re.search(r"In '([\w/]+)': \w+ raised while composing config:\n(.*)", text):
            return explain_wrong_preset(preset.group(1), key, preset.group(2))
        return f"{key}: {reason}."
    return text


def explain_bare_word(word: str) -> str:
    """What to write in place of a word without a value."""
    if meant := [f"{group}={word}" for group, names in presets().items() if word in names]:
        return f"{word} is a preset: write {' or '.join(meant)}."
    if word in presets():
        return f"{word} has no value: write {word}=PRESET; genaug explain {word} lists them."
    if Path(word).is_dir():
        return f"{word} is a folder: genaug check {shlex.quote(word)} says what to write to run on it."
    return f"{word} has no value: write {word}=VALUE."


def explain_key(key: str) -> str:
    """One sentence on a key that the chosen presets do not have: the presets that do, or else the nearest keys."""
    group, _, leaf = key.partition(".")
    mapping = leaf.partition(".")[0]
    if any(_is_mapping(component, mapping) for component in COMPONENTS.get(group, {}).values()):
        names = ", ".join(_presets_with(group, mapping))
        return f"{group}.{mapping} takes names of any kind: write +{group}.{mapping}.NAME=VALUE, with {group}={names}."
    owners = _presets_with(group, leaf) if leaf else []
    if not owners:
        return _explain_unknown_key(key)
    others = f" and {len(owners) - 6} more" if len(owners) > 6 else ""
    ours = ELSEWHERE.get(leaf)
    hint = f" Did you mean {group}.{ours}?" if ours in known_keys().get(group, ()) else ""
    return (
        f"{key} belongs to {group}={', '.join(owners[:6])}{others}, and another {group} is chosen: "
        f"choose one of these too, or leave {key} out.{hint}"
    )


def explain_wrong_preset(preset: str, key: str, reason: str) -> str:
    """What is wrong with a key that a preset's or an experiment's own file sets."""
    group, _, name = preset.partition("/") if preset.startswith("experiment/") else preset.rpartition("/")
    if not reason.startswith("Key "):
        return f"In {group}={name}, {key}: {reason}."
    if group not in COMPONENTS:
        return f"In {group}={name}: {explain_key(key)}"
    component = COMPONENTS[group][component_of(group, name)]
    has = ", ".join(f.name for f in fields(component))  # type: ignore[arg-type]
    return f"In {group}={name}: {component.__name__} has no field {key.partition('.')[2]}. It has {has}."


def _is_mapping(component: type, name: str) -> bool:
    """Whether a field holds values under names of the user's, which Hydra takes with a ``+`` alone."""
    return any(f.name == name and get_origin(f.type) is dict for f in fields(component))  # type: ignore[arg-type]


def _presets_with(group: str, leaf: str) -> list[str]:
    """The presets of a group whose component has this key, those that need it first; none if all have it."""
    components = COMPONENTS.get(group, {})
    names = presets().get(group, [])
    found: dict[str, tuple[bool, bool]] = {}
    for name in names:
        component = component_of(group, name)
        needed = _is_needed(OmegaConf.structured(components[component]), leaf) if component in components else None
        if needed is not None:
            found[name] = (not needed, component != name)
    return sorted(found, key=lambda name: found[name]) if len(found) < len(names) else []


def _is_needed(node: Any, leaf: str) -> bool | None:
    """Whether a key such as ``heads.weak`` has no value of its own; None if there is no such key."""
    part, _, rest = leaf.partition(".")
    if not isinstance(node, DictConfig) or part not in list(node):
        return None
    if OmegaConf.is_missing(node, part) or not rest:
        return OmegaConf.is_missing(node, part)
    return None if OmegaConf.is_interpolation(node, part) else _is_needed(node[part], rest)


def _explain_unknown_key(key: str) -> str:
    """One sentence on a key that the configuration does not have, with the nearest ones that exist."""
    keys = known_keys()
    parent, _, leaf = key.rpartition(".")
    everything = [f"{group}.{name}" if group else name for group, names in keys.items() for name in names]
    siblings = sorted(keys.get(parent, ()))
    if ELSEWHERE.get(leaf) in siblings:
        return f"There is no key {key}. Did you mean {parent}.{ELSEWHERE[leaf]}?"
    near = [f"{parent}.{name}".lstrip(".") for name in difflib.get_close_matches(leaf, siblings, n=3)]
    similar = difflib.get_close_matches(key, everything, n=3, cutoff=0.75)
    near += [k for k in similar if k not in near and not key.startswith(f"{k}.")]
    if not near:
        alike = difflib.get_close_matches(leaf, {k.rpartition(".")[2] for k in everything}, n=2, cutoff=0.75)
        near = [k for k in sorted(everything) if k.rpartition(".")[2] in ([leaf] if leaf in alike else alike)]
    hint = f" Did you mean {' or '.join(near[:3])}?" if near else ""
    if not hint:
        group = parent if parent in keys else ""
        hint = f" {group or 'The top level'} has {', '.join(sorted(keys[group]))}."
    return f"There is no key {key}.{hint}"


def explain_unknown_preset(wanted: str) -> str:
    """One sentence on a preset that there is not, e.g. ``dataset/tabel``, with the nearest ones that exist."""
    group, _, name = wanted.rpartition("/")
    options = presets().get(group, [])
    if wanted.startswith("experiment/"):
        group, _, name = wanted.partition("/")
        options = sorted(experiment_files())
    if not options and wanted.partition("/")[0] in presets():  # a path in a preset's place
        group, _, path = wanted.partition("/")
        folder = {
            "dataset": f"genaug check {shlex.quote(path)} says how a folder is named",
            "prior": f"a folder is prior.path={path}",
        }
        hint = f"; {folder[group]}" if group in folder else ""
        return f"{path} is no preset of {group}: genaug explain {group} lists them{hint}."
    near = [option for option in options if _letters(option) == _letters(name)]
    near = near or sorted((option for option in options if name and name in option), key=len)[:5]
    near = near or difflib.get_close_matches(name, options, n=2)
    hint = f" Did you mean {' or '.join(f'{group}={option}' for option in near)}?" if near else ""
    all_of_them = f" There are: {', '.join(options)}." if options and not (near and group == "experiment") else ""
    return f"There is no preset {group}={name}.{hint}{all_of_them}"


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
