"""The pools of finished runs, with the real data that they were made from."""

import shlex
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError, boundary
from genaug.core.registry import COMPONENTS, load_components
from genaug.core.store import Store
from genaug.data.pool import ALL_VARIANTS, Pool, read_pool
from genaug.data.sample import Dataset
from genaug.runs.collection import read_results


def find_pool(
    outputs: Path, wanted: str, num_variants: int = ALL_VARIANTS, with_rejected: bool = False
) -> tuple[Pool, Dataset]:
    """The pool that ``find_run`` finds, and its real data."""
    return pool_of(outputs, find_run(outputs, wanted), num_variants, with_rejected)


def find_run(outputs: Path, wanted: str) -> dict[str, Any]:
    """The result of a run whose pool's fingerprint begins with ``wanted``, or else whose folder's name contains it,
    ``*`` for anything between: ``da_fusion*_s0``. Of a path its last part counts: ``data/photos*da_fusion*_s0``.

    Raises:
        GenaugError: if no finished run used such a pool, or runs with several did; it lists them.
    """
    runs, part = outputs / "runs", wanted.replace("/*", "*").rpartition("/")[2]
    results = [r for r in (read_results(sorted(runs.iterdir())) if runs.is_dir() else []) if r["pool"]]
    for test in (lambda r: r["pool"].startswith(wanted), lambda r: fnmatchcase(r["cell"], f"*{part}*")):
        found = {result["pool"]: result for result in reversed(results) if test(result)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise GenaugError(
                f"{wanted!r} may mean {len(found)} pools; write the first digits of one of them, or more of its run's name, * "
                f"for anything between:{_lines(found.values())}"
            )
    pools = {result["pool"]: result for result in reversed(results)}.values()
    raise GenaugError(f"No finished run below {runs} has a pool {wanted!r}. Pools:{_lines(pools) or ' none yet.'}")


def _lines(results: Iterable[dict[str, Any]]) -> str:
    """Each pool's fingerprint and a run that used it."""
    return "".join(f"\n  {result['pool']}  {result['cell']}" for result in sorted(results, key=lambda r: r["cell"]))


def pool_of(
    outputs: Path, result: dict[str, Any], num_variants: int = ALL_VARIANTS, with_rejected: bool = False
) -> tuple[Pool, Dataset]:
    """The first ``num_variants`` images per source of the pool that a finished run used, and its real data.

    Raises:
        GenaugError: if the images or the real data are gone.
    """
    dataset, folder = dataset_of(result), Store(outputs / "store").pool(result["pool"])
    if not folder.is_dir():
        words = [word for word in result["overrides"] if not word.startswith("task=")]
        raise GenaugError(
            f"The images of {result['cell']} are no longer in {folder}. This makes them again: "
            f"{shlex.join(['genaug', 'run', 'task=generate', *words])}"
        )
    return read_pool(folder, dataset, num_variants, with_rejected), dataset


def dataset_of(result: dict[str, Any]) -> Dataset:
    """The real data of a finished run, as it read them, whatever its presets say now.

    A result may come from elsewhere, so it chooses among the data sets that are installed and gives plain values, no more.

    Raises:
        GenaugError: if it does not, or the data set is not here.
    """
    load_components()
    where = f"{result['cell']}/result.json"
    with boundary(f"{where} names a data set that this project does not have", "Run its command again."):
        source = COMPONENTS["dataset"][result["source"].removeprefix("dataset/")](**result["config"]["dataset"])
    try:
        return source.load()
    except GenaugError as error:
        raise GenaugError(
            f"The real images of {result['cell']} cannot be read: {error} Put them back where they were, or run this in the "
            "folder in which the run was started."
        ) from error
