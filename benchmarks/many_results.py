"""CPU seconds of status, compare, table and report of many finished runs, and the exponent from one size to the next (1 is
linear).

The results are those of a sweep like that of ``planning``, made by hand and without pools; of 20 runs 11 differ.
Target: 10 s at 10,000 runs, exponents of at most 1.1.

    python -m benchmarks many_results [--sizes 1000 10000]
"""

import argparse
import math
import tempfile
from pathlib import Path

from benchmarks.measure import measured, write
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
    rows = []
    for name in [name for name in seconds[first] if name != "results"]:
        exponent = math.log(seconds[last][name] / seconds[first][name]) / math.log(last / first)
        what = f"`{name}` of a sweep of {last:,}"
        rows.append(measured(what, [seconds[last][name]], "s of CPU", "at most 10"))
        rows.append(measured(f"{what}, exponent from {first:,}", [exponent], "", "at most 1.1"))
    for row in rows:
        print(f"{row.what}: {row.value:g} {row.unit}, {row.target}")
    write("many_results", rows)


if __name__ == "__main__":
    main()
