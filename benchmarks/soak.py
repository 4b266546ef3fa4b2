"""Kill runs at random moments and issue the same command again until it ends: is anything lost, and does the result change?

    python -m benchmarks soak --kills 200
    python -m benchmarks soak --minutes 10 --only detection quality

Each run is killed (SIGKILL, SIGTERM or SIGINT) up to --per-run times and then left to end. Its metrics and the pixels of its
images are compared with those of the same run that was never killed. Every second run has a twin on the same store, killed at
the same moment. At the end each store is verified. Prints one line per run, and the sums as JSON. With --out they are added,
after each run, to those of earlier starts in the file, which count for --kills.

What a killed run or its twin left is made in batches of another size, which moves the last digit of a number and so, at times,
one of 255 in a few values. Such images count as equal, and the metrics must then be those of a run that finds these images.

Runs are forks of this process, which has imported everything, so that kills strike work and not imports.

The one wrong exit code in results/soak.json is of a version that did not print it. That version made 1 of a SIGINT in the first
milliseconds of a fork, before genaug's own lines; this one does not, and none came with 165 more kills of the same kinds.
"""

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.soak_runs import MEASURED, RUNS, with_files
from genaug.core.files import write_json
from genaug.core.store import Store

MODULES = (
    "app", "cli", "run", "downstream.classification.module", "downstream.detection.module", "priors.model", "priors.erasure",
    "evaluation.quality", "evaluation.filters", "generators.sdedit.sampler", "generators.tokens.textual_inversion",
    "generators.dreamda.batches", "generators.psld.inpaint", "generators.latent_interpolation.images",
    "generators.latent_interpolation.fit", "drawing.contact_sheet", "tables.terminal",
)  # fmt: skip
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
SUMS = (
    "runs", "ended", "failed", "hung", "equal result", "different result", "wrong exit codes", "damaged stores",
    "runs of two processes", "images compared", "of them another by rounding",
)  # fmt: skip
PATIENCE = 900.0
"""Seconds that a run may take, on however busy a machine, before it counts as hanging."""
MOST_ROUNDED = 0.01
"""Share of an image's values that may be another by one of 255."""


def command(words: list[str], outputs: Path) -> BaseProcess:
    """Start ``genaug WORDS`` or ``train.py WORDS`` with its output in ``soak.txt``."""

    def main() -> None:
        log = os.open(outputs / "soak.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
        except KeyboardInterrupt:  # before or after genaug's own handlers: as Python ends its programs
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def work() -> None:
        from genaug import app, cli

        if words[0] == "verify":
            sys.argv = ["genaug", *words, "--outputs", str(outputs)]
            return cli.main()
        sys.argv = ["train.py", *RUNS[words[0]], f"paths.outputs_dir={outputs}"]
        app.main()
        if words[0] in MEASURED:
            sys.argv = ["genaug", "quality", "digits", "--features", "pixels", "--outputs", str(outputs)]
            cli.main()
        return None

    process = multiprocessing.get_context("fork").Process(target=main)
    former = signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # else multiprocessing's own end makes 1 of an early or late SIGINT
    process.start()
    signal.signal(signal.SIGINT, former)
    return process


def outcome(outputs: Path) -> dict[str, Any]:
    """What a run leaves that must not depend on kills."""
    store, pixels = Store(outputs / "store"), lambda file: np.asarray(Image.open(file), int)
    packed = [store.packed.at(place) for place in range(len(store.packed.records))]
    results = [json.loads(path.read_text()) for path in outputs.glob("runs/*/result.json")]
    return {
        "metrics": [result["metrics"] for result in results],
        "images": {
            **{path.stem: pixels(path) for path in store.images()},
            **{image.stem: pixels(io.BytesIO(image.read())) for image in packed},
        },
        "quality": [json.loads(path.read_text())["measures"] for path in outputs.glob("quality/*.json")],
    }


def differing(name: str, outputs: Path, found: dict[str, Any], expected: dict[str, Any]) -> tuple[list[str], int]:
    """What is not as in the run that was never killed, and how many images are another by the last digit of a number."""
    if found["images"].keys() != expected["images"].keys():
        return ["images"], 0
    distances = {key: abs(found["images"][key] - pixels) for key, pixels in expected["images"].items()}
    if any(distance.max() > 1 or (distance > 0).mean() > MOST_ROUNDED for distance in distances.values()):
        return ["images"], 0
    rounded = sum(bool(distance.any()) for distance in distances.values())
    if rounded:
        for folder in ("runs", "quality"):
            shutil.rmtree(outputs / folder, ignore_errors=True)
        finish(name, outputs, PATIENCE)
        expected = outcome(outputs)
    return [key for key in ("metrics", "quality") if found[key] != expected[key]], rounded


def finish(name: str, outputs: Path, patience: float) -> tuple[str, float]:
    """Let a run end; ``ended``, ``failed`` or ``hung``, and its CPU seconds, which do not depend on what else runs here."""
    outputs.mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = command([name], outputs)
    process.join(patience)
    hung = process.exitcode is None
    if hung:
        process.kill()
        process.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return "hung" if hung else "ended" if process.exitcode == 0 else "failed", seconds


def work_for(processes: list[BaseProcess], seconds: float) -> None:
    """Wait until the first process has had so many CPU seconds, or all have ended."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(processes[0].pid)
        while any(process.is_alive() for process in processes):
            times = first.cpu_times()
            if times.user + times.system >= seconds:
                break
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="0: each kind once, without any")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further run after this time")
    parser.add_argument("--per-run", type=int, default=5)
    parser.add_argument("--twins", action="store_true", help="two processes in every run, not in every second one")
    names = [signum.name for signum in CODES]
    parser.add_argument("--signals", nargs="*", default=names, choices=names, help="those that kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--out", type=Path, help="a JSON file for the sums; those in it are added to")
    options = parser.parse_args()
    for module in MODULES:
        importlib.import_module(f"genaug.{module}")
    started = time.monotonic()
    former = json.loads(options.out.read_text()) if options.out is not None and options.out.exists() else {}
    kills, kinds = Counter[str](former.get("by signal", {})), Counter[str](former.get("by kind of run", {}))
    sums = Counter[str]({key: former.get(key, 0) for key in SUMS})
    draw = random.Random(f"{options.seed} {sums['runs']}")

    def report() -> dict[str, Any]:
        figures = {
            "kills": kills.total(),
            "by signal": dict(kills),
            "by kind of run": dict(kinds),
            **{key: sums[key] for key in SUMS},
            "minutes": round(former.get("minutes", 0.0) + (time.monotonic() - started) / 60, 1),
            "machine": f"{os.cpu_count()} x {platform.machine()}",
            "seed": options.seed,
        }
        if options.out is not None:
            write_json(options.out, figures)
        return figures

    with tempfile.TemporaryDirectory() as top:
        whole: dict[str, tuple[dict[str, Any], float]] = {}

        def unkilled(name: str) -> tuple[dict[str, Any], float]:
            """What the run leaves when nobody kills it, and its seconds."""
            if name not in whole:
                RUNS[name] = with_files(RUNS[name], Path(top))
                outputs = Path(top) / f"whole-{name}"
                state, seconds = finish(name, outputs, PATIENCE)
                if state != "ended":
                    sys.exit(f"{name} fails without any kill:\n{(outputs / 'soak.txt').read_text()}")
                whole[name] = outcome(outputs), seconds
                print(
                    f"{name}: {seconds:.1f} CPU s and {len(whole[name][0]['images'])} images without kills", flush=True
                )
            return whole[name]

        if options.kills == 0:
            for name in options.only:
                unkilled(name)
        while kills.total() < options.kills and time.monotonic() - started < 60 * options.minutes:
            rounds, kind = divmod(sums["runs"], len(options.only))
            name, twin = options.only[kind], 1 if options.twins else (rounds + kind) % 2
            expected, seconds = unkilled(name)
            outputs = Path(top) / f"{sums['runs']}-{name}"
            outputs.mkdir()
            left = seconds
            for _ in range(min(options.per_run, options.kills - kills.total())):
                processes = [command([name], outputs) for _ in range(1 + twin)]
                moment = draw.uniform(0.05, 0.95) * left
                left = max(
                    left - moment, 0.2 * seconds
                )  # what is done is not done again, but the next attempt starts, too
                work_for(processes, moment)
                signum = signal.Signals[draw.choice(options.signals)]
                for process in processes:
                    if process.is_alive():
                        os.kill(process.pid, signum)  # type: ignore[arg-type]
                        process.join()
                        kills[signum.name] += 1
                        kinds[name] += 1
                        if process.exitcode not in (*CODES[signum], 0):  # 0: it ended first
                            sums["wrong exit codes"] += 1
                            said = (outputs / "soak.txt").read_text()[-3000:]
                            print(f"{name}: exit code {process.exitcode} after {signum.name}\n{said}", flush=True)
                if any(process.exitcode == 0 for process in processes):
                    break  # it ended first
            state, _ = finish(name, outputs, PATIENCE)
            found = outcome(outputs)
            checked = command(["verify"], outputs)
            checked.join()
            differs, rounded = differing(name, outputs, found, expected)
            sums.update(["runs", state, f"{'different' if differs else 'equal'} result"])
            sums["runs of two processes"] += twin
            sums["images compared"] += len(expected["images"])
            sums["of them another by rounding"] += rounded
            sums["damaged stores"] += checked.exitcode != 0
            print(f"{name}: {state}, {f'DIFFERENT {differs}' if differs else 'equal'}, {rounded} rounded", flush=True)
            report()
            if state != "ended" or differs or checked.exitcode != 0:
                print((outputs / "soak.txt").read_text()[-3000:], flush=True)
    print(json.dumps(report(), indent=2))
    well = (
        sums["equal result"] == sums["ended"] == sums["runs"] and not sums["wrong exit codes"] + sums["damaged stores"]
    )
    sys.exit(not well)


if __name__ == "__main__":
    main()
