"""Text that may come from somebody else: experiment files, results, records of sweeps.

Such text is values. It names no class that Hydra should build, asks nothing of this machine's environment and changes nothing
of how Hydra works: whoever reads it may have it from a colleague or a download.
"""

import functools
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from genaug.core.errors import GenaugError, boundary

RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
"""An interpolation that calls something, ``${oc.env:HOME}``; ``${dataset.image_size}`` names a value and is none."""
HYDRA_KEYS = ("mode", "sweeper", "launcher")
"""What an experiment may say of Hydra: that it is a sweep, over what, and with which of the installed launchers."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as Hydra reads it.

    Raises:
        GenaugError: for a file that is not there, is not YAML in UTF-8, or holds no mapping.
    """
    with boundary(f"{path} cannot be read as YAML", "Correct the file."):
        content = pickle.loads(_parsed(path.read_text(encoding="utf-8")))
        if not isinstance(content, dict):
            raise TypeError(
                f"it holds {'nothing' if content is None else type(content).__name__}, not keys with values"
            )
    return content


def read_foreign_yaml(path: Path) -> dict[str, Any]:
    """``read_yaml``, once ``check_values`` has passed the content.

    Raises:
        GenaugError: for a file that cannot be read, and for one that holds more than values.
    """
    content = read_yaml(path)
    check_values(content, str(path))
    foreign = [key for key in content.get("hydra") or {} if key not in HYDRA_KEYS]
    if foreign:
        raise GenaugError(
            f"{path} sets hydra.{foreign[0]}, which an experiment may not: it has hydra.{', hydra.'.join(HYDRA_KEYS)}."
        )
    return content


@functools.lru_cache(maxsize=1000)
def _parsed(text: str) -> bytes:
    """What YAML says, pickled: a command reads an experiment's file up to ten times, and each parsing takes 4 ms or more."""
    return pickle.dumps(yaml.load(text, Loader=get_yaml_loader()))


def check_values(value: Any, where: str, key: str = "") -> None:
    """Raise ``GenaugError`` for text that would do more than be a value; ``where`` names the file."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if re.fullmatch(r"_[a-z]+_", str(name)) and name != "_self_":
                raise GenaugError(
                    f"{where} has {key}{name}, which would let the file choose what code runs: choose presets of conf/ instead."
                )
            check_values(item, where, f"{key}{name}.")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            check_values(item, where, key)
    elif isinstance(value, str) and (found := RESOLVER.search(value)):
        raise GenaugError(
            f"{where} has {key.rstrip('.')}: {value!r}, and ${{{found[1]}:…}} would be worked out on this machine: write the "
            "value itself, or give it on the command line."
        )


def check_overrides(overrides: Sequence[str], where: str) -> None:
    """Raise ``GenaugError`` for overrides in a file that are more than choices of presets and values."""
    for override in overrides:
        if override.lstrip("+~").startswith("hydra") or re.search(r"(^|\W)_[a-z]+_\W", override):
            raise GenaugError(
                f"{where} has {override!r}, which would change what runs here: give the overrides yourself."
            )
        check_values(override, where)
