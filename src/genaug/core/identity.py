"""Fingerprints: sha256 over canonical JSON of resolved identity fields.

A component is a dataclass. Each of its fields belongs to its identity unless the field says otherwise, once, in its
metadata:

* ``NOT_IDENTITY``: cannot change a result (device, batch size of the sampler, paths, names);
* ``FIT``: changes what a generator learns, hence the fitted artefact and all its images;
* ``DRAWN``: a distribution from which a value is drawn per image; that value is part of the image's identity, the distribution
  is not;
* ``CONTENT``: a path whose content counts, not its place: a file, or a folder with all that is below it. What is neither
  (a Hub id) counts as it is written. ``content_by(method)`` instead names the component's own method that gives the
  content, where only a part of the files counts or they are too many to be read;
* ``OPTIONAL``: a part that may be absent (None) and then leaves no trace, so that what was there before it keeps its identity.

A component class also contributes its identity name, stated once by ``identified`` (``component`` does it) so that renaming
the class changes nothing, and its ``version``, bumped when its output changes for the same fields.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

NOT_IDENTITY = {"identity": False}
FIT = {"stage": "fit"}
DRAWN = {"stage": "drawn"}
CONTENT = {"content": True}
OPTIONAL = {"optional": True}


def content_by(method: str) -> dict[str, Any]:
    """Field metadata: what the path holds enters the identity as the component's ``method()`` gives it."""
    return {"content": method}


FINGERPRINT_LENGTH = 16  # hexadecimal digits: 64 bits


def identified(name: str) -> Callable[[type[T]], type[T]]:
    """Give a dataclass the name under which it enters identities, e.g. ``generator/da_fusion``."""

    def name_it(cls: type[T]) -> type[T]:
        cls.identity_name = name  # type: ignore[attr-defined]
        return cls

    return name_it


def canonical(value: Any, stage: str | None = None, read: bool = True) -> Any:
    """A JSON-ready form of ``value`` that holds identity fields only.

    Args:
        value: a dataclass, a mapping, a sequence, a path or a scalar.
        stage: for a dataclass, keep only the fields of this stage: ``"fit"``, ``"sample"`` (neither fit nor drawn) or
            all of them (``None``).
        read: take the content of what ``CONTENT`` fields name; false takes the paths as they are written.
    """
    if value is None or isinstance(value, str | int):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if "identity_name" not in vars(type(value)):
            raise TypeError(f"{type(value).__name__} enters an identity without a name: put @identified above it")
        fields = {"component": vars(type(value))["identity_name"], "version": getattr(type(value), "version", 1)}
        for field in dataclasses.fields(value):
            if not field.metadata.get("identity", True):
                continue
            if stage is not None and field.metadata.get("stage", "sample") != stage:
                continue
            content = getattr(value, field.name)
            if content is None and field.metadata.get("optional"):
                continue
            how = field.metadata.get("content")
            if how and read and content is not None:
                content = getattr(value, how)() if isinstance(how, str) else content_of(content) or content
            fields[field.name] = canonical(content, read=read)
        return fields
    if isinstance(value, Mapping):
        return {
            str(key): canonical(item, read=read) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))
        }
    if isinstance(value, list | tuple):
        return [canonical(item, read=read) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return int(value) if value.is_integer() else value  # alpha=1 and alpha=1.0 are one experiment
    raise TypeError(f"{type(value).__name__} has no canonical form")


class CanonicalText(str):
    """The canonical JSON of a part, made before: what many fingerprints share is written once."""


def canonical_text(value: Any, stage: str | None = None) -> CanonicalText:
    """``canonical(value, stage)`` as JSON, for ``fingerprint``."""
    if isinstance(value, CanonicalText):
        return value
    return CanonicalText(json.dumps(canonical(value, stage), sort_keys=True, separators=(",", ":"), allow_nan=False))


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that identify the parts, in order."""
    text = f"[{','.join(map(canonical_text, parts))}]"
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def fingerprints_of(*parts: Any) -> Callable[[bytes], str]:
    """``fingerprint(*parts, …)`` for many ends: a function of the canonical texts of the parts that follow, joined by
    commas, as bytes.

    What they have in common is hashed once.
    """
    start = hashlib.sha256(f"[{','.join(map(canonical_text, parts))},".encode())

    def end(rest: bytes) -> str:
        hashed = start.copy()
        hashed.update(rest + b"]")
        return hashed.hexdigest()[:FINGERPRINT_LENGTH]

    return end


class Texts:
    """Canonical texts of what many configurations have in common: one for the same components, however many runs share them."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[CanonicalText, tuple[object, ...]]] = {}

    def of(self, name: str, make: Callable[[], Any], *components: object) -> CanonicalText:
        """The text of what ``make`` returns, which depends on these components alone."""
        key = (name, *map(id, components))
        if key not in self._known:  # the components are kept with it, so that no other object gets their id
            self._known[key] = canonical_text(make()), components
        return self._known[key][0]


def digest_bytes(data: bytes) -> str:
    """Content hash of a picture or a file, 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_LENGTH]


def content_digest(path: Path) -> str:
    """Content hash of a file, 16 hexadecimal digits; read once per process and per change."""
    return _sha256(path).hex()[:FINGERPRINT_LENGTH]


def folder_digest(folder: Path, files: Iterable[Path]) -> str:
    """Hash of the content of files and of their names below ``folder``, in the order given."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(_sha256(path))
    return total.hexdigest()[:FINGERPRINT_LENGTH]


def content_of(written: str) -> str | None:
    """Digest of the content of a file or a folder; None where there is neither."""
    path = Path(written).expanduser()
    if path.is_dir():
        return folder_digest(path, (file for file in sorted(path.rglob("*")) if file.is_file()))
    return content_digest(path) if path.is_file() else None


def _sha256(path: Path) -> bytes:
    stat = path.stat()
    return _sha256_of(str(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256_of(path: str, size: int, mtime_ns: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
