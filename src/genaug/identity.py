"""Fingerprints: sha256 over canonical JSON of resolved identity fields.

A component is a dataclass. Each of its fields belongs to its identity unless the field says otherwise, once, in its
metadata:

* ``NOT_IDENTITY``: cannot change a result (device, batch size of the sampler, paths, names);
* ``FIT``: changes what a generator learns, hence the fitted artefact and all its images;
* ``DRAWN``: a law from which a value is drawn per image; the drawn value is part of the image's identity, the law is not.

A component class also contributes its name and its ``version``, bumped when its output changes for the same fields.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOT_IDENTITY = {"identity": False}
FIT = {"stage": "fit"}
DRAWN = {"stage": "drawn"}

FINGERPRINT_LENGTH = 16  # hexadecimal digits: 64 bits


def canonical(value: Any, stage: str | None = None) -> Any:
    """A JSON-ready form of ``value`` that holds identity fields only.

    Args:
        value: a dataclass, a mapping, a sequence, a path or a scalar.
        stage: for a dataclass, keep only the fields of this stage: ``"fit"``, ``"sample"`` (neither fit nor drawn) or
            all of them (``None``).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {"component": type(value).__name__, "version": getattr(type(value), "version", 1)}
        for field in dataclasses.fields(value):
            if not field.metadata.get("identity", True):
                continue
            if stage is not None and field.metadata.get("stage", "sample") != stage:
                continue
            fields[field.name] = canonical(getattr(value, field.name))
        return fields
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and value.is_integer():
        return int(value)  # alpha=1 and alpha=1.0 are one experiment
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no canonical form")


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that identify the parts, in order."""
    text = json.dumps([canonical(part) for part in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def digest_bytes(data: bytes) -> str:
    """Content hash of a picture or a file, 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_LENGTH]
