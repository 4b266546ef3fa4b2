"""State files: written whole or not at all, and read without a traceback whatever became of them since.

A file is written beside its place, flushed to disk and renamed. One that is cut, empty, binary or of another shape counts
as absent, and is named once on the standard error.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import math
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from genaug.core.errors import GenaugError

PARTIAL = ".partial"
"""Ending of names that hold what is not finished; ``genaug gc`` lists those that nobody finished."""

SEAL = "about_sha256"
"""Key with the hash of the other keys and values of an object."""

Needs = Mapping[str, type | UnionType]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; at the end the file there is flushed to disk and replaces ``path``.

    Whatever fails in between leaves the file that was there before. The name is unique among hosts, processes and threads.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}.{writer}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, which has no word for what is not a number: the place that holds it writes None (``null``).

    Raises:
        GenaugError: for NaN or an infinite number; it names the file and the place.
    """
    write_text(path, as_json(value, str(path), indent=1) + "\n")


def write_sealed(path: Path, about: Mapping[str, Any]) -> None:
    """Write an object as ``write_json`` does, with its seal."""
    plain = json.loads(as_json(about, str(path)))
    write_json(path, {**plain, SEAL: seal_of(plain)})


def as_json(value: Any, where: str, indent: int | None = None) -> str:
    """The text of ``write_json``; ``where`` names it in the error."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        key, number = next(_not_finite(value, ""))
        raise GenaugError(
            f"{where} cannot be written: {key.lstrip('.')} is {number}, which no result may hold. Something in front of it has "
            "diverged or was measured on nothing."
        ) from None
    except TypeError as error:  # numpy's numbers and arrays, of somebody's own component
        raise GenaugError(
            f"{where} cannot be written ({error}): give plain numbers, texts, lists and mappings, e.g. float(x) or x.tolist()."
        ) from error


def has_changed(about: dict[str, Any]) -> bool:
    """Whether what is said of an artefact, an image or a run is not what its seal was put on; earlier versions wrote none."""
    return about.get(SEAL, seal_of(about)) != seal_of(about)


def seal_of(about: dict[str, Any]) -> str:
    """sha256 of what is said of an artefact, of an image in a manifest, or of a run, as plain JSON values."""
    rest = {key: value for key, value in about.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _not_finite(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every NaN and infinite number with its place, e.g. ``metrics.test/map``."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _not_finite(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{key}[{i}]")


def read_json(path: Path, needs: Needs | None = None, kind: type = dict) -> Any:
    """The value in a JSON file; None where there is no such file, or a damaged one, which is named.

    Args:
        path: the file.
        needs: keys that an object must have, and the types of their values.
        kind: ``dict`` for an object, ``list`` for an array.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        say_damaged(path, str(error))
        return None
    if (why := _misfit(value, needs or {}, kind)) is not None:
        say_damaged(path, why)
        return None
    return value


def read_packed(path: Path, most: int) -> bytes:
    """The content of a file, unpacked if its name ends in ``.gz``: at most so many bytes, whatever it was packed to.

    Raises:
        ValueError: if there is more.
        OSError, EOFError, zlib.error: if it cannot be read or unpacked.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it holds more than {most} bytes")
    return data


def read_rows(path: Path, needs: Needs | None = None) -> list[dict[str, Any]]:
    """The objects of a file with one per line; lines that are damaged, e.g. cut by a kill, are left out and named."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        say_damaged(path, str(error))
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            why = _misfit(row, needs or {}, dict)
        except (ValueError, RecursionError) as error:
            row, why = None, str(error)
        if why is None:
            rows.append(row)
        else:
            say_damaged(path, f"line {number}: {why}")
    return rows


def _misfit(value: Any, needs: Needs, kind: type) -> str | None:
    """Why a value is not what was written there; None if it is."""
    if not isinstance(value, kind):
        return f"it holds {type(value).__name__} instead of {kind.__name__}"
    for key, wanted in needs.items():
        if key not in value:
            return f"{key} is missing"
        if not isinstance(value[key], wanted):
            return f"{key} is {type(value[key]).__name__}"
    return None


@functools.cache
def say_damaged(path: Path, why: str) -> None:
    """Name a damaged file, once per process."""
    print(f"genaug: {path} is damaged ({why.splitlines()[0] if why else 'unreadable'}) and left out", file=sys.stderr)
