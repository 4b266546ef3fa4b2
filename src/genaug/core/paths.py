"""Where results go."""

from dataclasses import dataclass
from pathlib import Path

from genaug.core.store import Store


@dataclass(kw_only=True, slots=True)
class Paths:
    """Folders of a run. None of them is part of any identity."""

    outputs_dir: str = "outputs"
    """Everything that is written lies below; relative to the current folder."""

    @property
    def outputs(self) -> Path:
        return Path(self.outputs_dir).expanduser().absolute()

    @property
    def runs(self) -> Path:
        return self.outputs / "runs"

    @property
    def tables(self) -> Path:
        return self.outputs / "tables"

    @property
    def store(self) -> Store:
        return Store(self.outputs / "store")
