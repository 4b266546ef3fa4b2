"""How far a piece of work is: a bar at a terminal, and a line now and then where the output goes to a file."""

import time
from types import TracebackType
from typing import Any

from genaug.core.console import console

EVERY_SECONDS = 30.0
"""Between two lines in a file; the first comes after as long."""


class Progress:
    """``with Progress("generating", total=120, unit="images") as progress: progress.update(7)``.

    Args:
        title: what is being done.
        total: steps of it in all; None where nobody knows yet.
        unit: what is counted, in the plural.
        completed: steps done before, which do not count for the rate.
    """

    def __init__(self, title: str, total: int | None, unit: str = "steps", completed: int = 0):
        self.title, self.total, self.unit, self.first = title, total, unit, completed
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self.started = self.said = time.perf_counter()
        if not console.is_terminal:
            return
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]:.1f} {task.fields[unit]}/s"),
            progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(self.title, total=self.total, completed=self.first, rate=0.0, unit=self.unit)
        self._bar.start()

    def update(self, completed: int, total: int | None = None) -> None:
        """So many steps are done."""
        self.total = total or self.total
        now = time.perf_counter()
        rate = (completed - self.first) / max(now - self.started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, total=self.total, rate=rate)
        elif now - self.said >= EVERY_SECONDS and not console.is_terminal:
            self.said = now
            console.print(self.line(completed, rate), markup=False)

    def line(self, completed: int, rate: float) -> str:
        """E.g. ``generating: 40 of 120 images, 2.0 images/s, 0:40 left``."""
        text = f"{self.title}: {completed}" + (f" of {self.total}" if self.total else "") + f" {self.unit}"
        if rate <= 0:
            return text
        pace = f"{rate:.1f} {self.unit}/s" if rate >= 0.1 else f"{1 / rate:.0f} s for each"
        if not self.total:
            return f"{text}, {pace}"
        minutes, seconds = divmod(round((self.total - completed) / rate), 60)
        hours, minutes = divmod(minutes, 60)
        left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return f"{text}, {pace}, {left} left"

    def stop(self) -> None:
        """The bar goes away; calling it again does nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
