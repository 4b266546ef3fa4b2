"""One pool made by many processes: Ray's (``generation.workers``), or those that wait for the run that makes it.

The claims of the store say who makes which images, so a process that is killed in the middle or joins late changes nothing.
"""

import contextlib
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from genaug.core.claims import is_free
from genaug.core.device import use_threads
from genaug.core.errors import boundary, first_line
from genaug.core.progress import Progress
from genaug.following import Silent
from genaug.generators.forms import form_of
from genaug.generators.publishing import WAIT, fill, in_order
from genaug.line import line_of
from genaug.runs.cell import Cell
from genaug.runs.collection import read_status
from genaug.stages import STAGES, Artefact, Generate, WorkingPrior

LEAST, MOST = 32, 1024
"""Images that Ray hands to a worker at once: as few as still fill batches, as many as a killed worker may leave to others."""
ATTEMPTS = 4
"""Times that Ray is started: it gives its own processes 30 s, whatever is set, which is too little on a busy machine."""
PATIENCE = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300"}
"""Ray's own limits that can be set, as environment variables."""
BEFORE = STAGES[: STAGES.index("filter")]


def helps(cell: Cell) -> None:
    """Make images of a run that another process works on, up to its pool, instead of waiting for it."""
    config = cell.config
    if not config.synthesises or not config.generator.makes_pool or config.task == "fit":
        return
    lock = config.paths.store.root / "locks" / f"{cell.fingerprint}.lock"
    while True:
        if not lock.exists() or is_free(lock):
            return
        if (status := read_status(cell.folder)) is not None and "stage" in status:
            break
        time.sleep(WAIT)  # it has started this moment, as the tasks of an array do together
    if status["stage"] not in BEFORE:
        return
    use_threads(config.num_threads)
    with tempfile.TemporaryDirectory() as scratch:
        record = Silent(Path(scratch))
        dataset = config.dataset.load()
        line, prior = line_of(config, dataset), WorkingPrior(config=config)
        if line.fit is None or line.generate is None:
            return
        for stage in line.erase:
            folder = stage.make().folder
            assert folder is not None
            prior.erasures[stage.concept] = folder
        maker = Maker(line.generate, prior, line.fit.make(prior, record.say))
        made = maker({"images": maker.variants})["made"]
        print(f"{sum(made)} images made for {cell.folder.name}, on which another process works")


class Maker:
    """One of Ray's workers: makes the images that it is handed, or waits for whoever else makes them now.

    Args:
        stage: the stage without its data set, which this process reads itself.
        prior: the diffusion model, not loaded.
        fitted: what the generator learned.
    """

    def __init__(self, stage: Generate, prior: WorkingPrior, fitted: Artefact):
        self.config, self.fitted = stage.config, fitted
        self.dataset = self.config.dataset.load()
        stage = Generate(config=self.config, dataset=self.dataset, fitted=stage.fitted)
        self.variants = {variant.fingerprint: variant for variant in stage.images(self.config.mix.m)}
        self.prior, self.device = prior.load(), self.config.trainer.device()
        self.form = form_of(self.config.paths.store, stage.place, len(self.variants))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """``images``: fingerprints, separated by blanks; returns how many were made here, and the network evaluations."""
        names = [name for text in batch["images"] for name in str(text).split()]
        generator, before = self.config.generator, self.prior.num_evaluations if self.prior is not None else 0
        make = lambda share: generator.generate(share, self.dataset, self.prior, self.fitted.folder, self.device)
        store = self.config.paths.store
        known = store.known(names)
        missing = [self.variants[name] for name in names if name not in known]
        try:
            made = fill(store, self.form, generator, self.dataset, make, missing, lambda text: None)
        finally:
            self.form.close()
        evaluations = self.prior.num_evaluations - before if self.prior is not None else 0
        return {"images": [len(names)], "made": [len(made)], "evaluations": [evaluations]}


def spread(stage: Generate, prior: WorkingPrior, fitted: Artefact, say: Any) -> dict[str, int]:
    """Make the pool's missing images by Ray Data, a worker for each of ``generation.workers``.

    Returns:
        ``made`` and ``evaluations``, of all workers that lived to say so.

    Raises:
        GenaugError: if Ray is not installed or does not start, or a worker fails.
    """
    config = stage.config
    store, workers = config.paths.store, config.generation.workers
    wanted = {variant.fingerprint: variant for variant in stage.images(config.mix.m)}
    known = store.known(wanted)
    missing = in_order([variant for name, variant in wanted.items() if name not in known], stage.dataset)
    total = {"made": 0, "evaluations": 0}
    if not missing:
        return total
    size = min(MOST, max(LEAST, math.ceil(len(missing) / (4 * workers))))
    chunks = [list(missing)[start : start + size] for start in range(0, len(missing), size)]
    with boundary("Ray is not here", "Install it (pip install 'genaug[ray]'), or write generation.workers=1."):
        import ray  # type: ignore[import-not-found]
        import ray.data  # type: ignore[import-not-found]
    with boundary("Ray did not start", "Run the same command again, or write generation.workers=1."):
        started = _start(config.generation.ray_address, workers, say)

    say(f"{len(missing)} images in {len(chunks)} parts for {workers} workers")
    try:
        gpus = 1 if config.trainer.accelerator != "cpu" and ray.cluster_resources().get("GPU", 0) else 0
        shell = Generate(config=config, dataset=None, fitted=stage.fitted)  # type: ignore[arg-type]
        with (
            boundary("Ray's workers could not make the images", "What is made is kept; the same command goes on."),
            Progress(f"generating ({config.generator.name})", len(missing), unit="images") as progress,
        ):
            done = 0
            for batch in _results(chunks, (shell, prior, fitted), workers, gpus):
                done += int(batch["images"].sum())
                progress.update(done)
                for key in total:
                    total[key] += int(batch[key].sum())
    finally:
        if started:
            ray.shutdown()
    return total


def _results(chunks: Sequence[Sequence[str]], arguments: tuple[Any, ...], workers: int, gpus: int) -> Any:
    import ray  # type: ignore[import-not-found]

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    parts = ray.data.from_items([{"images": " ".join(chunk)} for chunk in chunks], override_num_blocks=len(chunks))
    made = parts.map_batches(
        Maker, fn_constructor_args=arguments, batch_size=1, concurrency=workers, num_cpus=1, num_gpus=gpus
    )
    return made.iter_batches(batch_size=1)


def _start(address: str | None, workers: int, say: Any) -> bool:
    """Connect to Ray, or start it here; returns whether it was not running in this process before. Signals stay this run's."""
    import logging

    import ray  # type: ignore[import-not-found]

    if ray.is_initialized():
        return False
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    here = {} if address is not None else {"num_cpus": workers + 1, "include_dashboard": False}
    main = threading.current_thread() is threading.main_thread()
    handler, others = signal.getsignal(signal.SIGTERM), psutil.Process().children()
    for again in (*range(ATTEMPTS - 1, 0, -1), 0):
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
            break
        except Exception as error:
            if not again:
                raise
            say(
                f"Ray did not start in the 30 s that it gives itself ({first_line(error)}); trying again, {again} more times"
            )
            ray.shutdown()
            for process in set(psutil.Process().children()) - set(others):  # it does not end them itself
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if main:
        signal.signal(signal.SIGTERM, handler)
    return True
