"""The jobs of a sweep, read as Hydra reads it: the one place that uses Hydra's basic sweeper, which has no public name.

The module is kept and not its class: when Hydra looks for plug-ins it runs the module again, which makes another class.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins import basic_sweeper as basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of ``python train.py -m <overrides>``."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [list(job) for job in basic_sweeper.BasicSweeper.split_arguments(parsed, None)[0]]
