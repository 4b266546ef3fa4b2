"""Compose -> typed config -> run. Everything between the command line and ``run.py`` is here."""

import errno
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from genaug.config import RunConfig, explain_unknown_key, store_root
from genaug.errors import GenaugError
from genaug.registry import load_components


def project_root() -> Path:
    """The folder that holds ``conf/`` and ``experiments/``: the current one, or the checkout of an editable install."""
    for folder in (Path.cwd(), Path(__file__).parents[2]):
        if (folder / "conf" / "config.yaml").exists():
            return folder
    raise GenaugError("There is no conf/config.yaml here. Run from the folder of a genaug checkout.")


def register() -> Path:
    """Make components, experiments and the root known to Hydra; returns the conf folder."""
    load_components()
    store_root()
    root = project_root()
    for path in sorted((root / "experiments").rglob("*.yaml")):
        node = OmegaConf.load(path)
        with open_dict(node):
            node.pop("table", None)  # how to read the cells: the tables' business
        name = path.relative_to(root / "experiments").with_suffix("")
        node.experiment = name.as_posix()
        group = "/".join(("experiment", *name.parts[:-1]))
        ConfigStore.instance().store(group=group, name=name.name, node=node, package="_global_")
    return root / "conf"


def typed(config: DictConfig) -> RunConfig:
    """The typed configuration; from here on nobody sees a DictConfig."""
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result = OmegaConf.to_object(plain)
    assert isinstance(result, RunConfig)
    return result


def compose_typed(overrides: list[str]) -> RunConfig:
    """The configuration that ``python train.py <overrides>`` would run."""
    conf = register()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            return typed(hydra.compose("config", overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise GenaugError(explain(error)) from error


def job(config: DictConfig) -> float | None:
    """One Hydra job: one cell. Returns its main metric, so that optimising sweepers can use it."""
    from genaug.cell import Cell

    hydra_config = HydraConfig.get()
    sweep = hydra_config.mode == RunMode.MULTIRUN
    overrides = tuple(hydra_config.overrides.task)
    folder = ""
    try:
        cell = Cell.of(typed(config), overrides)
        folder = str(cell.folder)
        from genaug.run import run

        result = run(cell)
    except Exception as error:
        if not sweep:
            raise
        # one bad cell must not cost the others
        problem = message(error)
        if problem is None:
            import traceback

            problem = traceback.format_exc()
        print(f"failed: {' '.join(overrides)}\n{problem}", file=sys.stderr)
        _note_cell(hydra_config, folder, overrides, failed=True)
        return None
    if sweep:
        _note_cell(hydra_config, str(cell.folder), overrides, failed=False)
    else:
        _show([cell.folder])
    value = result["metrics"].get(result["metric"])
    return float(value) if value is not None else None


def _note_cell(hydra_config: Any, folder: str, overrides: tuple[str, ...], failed: bool) -> None:
    cells = Path(hydra_config.sweep.dir) / "cells.jsonl"
    cells.parent.mkdir(parents=True, exist_ok=True)
    with cells.open("a") as file:
        file.write(json.dumps({"folder": folder, "overrides": overrides, "failed": failed}) + "\n")


def _show(folders: list[Path]) -> None:
    from genaug.tables.collect import read_results
    from genaug.tables.summary import print_summary, summarise

    for summary in summarise(read_results(folders)):
        print_summary(summary)


class SweepSummary(Callback):
    """Prints the table of a sweep's cells when the sweep is over (conf/hydra)."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        path = Path(config.hydra.sweep.dir) / "cells.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        _show(list(dict.fromkeys(Path(row["folder"]) for row in rows if not row["failed"])))
        failed = [row for row in rows if row["failed"]]
        if failed:
            lines = "\n".join("  " + " ".join(row["overrides"]) for row in failed)
            raise GenaugError(f"{len(failed)} of {len(rows)} cells failed; the others are complete:\n{lines}")


def message(error: BaseException) -> str | None:
    """What a user should read instead of a traceback; None for a fault of ours."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, GenaugError):
            return str(chain)
        if isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({chain.filename})" if chain.filename else ""
            return f"The disk is full{where}. Free space and run the same command again: nothing already made is lost."
        chain = chain.__cause__ or chain.__context__
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
    return None


def explain(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages in our words, with suggestions."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, GenaugError):
            return str(chain)
        chain = chain.__cause__ or chain.__context__
    text = str(error)
    if match := re.search(r"Could not (?:override|append to config|append value for key|delete from config)[^'\"]*['\"]([\w.@/]+)", text):
        key = match.group(1).split("=")[0]
        if "not in" in text or "struct" in text or "No match in the defaults list" in text:
            return explain_unknown_key(key)
    if match := re.search(r"full_key: ([\w.]+)", text):
        reason = text.splitlines()[0]
        if "Key '" in reason and "not in" in reason:
            return explain_unknown_key(match.group(1))
        if "Missing mandatory value" in reason:
            return f"{match.group(1)} is needed here: write {match.group(1)}=VALUE."
        return f"{match.group(1)}: {reason}."
    if match := re.search(r"Could not find '([\w/]+)'", text):
        import difflib

        options = [o for o in re.findall(r"^\s+([\w/]+)$", text, re.MULTILINE) if not o.startswith("_")]
        group, _, wanted = match.group(1).rpartition("/")
        near = difflib.get_close_matches(wanted, options, n=2)
        hint = f" Did you mean {' or '.join(f'{group}={name}' for name in near)}?" if near else ""
        return f"There is no preset {group}={wanted}.{hint}" + (f" There are: {', '.join(options)}." if options else "")
    return text


def main() -> None:
    """Entry point of ``train.py``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as exceptions, and we say them in a paragraph
    try:
        conf = register()
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        text = message(error)
        if text is None:
            raise
        print(f"genaug: {text}", file=sys.stderr)
        sys.exit(2)
