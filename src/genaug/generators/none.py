"""No generator: the baseline."""

from dataclasses import dataclass
from typing import ClassVar

from genaug.core.registry import component
from genaug.generators.base import Generator


@component("generator", "none")
@dataclass(kw_only=True, slots=True)
class NoGenerator(Generator):
    """Makes no images; every mix of it is the real data alone."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")
    uses_prior: ClassVar[bool] = False

    @property
    def makes_pool(self) -> bool:
        return False
