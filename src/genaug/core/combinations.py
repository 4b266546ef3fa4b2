"""The jobs of a sweep, read as Hydra reads it: the one place that uses Hydra's basic sweeper, which has no public name.

The module is kept and not its class: when Hydra looks for plug-ins it runs the module again, which makes another class.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins import basic_sweeper as basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from genaug.core.errors import GenaugError

SPACE = {"type", "low", "high", "step", "log", "choices"}  # how other sweepers describe what they search


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of ``python train.py -m <overrides>``."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [list(job) for job in basic_sweeper.BasicSweeper.split_arguments(parsed, None)[0]]


def parameters(params: Any) -> list[str]:
    """``hydra.sweeper.params`` as overrides: one for each key that is not null.

    A mapping inside stands for dotted keys (``generator: {t0: 0.1,0.5}``), a list for its values one by one.

    Raises:
        GenaugError: for a mapping such as ``{type: float, low: 0, high: 1}``, with the sweep to write instead.
    """
    plain = OmegaConf.to_container(params, resolve=True) if isinstance(params, DictConfig) else params
    return [f"{key}={value}" for key, value in _flat(plain or {}, ())]


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    key = ".".join(path)
    if isinstance(value, Mapping):
        if path and value and set(value) <= SPACE:
            raise GenaugError(
                f"hydra.sweeper.params.{key}={dict(value)} describes a space. Write it as a sweep: interval(0.1, 0.9), "
                "range(1, 10), tag(log, interval(1e-4, 1e-1)), or the values themselves: a,b,c."
            )
        for name, inner in value.items():
            yield from _flat(inner, (*path, str(name)))
    elif isinstance(value, list):
        yield key, ",".join("null" if item is None else str(item) for item in value)
    elif value is not None:
        yield key, str(value)
