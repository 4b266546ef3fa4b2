"""What can be copied to another machine: finished runs, artefacts and pools, each a folder of files with hashes."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from genaug.core.files import PARTIAL
from genaug.core.store import ABOUT, Store, file_hash
from genaug.data.packed import SHARDED
from genaug.data.pool import ACCEPTED
from genaug.runs.collection import read_result

RUNS, POOLS = "runs", "pools"
LEFT_OUT = ("checkpoints",)
"""Folders of a run that its result does not need."""

Files = dict[str, dict[str, Any]]
"""``sha256`` and ``size`` of each file of an item, by its path below the item's folder."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Item:
    """A finished run, an artefact or a pool on this machine."""

    kind: str
    """``runs``, ``pools``, ``fitted``, ``erasures`` …: the folder that it lies in."""
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def files(self) -> Files:
        """Every file that belongs to it, hashed."""
        endings = (PARTIAL, ".lock")  # a killed writer leaves both
        paths = (path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.name.endswith(endings))
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {
            name: {"sha256": file_hash(path), "size": path.stat().st_size}
            for name, path in named.items()
            if self.kind != RUNS or name.partition("/")[0] not in LEFT_OUT
        }


def items(outputs: Path, patterns: Sequence[str] = ()) -> list[Item]:
    """What of ``outputs`` is finished; with patterns, those whose names match one."""
    store = Store(outputs / "store")
    runs = [path.parent for path in sorted((outputs / RUNS).glob("*/result.json")) if read_result(path.parent)]
    artefacts = [path.parent for path in sorted(store.root.glob(f"*/*/{ABOUT}")) if path.parent.name[0] != "."]
    pools = [pool for pool in store.pools() if (pool / ACCEPTED).is_file() or (pool / SHARDED).is_file()]
    found = [Item(kind=folder.parent.name, folder=folder) for folder in (*artefacts, *pools, *runs)]
    return [item for item in found if matches(item.name, patterns)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is asked for: any is without patterns."""
    return not patterns or any(fnmatchcase(name, f"*{pattern}*") for pattern in patterns)


def folder_of(outputs: Path, kind: str, name: str) -> Path:
    """Where an item of that kind lies on this machine."""
    return outputs / kind / name if kind == RUNS else outputs / "store" / kind / name
