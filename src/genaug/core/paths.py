"""Where the project lies and where results go."""

import glob
from dataclasses import dataclass
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.core.store import PACKED_FROM, Store


def project_root() -> Path:
    """The folder that holds ``conf/config.yaml`` and ``experiments/``: the current one, or what came with the package (inside
    it from a wheel, beside it in a checkout)."""
    for folder in (Path.cwd(), Path(__file__).parents[1], Path(__file__).parents[3]):
        if (folder / "conf" / "config.yaml").exists():
            return folder
    raise GenaugError("This genaug has no conf/config.yaml: install it again, or run in the folder of a checkout.")


def sweep_command() -> list[str]:
    """What starts a sweep from the current folder: a checkout's train.py, or the installed command."""
    return ["python", "train.py", "-m"] if Path("train.py").is_file() else ["genaug", "sweep"]


def roots() -> list[Path]:
    """Folders whose ``conf/`` and ``experiments/`` count: the current one, whose files stand in for the project's of the same
    name, and the project's."""
    return list(dict.fromkeys((Path.cwd(), project_root())))


def experiment_files() -> dict[str, Path]:
    """Every experiment as ``<paper>/<item>`` with its file."""
    folders = [root / "experiments" for root in reversed(roots())]
    return {file.removesuffix(".yaml"): folder / file for folder in folders for file in yaml_files(folder)}


LAUNCH = ("hydra/launcher", "hydra/sweeper")
"""Hydra's own groups for which the project has presets."""


def presets(groups_of_hydra: bool = False) -> dict[str, list[str]]:
    """Names of the presets by group, e.g. ``{"mix": ["concat", …]}``, those of the current folder included."""
    found: dict[str, set[str]] = {}
    for root in roots():
        for file in yaml_files(root / "conf"):
            group, _, name = file.removesuffix(".yaml").rpartition("/")
            found.setdefault(group, set()).add(name)
    own = {
        group
        for group in found
        if group and group.split("/")[0] != "hydra" and (project_root() / "conf" / group).is_dir()
    }
    return {group: sorted(found[group]) for group in sorted(own.union(LAUNCH) if groups_of_hydra else own)}


def yaml_files(folder: Path) -> list[str]:
    """The YAML files in a folder and in those below it, in order, as they are called from there: ``generator/psld.yaml``."""
    return sorted(glob.glob("**/*.yaml", root_dir=folder, recursive=True), key=lambda file: file.split("/"))


@dataclass(kw_only=True, slots=True)
class Paths:
    """Folders of a run. None of them is part of any identity."""

    outputs_dir: str = "outputs"
    """Everything that is written lies below; relative to the current folder."""

    lock_timeout: float | None = None
    """Seconds to wait for another process that makes the same thing; null waits for as long as it takes."""

    packed_from: int = PACKED_FROM
    """Images of a pool from which on it is kept as tar shards instead of one file per image."""

    @property
    def outputs(self) -> Path:
        return Path(self.outputs_dir).expanduser().absolute()

    @property
    def runs(self) -> Path:
        return self.outputs / "runs"

    @property
    def tables(self) -> Path:
        return self.outputs / "tables"

    @property
    def store(self) -> Store:
        return Store(self.outputs / "store", self.lock_timeout, self.packed_from)
