"""A sweep of small runs on two cores: two processes of one thread each, against one process of two threads, in alternation.

Both are started as a user starts them, in a folder of their own; their times include the start. CPU seconds are those of all
processes: where other programs use the cores too they say more than the clock. Writes benchmarks/results/small_runs.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS
from genaug.runs.environment import describe_environment

SWEEP = ("-m", "generator=none", "trainer.accelerator=cpu", "tracking=local")
SIDES = {
    "2 processes of 1 thread": ("hydra.launcher.processes=2", "trainer.num_threads=1"),
    "1 process of 2 threads": ("hydra.launcher.processes=1", "trainer.num_threads=2"),
}


def measure(words: tuple[str, ...], seeds: int) -> dict[str, Any]:
    """One sweep of ``seeds`` runs: seconds by the clock and of CPU, and the runs' accuracies."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "train.py", *SWEEP, *words, f"seed=range(0,{seeds})", f"paths.outputs_dir={outputs}"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "2"})
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
        results = [json.loads(path.read_text()) for path in sorted(Path(outputs).glob("runs/*/result.json"))]
    assert len(results) == seeds
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    training = sum(result["seconds"]["train"] for result in results) / seeds
    metrics = {result["seed"]: result["metrics"][result["metric"]] for result in results}
    return {"wall": wall, "cpu": cpu, "training": training, "metrics": metrics, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS / "small_runs.json")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for repeat in range(options.repeats):
        for name in list(SIDES)[:: 1 if repeat % 2 == 0 else -1]:
            found[name].append(measure(SIDES[name], options.seeds))
            print(name, {key: value for key, value in found[name][-1].items() if key != "metrics"}, flush=True)
    ours, theirs = found.values()
    assert all(one["metrics"] == ours[0]["metrics"] for one in ours), "one thread gives one result"
    ratios = {key: [b[key] / a[key] for a, b in zip(ours, theirs, strict=True)] for key in ("wall", "cpu")}
    report = {
        "what": f"{options.seeds} runs of the default classifier, 400 steps each",
        "seconds": {name: {key: statistics.median(one[key] for one in rows) for key in ("wall", "cpu", "training")}
                    for name, rows in found.items()},
        "two processes are so many times faster": {
            key: {"median": statistics.median(values), "range": [min(values), max(values)]}
            for key, values in ratios.items()
        },
        "largest difference of an accuracy between one thread and two": max(
            abs(ours[0]["metrics"][seed] - one["metrics"][seed]) for one in theirs for seed in one["metrics"]
        ),
        "load": [one["load"] for rows in found.values() for one in rows],
        "environment": describe_environment(),
    }  # fmt: skip
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
