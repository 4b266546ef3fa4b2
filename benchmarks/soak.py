"""Kill runs at random moments and issue the same command again until it ends: what is lost, and does the result change?

    python benchmarks/soak.py --kills 200

Each run is killed (SIGKILL, SIGTERM or SIGINT) up to --per-run times, then left to end, and its metrics and images are compared
with those of a run that was never killed. Every second run has a twin process on the same store. At the end the store is
verified. Prints one line per run and the sums.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ["dataset.shots=1", "mix.m=2", "trainer.num_threads=1", "tracking=local"]
STEPS = [*SMALL, "downstream.num_steps=30", "trainer.checkpoint_every=5"]
RUNS = {
    "real_guidance": ["generator=real_guidance", *STEPS],
    "da_fusion": [
        "generator=da_fusion",
        "generator.tokens.num_steps=20",
        "generator.tokens.checkpoint_every=5",
        *STEPS,
    ],
    "diff_mix": ["generator=diff_mix", "generator.tokens.num_steps=20", *STEPS],
    "dreamda": ["generator=dreamda", *STEPS],
    "erasure": ["generator=da_fusion", "leakage=model_centric", "generator.tokens.num_steps=5", *STEPS],
    "filter": ["generator=real_guidance", "filter=blank", *STEPS],
    "best_val": ["generator=none", "downstream.select=best_val", "downstream.eval_every=5", *STEPS],
    "online": ["generator=latent_interpolation", *STEPS],
}
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}


def start(overrides: list[str], outputs: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), *overrides, f"paths.outputs_dir={outputs}"]
    log = (outputs / "soak.txt").open("a")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def finish(overrides: list[str], outputs: Path) -> tuple[dict | None, float]:
    """The run's result (None if it does not end well) and its seconds."""
    started = time.monotonic()
    code = start(overrides, outputs).wait()
    paths = list(outputs.glob("runs/*/result.json"))
    return (json.loads(paths[0].read_text()) if code == 0 and paths else None), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--per-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    options = parser.parse_args()
    draw = random.Random(options.seed)
    kills = ended = equal = wrong_codes = runs = damaged = 0
    with tempfile.TemporaryDirectory() as top:
        whole: dict[str, tuple[dict | None, float]] = {}
        while kills < options.kills:
            name = options.only[runs % len(options.only)]
            if name not in whole:
                (Path(top) / f"whole-{name}").mkdir()
                whole[name] = finish(RUNS[name], Path(top) / f"whole-{name}")
            expected, seconds = whole[name]
            outputs = Path(top) / f"{runs}-{name}"
            outputs.mkdir()
            for _ in range(min(options.per_run, options.kills - kills)):
                processes = [start(RUNS[name], outputs) for _ in range(1 + runs % 2)]
                time.sleep(draw.uniform(0.2, 0.9) * seconds)
                signum = draw.choice(list(CODES))
                alive = processes[0].poll() is None
                processes[0].send_signal(signum)
                code = processes[0].wait()
                kills += alive
                wrong_codes += alive and code not in (*CODES[signum], 0)  # 0: it ended first
                for twin in processes[1:]:
                    twin.kill()
                    twin.wait()
            result, _ = finish(RUNS[name], outputs)
            same = result is not None and expected is not None and result["metrics"] == expected["metrics"]
            program = "import sys; from genaug.cli import main; sys.argv = ['genaug', *sys.argv[1:]]; main()"
            check = [sys.executable, "-c", program, "verify", "--outputs", str(outputs)]
            damaged += subprocess.run(check, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL).returncode != 0
            runs, ended, equal = runs + 1, ended + (result is not None), equal + same
            print(f"{name}: {'ended' if result else 'FAILED'}, {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f"{kills} kills over {runs} runs: {ended} ended, {equal} with the metrics of a run that was never killed,")
    print(f"{wrong_codes} wrong exit codes, {damaged} stores with damage")
    sys.exit(not (ended == equal == runs and not wrong_codes and not damaged))


if __name__ == "__main__":
    main()
