"""Compose -> typed config -> run. Everything between the command line and ``run.py`` is here."""

import dataclasses
import difflib
import errno
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from genaug.config import RunConfig, explain_unknown_key
from genaug.config_source import install
from genaug.core.errors import GenaugError, first_line, out_of_memory
from genaug.core.interruption import Interrupted, interruptible, requeue
from genaug.core.paths import experiment_files, project_root, roots
from genaug.core.registry import COMPONENTS
from genaug.runs.collection import HIDDEN
from genaug.runs.sweep import FAILED, OK, SKIPPED, check_objective, failed, is_optimising, note_cell, objective


def register() -> Path:
    """Make components, experiments and the list of presets known to Hydra; returns the conf folder."""
    install()
    OmegaConf.register_new_resolver("presets", list_presets, replace=True)
    return project_root() / "conf"


def presets() -> dict[str, list[str]]:
    """Names of the presets by group, e.g. ``{"mix": ["concat", …]}``, those of the current folder included."""
    found: dict[str, set[str]] = {}
    for root in roots():
        for path in (root / "conf").rglob("*.yaml"):
            group = path.parent.relative_to(root / "conf").as_posix()
            if group != "." and "hydra" not in path.parts and (project_root() / "conf" / group).is_dir():
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}


def list_presets() -> str:
    """The presets of every group, for ``--help``."""
    lines = [f"{group:<17} {', '.join(names)}" for group, names in presets().items()]
    papers: dict[str, list[str]] = {}
    for paper, _, item in (name.rpartition("/") for name in sorted(experiment_files())):
        papers.setdefault(paper, []).append(item)
    lines += [f"experiment={paper}/…  {', '.join(found)}" for paper, found in papers.items()]
    return "\n".join(lines)


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
        raise GenaugError(_explain_key(key))


def _unknown_keys(node: DictConfig, prefix: str) -> list[str]:
    kind = OmegaConf.get_type(node)
    fields = {f.name for f in dataclasses.fields(kind)} if kind is not None and dataclasses.is_dataclass(kind) else None
    unknown = []
    for key in node:
        if fields is not None and key not in fields:
            unknown.append(f"{prefix}{key}")
            continue
        if isinstance(key, str) and not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                unknown += _unknown_keys(child, f"{prefix}{key}.")
    return unknown


def compose_typed(overrides: list[str]) -> RunConfig:
    """The configuration that ``python train.py <overrides>`` would run."""
    conf = register()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            config = hydra.compose("config", overrides)
            with open_dict(config):
                config.pop("hydra", None)
            return typed(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise GenaugError(explain(error)) from error


def job(config: DictConfig) -> float | None:
    """One Hydra job: one cell. An optimising sweeper is given its validation metric, others nothing that they use."""
    from genaug.runs.cell import Cell

    hydra_config = HydraConfig.get()
    sweep_dir = Path(hydra_config.sweep.dir) if hydra_config.mode == RunMode.MULTIRUN else None
    overrides = tuple(hydra_config.overrides.task)
    optimised = sweep_dir is not None and is_optimising(hydra_config.sweeper)
    cell, state = None, SKIPPED
    try:
        cell = Cell.of(typed(config), overrides)
        if optimised:
            check_objective(cell.config)
        result = cell.result()
        if result is not None:
            cell.say_complete(result)
        else:
            from genaug.run import run

            state = OK
            with interruptible():  # here too: a launcher's worker does not come by way of main
                result = run(cell)
    except Exception as error:
        print(f"genaug: {message(error) or traceback.format_exc()}", file=sys.stderr)
        if sweep_dir is None:
            sys.exit(2 if message(error) else 1)
        note_cell(sweep_dir, cell and cell.folder, overrides, FAILED)
        if optimised:
            raise  # the sweeper has no value to go on with
        return None  # one bad cell must not cost the others
    if sweep_dir is not None:
        note_cell(sweep_dir, cell.folder, overrides, state)
    else:
        from genaug.tables.terminal import show

        show([cell.folder])
    return objective(result) if optimised else None


def message(error: BaseException) -> str | None:
    """What a user should read instead of a traceback; None for a fault of ours."""
    for link in _chain(error):
        if isinstance(link, GenaugError):
            return str(link)
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({link.filename})" if link.filename else ""
            return f"The disk is full{where}. Free space and run the same command again: nothing already made is lost."
        if out_of_memory(link):
            return (
                f"There is not enough memory ({first_line(link)}). In training, write a smaller downstream.batch_size or "
                "trainer.precision=bf16-mixed; what is made already is kept, and the same command goes on from there."
            )
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
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
    for link in links:
        if isinstance(link, GenaugError):
            return str(link)
    for link in links:
        if isinstance(link, OverrideParseException):
            reason = link.message.splitlines()[0]
            return (
                f"{link.override} cannot be read as KEY=VALUE ({reason}): close every bracket and quotation mark, and put a "
                "value with special characters between two kinds of quotes, e.g. 'generator.prompt=\"a {name}, red\"'."
            )
    said = [text for link in links if (text := str(link).strip()) not in ("", "None")]
    text = "\n".join(said)
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^'\s]+)'?", text):
        return _explain_key(match.group(1).rstrip(".").replace("/", "."))
    if match := re.search(r"Could not find '([^'\s]+)'", text):
        return _explain_unknown_preset(match.group(1))
    if match := re.search(r"full_key: ([\w.]+)", text):
        reason = next(message for message in said if "full_key:" in message).splitlines()[0]
        if "missing mandatory value" in reason.lower():
            return f"{match.group(1)} is needed here: write {match.group(1)}=VALUE."
        return f"{match.group(1)}: {reason}."
    return text


def _explain_key(key: str) -> str:
    """One sentence on a key that the chosen presets do not have: the presets that do, or else the nearest keys."""
    group, _, leaf = key.partition(".")
    owners = _presets_with(group, leaf) if leaf else []
    if not owners:
        return explain_unknown_key(key)
    others = f" and {len(owners) - 6} more" if len(owners) > 6 else ""
    return (
        f"{key} belongs to {group}={', '.join(owners[:6])}{others}, and another {group} is chosen: "
        f"choose one of these too, or leave {key} out."
    )


def _presets_with(group: str, leaf: str) -> list[str]:
    """The presets of a group whose component has this key, those that need it first; none if all have it."""
    components = COMPONENTS.get(group, {})
    names = presets().get(group, [])
    found: dict[str, tuple[bool, bool]] = {}
    for name in names:
        component = _schema(group, name)
        needed = _is_needed(OmegaConf.structured(components[component]), leaf) if component in components else None
        if needed is not None:
            found[name] = (not needed, component != name)
    return sorted(found, key=lambda name: found[name]) if len(found) < len(names) else []


def _schema(group: str, name: str) -> str:
    """The component that a preset configures, e.g. ``dreamda``: where the first lines of its ``defaults`` lead."""
    while not name.startswith("_"):
        files = [file for root in roots() if (file := root / "conf" / group / f"{name}.yaml").is_file()]
        content = OmegaConf.load(files[0])
        assert isinstance(content, DictConfig)
        name = next((base for base in content.get("defaults", ()) if isinstance(base, str)), "_self_")
    return name.removeprefix("_")


def _is_needed(node: Any, leaf: str) -> bool | None:
    """Whether a key such as ``heads.weak`` has no value of its own; None if there is no such key."""
    part, _, rest = leaf.partition(".")
    if not isinstance(node, DictConfig) or part not in list(node):
        return None
    if OmegaConf.is_missing(node, part) or not rest:
        return OmegaConf.is_missing(node, part)
    return None if OmegaConf.is_interpolation(node, part) else _is_needed(node[part], rest)


def _explain_unknown_preset(wanted: str) -> str:
    group, _, name = wanted.rpartition("/")
    options = presets().get(group, [])
    if wanted.startswith("experiment/"):
        group, _, name = wanted.partition("/")
        options = sorted(experiment_files())
    near = [option for option in options if name and name in option][:5]
    near = near or difflib.get_close_matches(name, options, n=2)
    hint = f" Did you mean {' or '.join(f'{group}={option}' for option in near)}?" if near else ""
    all_of_them = f" There are: {', '.join(options)}." if options and not (near and group == "experiment") else ""
    return f"There is no preset {group}={name}.{hint}{all_of_them}"


def _for_each_run(words: list[str]) -> list[str]:
    """In a sweep, values of components concern each run, whose components may have the key, and not the sweep as a whole: Hydra
    does not look at them before the runs are told apart if they are choices of one."""
    from genaug.composition import sets_value
    from genaug.tables.spec import is_experiment, read_experiment

    items = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    sweeps = any(is_experiment(item) and read_experiment(item).get("hydra", {}).get("mode") for item in items)
    if not sweeps and not {"-m", "--multirun"} & set(words):
        return words
    chosen = []
    for word in words:
        key, _, value = word.partition("=")
        of_component = sets_value(word) and "." in key and key.partition(".")[0] not in HIDDEN
        chosen.append(f"{key}=choice({value})" if of_component and _is_single(word) else word)
    return chosen


def _is_single(word: str) -> bool:
    """Whether an override is one value, not a sweep; one that cannot be read is left for Hydra to say so."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return override.value_type is not None and not override.is_sweep_override()


def main() -> None:
    """Entry point of ``train.py``, ``genaug run`` and ``genaug sweep``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as exceptions, and we say them in a paragraph
    for flag in ("-m", "--multirun"):  # Hydra's own reader wants it before the overrides
        if flag in sys.argv[1:]:
            sys.argv.remove(flag)
            sys.argv.insert(1, flag)
    try:
        sys.argv[1:] = _for_each_run(sys.argv[1:])
        with interruptible():
            conf = register()
            hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
        if failed:
            raise GenaugError("Runs of the sweep failed:" + "".join(f"\n  {line}" for line in failed))
    except (Interrupted, KeyboardInterrupt) as end:
        name, code, then = "SIGINT", 130, "run the same command again to continue"
        if isinstance(end, Interrupted):
            name, code = str(end), end.exit_code
            then = requeue() if end.requeues else then
        print(f"\ngenaug: interrupted by {name}: {then}", file=sys.stderr)
        sys.exit(code)
    except Exception as error:
        text = message(error)
        if text is None:
            raise
        print(f"genaug: {text}", file=sys.stderr)
        sys.exit(2)
