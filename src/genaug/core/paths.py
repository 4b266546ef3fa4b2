"""Where the project lies and where results go."""

from dataclasses import dataclass
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.core.store import Store


def project_root() -> Path:
    """The folder that holds ``conf/`` and ``experiments/``: the current one, or the checkout of an editable install."""
    for folder in (Path.cwd(), Path(__file__).parents[3]):
        if (folder / "conf" / "config.yaml").exists():
            return folder
    raise GenaugError("There is no conf/config.yaml here. Run from the folder of a genaug checkout.")


@dataclass(kw_only=True, slots=True)
class Paths:
    """Folders of a run. None of them is part of any identity."""

    outputs_dir: str = "outputs"
    """Everything that is written lies below; relative to the current folder."""

    lock_timeout: float | None = None
    """Seconds to wait for another process that makes the same thing; null waits for as long as it takes."""

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
        return Store(self.outputs / "store", self.lock_timeout)
