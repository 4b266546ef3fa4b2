"""The jobs of a sweep, read as Hydra reads it: the one place that uses Hydra's basic sweeper, which has no public name."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper as BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of ``python train.py -m <overrides>``."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
