"""The words of a command line as Hydra's grammar can read them."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from genaug.core.errors import GenaugError

OPENING = set("[{(\"'$")
"""What begins a value with a structure of its own, whose faults are said."""


def readable(words: Sequence[str]) -> list[str]:
    """The same words, with a value in quotes where Hydra would not take it as the text that it is.

    Its grammar knows no letters beyond ASCII and gives commas, brackets and quotes a meaning, which folders' names have, too:
    ``dataset.root=/photos/Vögel, 2026`` is one folder where there is one.

    Raises:
        GenaugError: for ``=value``.
    """
    if nameless := next((word for word in words if word.startswith("=")), None):
        raise GenaugError(f"{nameless} has no key before its value: write KEY=VALUE.")
    return [_readable(word) for word in words]


def with_outputs(words: Sequence[str]) -> list[str]:
    """The same words with ``paths.outputs_dir=FOLDER`` for ``--outputs FOLDER``, as the console's other commands take it.

    Raises:
        GenaugError: if no folder follows.
    """
    left, rest = [], iter(words)
    for word in rest:
        option, sign, folder = word.partition("=")
        if option == "--outputs":
            folder = folder if sign else next(rest, "")
            if not folder:
                raise GenaugError("--outputs is followed by no folder: write --outputs FOLDER.")
            word = f"paths.outputs_dir={folder}"
        left.append(word)
    return left


def _readable(word: str) -> str:
    key, sign, value = word.partition("=")
    if not sign or key.startswith("-"):
        return word
    escaped = value.replace("'", "\\'")
    quoted = f"{key}='{escaped}'"
    try:
        override = OverridesParser.create().parse_override(word)
        as_text = not override.is_sweep_override() and str(override.value()) == value
    except HydraException:
        # a prompt's {name} and the shards {000000..000003} are text, too, where they do not begin it and nothing is swept
        plain = value if value.startswith("{") or "," in value else re.sub(r"\{[^{}]*\}", "", value)
        return quoted if _exists(value) or not OPENING & set(plain) else word
    return quoted if not as_text and _exists(value) else word


def _exists(value: str) -> bool:
    return "/" in value and not value.startswith(tuple(OPENING)) and Path(value).expanduser().exists()
