"""CPU seconds (user and system) that commands take before and beside their work, against their targets.

The machine may be shared, so no wall time is read; each command runs in turn, ``--repeats`` times over.

    python -m benchmarks startup [--repeats 5]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import measured, write

ROOT = Path(__file__).parents[1]
CONSOLE = [sys.executable, "-c", "from genaug.cli import main; main()"]
TRAIN = [sys.executable, "train.py"]
AGAIN = "a complete run, issued again"
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
        AGAIN: ([*SMALL, f"paths.outputs_dir={outputs}"], 1.5),
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
        cpu_seconds(chosen[AGAIN][0])  # makes it
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(arguments.repeats):
            for name, (command, _) in chosen.items():
                seconds[name].append(cpu_seconds(command))
    rows = [measured(f"`{name}`" if name != AGAIN else name, values, "s of CPU", f"at most {chosen[name][1]:g}")
            for name, values in seconds.items()]  # fmt: skip
    for row in rows:
        print(f"{row.what}: {row.value:g} ({row.low:g} to {row.high:g}) {row.unit}, {row.target}")
    write("startup", rows)


if __name__ == "__main__":
    main()
