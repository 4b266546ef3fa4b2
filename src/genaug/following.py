"""Several devices train one model (``trainer.devices``): the run's process leads, and one more for each other device follows.

The leader alone holds the run's lock and record, and makes whatever the training needs before it starts the followers. They
read the same pool, take their share of every batch and write nothing. Signals are the leader's to answer.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.interruption import Interrupted
from genaug.runs.cell import Cell
from genaug.tracking.record import Record

PATIENCE = 60.0
"""Seconds that the leader has to hear of a follower's end from the network itself."""

_follows = False


class Silent(Record):
    """A follower's record: nothing for the terminal or W&B, and a folder that nobody reads."""

    def say(self, text: str) -> None:
        self.note(text)


@contextlib.contextmanager
def followers(cell: Cell) -> Iterator[None]:
    """Processes that train ``cell`` together with this one while the block lasts; none for one device.

    Raises:
        GenaugError: if one of them fails.
    """
    if cell.config.trainer.devices == 1 or _follows:
        yield
        return
    import torch.distributed
    from lightning_fabric.plugins.environments import LightningEnvironment

    former = dict(os.environ)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(LightningEnvironment().main_port), "LOCAL_RANK": "0"}
    started: list[subprocess.Popen[bytes]] = []
    over = threading.Event()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for rank in range(1, cell.config.trainer.devices):
                started.append(_start(cell, rank, Path(scratch)))
            threading.Thread(target=_watch, args=(started, over), daemon=True).start()
            try:
                yield
            except Exception as error:
                if codes := _failed(started):
                    raise GenaugError(
                        f"{len(codes)} of the {len(started)} processes that train with this one failed (exit code {codes[0]}); "
                        "what they said stands above. The same command goes on from the last checkpoint."
                    ) from error
                raise
            finally:
                over.set()
                for process in started:  # the end of its input ends a follower
                    assert process.stdin is not None
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
                    process.wait()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(former)


def _start(cell: Cell, rank: int, scratch: Path) -> "subprocess.Popen[bytes]":
    """A process of this Python that knows the run from its input, whatever program this one is."""
    folder = scratch / str(rank)
    folder.mkdir()
    environment = {**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)}
    program = "from genaug.following import follow; from genaug.run import compute; follow(compute)"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed, and said why
        pickle.dump((cell, rank, folder), process.stdin)
        process.stdin.flush()
    return process


def _failed(started: "list[subprocess.Popen[bytes]]") -> list[int]:
    """Exit codes of followers that ended badly, seen up to a few seconds after the leader has lost them."""
    for _ in range(20):
        if codes := [process.returncode for process in started if process.poll()]:
            return codes
        time.sleep(0.1)
    return []


def _watch(started: "list[subprocess.Popen[bytes]]", over: threading.Event) -> None:
    """End the leader if it waits for a follower that is gone: some networks never tell it."""
    while not over.wait(1.0):
        if any(process.poll() for process in started) and not over.wait(PATIENCE):
            print("genaug: a process that trained with this one is gone: run the same command again", file=sys.stderr)
            os._exit(1)


def follow(compute: Callable[[Cell, Record], Any]) -> None:
    """The whole of a follower's work: the stages of the run (``compute``), to the end of the training."""
    global _follows
    _follows = True
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    cell, rank, folder = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_leader, daemon=True).start()
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    try:
        with contextlib.suppress(Interrupted):  # the leader was told to end, and says so
            compute(cell, Silent(folder))
    except GenaugError as error:
        print(f"genaug: {error}", file=sys.stderr)
        sys.exit(2)


def _end_with_leader() -> None:
    """The leader writes nothing more: its end is that of the input, however it ends."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)
