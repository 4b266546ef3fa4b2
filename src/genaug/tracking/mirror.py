"""What a tracker is to a run: a mirror of its local record, which may fail without harm."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from genaug.data.detections import Detections
    from genaug.data.sample import Sample


class Tracked(Protocol):
    """What records and trackers need to know of a run."""

    config: Any
    fingerprint: str

    @property
    def folder(self) -> Path: ...
    @property
    def slug(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def names(self) -> dict[str, str]: ...
    @property
    def resolved(self) -> dict[str, Any]: ...


class Mirror(ABC):
    """One run's page in one tracker. Whatever it raises costs the page, never the run (``record.Record``)."""

    title: ClassVar[str]
    """The tracker's name in messages."""
    later: ClassVar[str] = ""
    """How the page can be had after a failure."""

    @abstractmethod
    def log(self, metrics: "Mapping[str, float]", step: int) -> None:
        """Numbers at a training step."""

    def rewind(self, rows: "Sequence[Mapping[str, float]]") -> None:
        """The rows that count, ``step`` among their keys, when an interrupted training goes on after the last of them."""

    @abstractmethod
    def image(self, key: str, path: Path) -> None:
        """A picture from a file of the run's folder."""

    def detections(self, key: str, found: "Sequence[tuple[Sample, Detections]]", names: "Sequence[str]") -> None:
        """Images with their labelled boxes and what was found in them."""

    def pool(self, folder: Path, is_new: bool) -> None:
        """The pool that the run trains on, and whether it has made images of it."""

    @abstractmethod
    def finish(self, summary: "Mapping[str, Any]", exit_code: int) -> None:
        """Close the page with the run's numbers and names."""
