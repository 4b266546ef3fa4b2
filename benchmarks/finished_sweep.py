"""How long a finished sweep of 100 cells takes when it is issued again. Target: under 10 s on two cores.

    python -m benchmarks finished_sweep

Ten seeds are trained for one step each; the sweep asks for them under ten values of alpha and M, which do not matter without
a generator, so that 100 cells are composed, checked, identified and answered from the store.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    """Seconds and number of cells that were answered from the store."""
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "train.py"), *SWEEP, f"paths.outputs_dir={outputs}"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - started, said.count("complete already")


def main() -> None:
    with tempfile.TemporaryDirectory() as outputs:
        first, answered_first = issue(outputs)
        again, answered_again = issue(outputs)
    print(f"first: {first:.1f} s, {answered_first} of 100 cells answered from the store")
    print(f"again: {again:.1f} s, {answered_again} of 100 cells answered from the store; target: under 10 s")


if __name__ == "__main__":
    main()
