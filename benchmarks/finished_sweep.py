"""CPU seconds of a finished sweep of 100 runs that is issued again, against the target of 3 s.

    python -m benchmarks finished_sweep

Ten seeds are trained for one step each; the sweep asks for them under ten values of alpha and M, which do not matter without
a generator, so that 100 runs are composed, checked, identified and answered from the store.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import REPEATS, measured, write

ROOT = Path(__file__).parents[1]
SWEEP = (
    "-m",
    "generator=none",
    "downstream.num_steps=1",
    "tracking=local",
    "seed=range(0,10)",
    "mix.alpha=0.1,0.3,0.5,0.7,0.9",
    "mix.m=2,5",
)


def issue(outputs: str) -> tuple[float, int]:
    """CPU seconds, and the number of runs that were answered from the store."""
    command = [sys.executable, str(ROOT / "train.py"), *SWEEP, f"paths.outputs_dir={outputs}"]
    before = os.times()
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, said.count("complete already:")


def main() -> None:
    with tempfile.TemporaryDirectory() as outputs:
        issue(outputs)
        seconds = []
        for _ in range(REPEATS):
            again, answered = issue(outputs)
            assert answered == 100, f"{answered} of 100 runs were answered from the store"
            seconds.append(again)
    row = measured("a finished sweep of 100 runs, issued again", seconds, "s of CPU", "at most 3")
    print(f"{row.what}: {row.value:g} ({row.low:g} to {row.high:g}) {row.unit}")
    write("finished_sweep", [row])


if __name__ == "__main__":
    main()
