"""Signals that end a run: SIGINT (Ctrl-C), SIGTERM (a scheduler), and SIGUSR1 of a SLURM job that is to go on later.

SLURM sends SIGTERM as well to a job that gives way to another, and would not start it again once it has ended by itself.

Each becomes ``Interrupted``, whatever the run is doing, so that its status says so and the process ends with 128 plus the
signal's number. Inside ``deferred`` a first signal waits until the work looks for it, a second one does not.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(BaseException):
    """The run was told to end. Not an ``Exception``: nothing but the way out may catch it."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        return 128 + self.signum

    @property
    def requeues(self) -> bool:
        """Whether SLURM asked for it, shortly before the job's time is up or another job takes its place."""
        return self.signum == signal.SIGUSR1 or (self.signum == signal.SIGTERM and _gives_way())


_pending: list[int] = []
_deferring = 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals into ``Interrupted`` here. Handlers that somebody else has set (submitit's, say) stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(signum: int, frame: Any) -> None:
        if os.getpid() != owner:  # a child that was forked, e.g. a worker that decodes images
            raise KeyboardInterrupt
        if _deferring and not _pending:
            _pending.append(signum)
            return
        raise Interrupted(signum)

    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])]
    former = {signum: signal.getsignal(signum) for signum in wanted}
    for signum, handler in former.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait: the work inside asks for ``pending`` where it can stop, and raises ``Interrupted`` there."""
    global _deferring
    _deferring += 1
    try:
        yield
        if not _deferring - 1 and _pending:
            raise Interrupted(_pending[0])
    finally:
        _deferring -= 1
        if not _deferring:
            _pending.clear()


def pending() -> int | None:
    """The signal that waits; None without one."""
    return _pending[0] if _pending else None


def requeue() -> str:
    """Ask SLURM to start this job again; returns what became of it, in words."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    if shutil.which("scontrol") is None:
        return f"there is no scontrol here: requeue the job {job} by hand"
    done = _scontrol("requeue", job)
    return f"requeued the job {job}" if done.returncode == 0 else f"the job {job} cannot be requeued: {done.stderr}"


def _gives_way() -> bool:
    """Whether this is a job of SLURM that has some time left before another takes its place; not one that was cancelled."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return False
    about = dict(word.split("=", 1) for word in _scontrol("show", "job", job).stdout.split() if "=" in word)
    return about.get("JobState") == "RUNNING" and about.get("PreemptTime", "None") != "None"


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False)
