"""Runs of a sweep at the same time on one machine, each in a process of its own.

A worker is this Python again, which takes one run after the other, so that imports are paid for once. What it prints comes out
here with the number of its run in front. One that is killed costs the run that it was at, no other.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import cloudpickle  # Hydra runs the modules of its plug-ins twice: pickle would not find their classes

from genaug.core.console import console
from genaug.core.progress import Progress

BEGIN = b"\0"
"""Begins the line with a job's number that a worker prints in front of what the job says."""
PATIENCE = 60.0
"""Seconds that workers have to write a checkpoint when the sweep is told to end."""

Answer = tuple[bool, Any]
"""Whether a job ended well, and what it returned, or else its exception."""
Job = Callable[[int, Sequence[str]], Any]
"""Runs the overrides of one job, given its number in the sweep."""


class Died(Exception):
    """A worker is gone in the middle of a job; says how it ended."""


class Worker:
    """One process that runs jobs.

    Args:
        job: what runs there; it and what it refers to are sent by value where they cannot be imported.
        threads: of torch, where a run does not say how many.
    """

    def __init__(self, job: Job, threads: int):
        answers, here = os.pipe()
        program = "from genaug.runs.side_by_side import work; work()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(here), str(os.getpid())],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONUNBUFFERED": "1",
                "OMP_NUM_THREADS": str(threads),
                "MKL_NUM_THREADS": str(threads),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(here,),
            start_new_session=True,  # Ctrl-C at the terminal is this process's to pass on
        )
        os.close(here)
        self.answers = os.fdopen(answers, "rb")
        self.said = threading.Thread(target=self._say, daemon=True)
        self.said.start()
        with contextlib.suppress(BrokenPipeError):
            self._send(job)

    def _send(self, value: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(cloudpickle.dumps(value))
        self.process.stdin.flush()

    def _say(self) -> None:
        """Pass on what the worker prints."""
        assert self.process.stdout is not None
        number = 0
        for line in self.process.stdout:
            if line.startswith(BEGIN):
                number = int(line.removeprefix(BEGIN))
                continue
            console.print(f"[{number + 1}] {line.decode(errors='replace').rstrip()}", markup=False)

    def run(self, number: int, overrides: Sequence[str]) -> Answer:
        """Run one job.

        Raises:
            Died: if the process ends before it answers.
        """
        try:
            self._send((number, list(overrides)))
            return pickle.load(self.answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = self.process.wait()
            self.said.join(1.0)
            raise Died(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None

    def end(self) -> None:
        """Let it end, as it has nothing to do."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.said.join(1.0)


def side_by_side(
    jobs: Mapping[int, Sequence[str]], job: Job, processes: int, threads: int
) -> Iterator[tuple[int, Answer | Died]]:
    """Run jobs in ``processes`` workers.

    Args:
        jobs: the overrides of each by its number in the sweep, in the order in which they start.
        job: runs one, in a worker.
        threads: of each worker.

    Yields:
        the number of a job and how it ended, in the order of their ends.
    """
    idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
    for _ in range(processes):
        idle.put(None)
    workers: list[Worker] = []
    common = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()

    def run(number: int) -> Answer | Died:
        worker = idle.get()
        if worker is None:
            worker = Worker(job, threads)
            workers.append(worker)
        differs = " ".join(word for word in jobs[number] if word not in common)
        console.print(f"[{number + 1}] {differs}", markup=False)
        try:
            answer = worker.run(number, jobs[number])
        except Died as end:
            idle.put(None)
            return end
        idle.put(worker)
        return answer

    pool = ThreadPoolExecutor(processes)
    try:
        with Progress("sweep", len(jobs), unit="runs") as progress:
            futures = {pool.submit(run, number): number for number in jobs}
            for done, future in enumerate(as_completed(futures), start=1):
                progress.update(done)
                yield futures[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        try:
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, deadline - time.monotonic()))
                worker.said.join(1.0)
        finally:  # also when it is told to end a second time
            for worker in workers:
                worker.process.kill()
        raise
    pool.shutdown()
    for worker in workers:
        worker.end()


def work() -> None:
    """The whole of a worker's life: jobs from the input, their answers to the file descriptor that it was given."""
    descriptor, leader = map(int, sys.argv[1:3])
    threading.Thread(target=_end_with, args=(leader,), daemon=True).start()
    answers = os.fdopen(descriptor, "wb")
    job = pickle.load(sys.stdin.buffer)
    while True:
        try:
            number, overrides = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        sys.stdout.write(f"{BEGIN.decode()}{number}\n")
        sys.stdout.flush()
        try:
            answer: Answer = True, job(number, overrides)
        except Exception as error:
            answer = False, error
        except BaseException as end:  # told to end: the run has said so in its status
            sys.exit(getattr(end, "exit_code", 1))
        answers.write(cloudpickle.dumps(answer))
        answers.flush()


def _end_with(leader: int) -> None:
    """End as after SIGTERM when the process that started this one is gone."""
    while os.getppid() == leader:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
