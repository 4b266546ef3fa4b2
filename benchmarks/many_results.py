"""CPU seconds of status, compare, table and report of many finished runs, and the exponent from one size to the next (1 is
linear).

The results are those of a sweep like that of ``planning``, made by hand and without pools; of 20 runs 11 differ.
Target: 10 s at 10,000 runs, exponents of at most 1.1.

    python -m benchmarks many_results [--sizes 1000 10000]
"""

import argparse
import json
import math
import os
import platform
import tempfile
from pathlib import Path

from benchmarks.planning import PER_SEED
from benchmarks.startup import CONSOLE, cpu_seconds


def overrides(num_runs: int) -> list[str]:
    swept = ["generator=none,real_guidance", "mix.m=1,2,3,4,5", "mix.alpha=0.3,0.7", "dataset.shots=2"]
    return [f"seed=range(0,{num_runs // PER_SEED})", *swept]


def measure(num_runs: int) -> dict[str, float]:
    """Number of results, and CPU seconds of each command."""
    from genaug.tables.sweep import expand
    from tests.tables.finished_cells import finish_all

    with tempfile.TemporaryDirectory() as outputs:
        finish_all(expand("demo/compare", overrides(num_runs), Path(outputs)))
        return seconds_of(num_runs, outputs)


def seconds_of(num_runs: int, outputs: str) -> dict[str, float]:
    """The same of results that are there."""
    place = ["--outputs", outputs]
    commands = {
        "genaug status": ["status", *place],
        "genaug compare": ["compare", *place],
        "genaug table": ["table", "demo/compare", *overrides(num_runs), *place],
        "genaug report": ["report", "generator=none,real_guidance", *place],
    }
    seconds = {name: cpu_seconds([*CONSOLE, *words]) for name, words in commands.items()}
    return {"results": len(list(Path(outputs, "runs").iterdir())), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    sizes = parser.parse_args().sizes
    seconds = {size: measure(size) for size in sizes}
    first, last = sizes[0], sizes[-1]
    report = {
        "cpu_seconds": {
            str(size): {name: round(value, 2) for name, value in found.items()} for size, found in seconds.items()
        },
        "exponents": {
            name: round(math.log(seconds[last][name] / seconds[first][name]) / math.log(last / first), 2)
            for name in seconds[first]
            if name != "results"
        },
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, shared with other programs",
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
