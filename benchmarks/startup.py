"""CPU seconds (user and system) that commands take before and beside their work, against their targets.

The machine may be shared, so no wall time is read; each command runs in turn, ``--repeats`` times over.

    python -m benchmarks startup [--repeats 5]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSOLE = [sys.executable, "-c", "from genaug.cli import main; main()"]
TRAIN = [sys.executable, "train.py"]
SMALL = [*TRAIN, "generator=none", "downstream.num_steps=2", "downstream.eval_every=null", "dataset.shots=2"]


def commands(outputs: str) -> dict[str, tuple[list[str], float]]:
    """What is run, and the target in CPU seconds."""
    place = ["--outputs", outputs]
    return {
        "genaug --help": ([*CONSOLE, "--help"], 0.3),
        "genaug status": ([*CONSOLE, "status", *place], 1.0),
        "genaug compare": ([*CONSOLE, "compare", *place], 1.0),
        "genaug explain generator=da_fusion": ([*CONSOLE, "explain", "generator=da_fusion"], 1.0),
        "genaug plan demo/compare": ([*CONSOLE, "plan", "demo/compare", *place], 2.0),
        "genaug plan da_fusion/fig9_m (360 runs)": ([*CONSOLE, "plan", "da_fusion/fig9_m", *place], 2.0),
        "genaug table demo/compare": ([*CONSOLE, "table", "demo/compare", *place], 2.0),
        "genaug experiments": ([*CONSOLE, "experiments"], 10.0),
        "train.py --help": ([*TRAIN, "--help"], 3.0),
        "a complete run again": ([*SMALL, f"paths.outputs_dir={outputs}"], 1.5),
    }


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process that must succeed."""
    before = os.times()
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{process.stdout}{process.stderr}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as outputs:
        chosen = commands(outputs)
        cpu_seconds(chosen["a complete run again"][0])  # makes it
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(arguments.repeats):
            for name, (command, _) in chosen.items():
                seconds[name].append(cpu_seconds(command))
    report = {
        "cpu_seconds": {
            name: {
                "median": round(statistics.median(values), 2),
                "range": [round(min(values), 2), round(max(values), 2)],
                "target": chosen[name][1],
            }
            for name, values in seconds.items()
        },
        "repeats": arguments.repeats,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
