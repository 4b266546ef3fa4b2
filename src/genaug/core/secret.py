"""Secrets of the environment (``HF_TOKEN``, ``WANDB_API_KEY`` …) stay out of what is typed and kept: whoever needs one reads it
from the environment."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genaug.core.errors import GenaugError

SECRET = re.compile("(API_?KEY|TOKEN|SECRET|PASSWORD|ACCESS_KEY)$")
"""Names of environment variables whose values nobody else may read."""
SHORTEST = 8
ASKED = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
"""An interpolation that asks for a variable: ``${oc.env:HF_TOKEN}``."""


def check_words(words: Sequence[str]) -> None:
    """Raise ``GenaugError`` for an override that holds the value of a secret variable, or asks for it: overrides are kept."""
    for word in words:
        held = [(name, value) for name, value in _secrets() if value in word]
        asked = [name for name in ASKED.findall(word) if SECRET.search(name)]
        if held or asked:
            key = word.partition("=")[0]
            for _, value in held:
                key = key.replace(value, "…")
            _refuse(key, held[0][0] if held else asked[0])


def check_values(value: Any, key: str = "") -> None:
    """Raise ``GenaugError`` for a configuration, as plain values, that holds a secret variable's, however it came there."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_values(name, key)
            check_values(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            check_values(item, key)
    elif isinstance(value, str):
        for name, secret in _secrets():
            if secret in value:
                _refuse(key, name)


def _secrets() -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST)


def _refuse(key: str, name: str) -> None:
    raise GenaugError(
        f"{key} holds the value of {name}, and a configuration is kept with its results. Leave it out: the library that needs "
        f"{name} reads it from the environment."
    )
