"""DiffuseMix (Islam et al., arXiv 2405.14881): half of the source and half of its edit in one picture, a fractal over both."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import choice, probability
from genaug.core.identity import CONTENT
from genaug.core.registry import component
from genaug.data.images import extensions


@component("generator/collage", "collage")
@dataclass(kw_only=True, slots=True)
class Collage:
    """What an edited picture is put together with; its label stays the source's."""

    halves: str = choice("random", ("random", "horizontal", "vertical", "none"))
    """Side of the source: the left or the upper half at ``random``, always the left (``horizontal``), always the upper
    (``vertical``), or ``none``: all of the edit."""
    swap: bool = False
    """Let the source take the other half in half of the images."""
    seam: float = probability(20 / 256)
    """Width of the blend between the halves, as a share of the side. The released code: 20 of 256 pixels."""
    fractal_share: float = probability(0.2)
    """lambda: weight of the fractal; 0 blends none."""
    fractals: str | None = field(default=None, metadata=CONTENT)
    """Folder of fractal images; null draws Julia sets of its own (ours)."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.fractals is not None and not self.files():
            raise GenaugError(
                f"generator.collage.fractals={self.fractals} is no folder with images: write one, or null for fractals that "
                "are drawn here."
            )

    def files(self) -> list[Path]:
        """The images of the folder, by name."""
        folder = Path(self.fractals or "").expanduser()
        return sorted(path for path in folder.glob("*") if path.suffix.lower() in extensions())
