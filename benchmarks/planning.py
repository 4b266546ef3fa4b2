"""Seconds and memory of planning a sweep of many runs, with nothing in the store: composing, identities, images, cost.

Each size runs in a process of its own: half of the runs with Real Guidance, at four M and two alpha, on few-shot draws of the
embedded digits, one for each seed. Seconds are of CPU, memory is the peak above that of the imports, and the exponent that of
the seconds from one size to the next (1 is linear).
"""

import json
import math
import resource
import subprocess
import sys
import time

from benchmarks.measure import measured, write

SIZES = (100, 1000, 10_000)
PER_SEED = 20  # 2 generators x 5 M x 2 alpha


def measure(num_runs: int) -> dict[str, float]:
    """Plan ``num_runs`` runs in this process."""
    from genaug.tables.plan import plan
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand

    swept = [
        f"seed=range(0,{num_runs // PER_SEED})",
        "generator=none,real_guidance",
        "mix.m=1,2,3,4,5",
        "mix.alpha=0.3,0.7",
        "dataset.shots=2",
        "paths.outputs_dir=no outputs",
    ]
    expand("demo/compare", ["generator=none", "seed=0"])  # imports, and the prior's weights hashed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    sweep = expand("demo/compare", swept)
    expanded = time.process_time()
    found = plan(sweep, read_spec("demo/compare"))
    assert sum(found.states.values()) == num_runs, found.states
    return {
        "runs": num_runs,
        "images": found.cost.to_make["generate"],
        "expand_seconds": expanded - cpu,
        "plan_seconds": time.process_time() - expanded,
        "wall_seconds": time.perf_counter() - wall,
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> None:
    found = []
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.planning", str(size)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(found[-1], flush=True)
    seconds = [one["expand_seconds"] + one["plan_seconds"] for one in found]
    exponent = math.log(seconds[-1] / seconds[-2]) / math.log(SIZES[-1] / SIZES[-2])
    what = f"{SIZES[-1]:,} planned runs"
    rows = [
        measured(what, seconds[-1:], "s of CPU", "at most 20"),
        measured(f"{what}, memory", [found[-1]["mib"]], "MiB", "at most 1000"),
        measured(f"{what}, exponent from {SIZES[-2]:,}", [exponent], "", "at most 1.1"),
    ]
    write("planning", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
