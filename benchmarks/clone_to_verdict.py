"""From a clone to a verdict on a folder: minutes, commands, and whether the way needs anything that no command said.

A fresh clone gets an environment (``--install``; without it, the one that runs this), then ``genaug check FOLDER``. From there
on the script types what the output before told it to type, with the overrides that are given here added to both commands, and
nothing else: where that is not enough, it stops, and somebody would have had to guess.

    python -m benchmarks clone_to_verdict FOLDER preset=smoke
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import circumstances

ROOT = Path(__file__).parents[1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("overrides", nargs="*", help="added to the sweep and the verdict, e.g. preset=smoke")
    options.add_argument("--install", action="store_true", help="make an environment, too: downloads PyTorch")
    options.add_argument("--out", type=Path, help="a JSON file for the row")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        row = measure(Path(place), chosen.folder.absolute(), chosen.overrides, chosen.install)
    text = json.dumps({**row, **circumstances()}, indent=1, ensure_ascii=False)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n")


def measure(place: Path, folder: Path, overrides: list[str], install: bool) -> dict[str, object]:
    """Type the commands in a fresh clone below ``place``."""
    clone, binaries = place / "genaug", Path(sys.executable).parent
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": str(clone / "src")}
    steps: list[tuple[str, float]] = []

    def run(command: list[str], cwd: Path = clone) -> str:
        program = str(binaries / command[0]) if (binaries / command[0]).exists() and command[0] != "git" else command[0]
        started = time.perf_counter()
        process = subprocess.run(
            [program, *command[1:]],
            cwd=cwd,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        steps.append((shlex.join(command), time.perf_counter() - started))
        print(f"$ {steps[-1][0]}\n{process.stdout}", flush=True)
        if process.returncode:
            raise SystemExit(f"{steps[-1][0]} ended with {process.returncode}: here somebody would have to guess.")
        return process.stdout

    run(["git", "clone", "--quiet", str(ROOT), str(clone)], place)
    if install:
        run(["python", "-m", "venv", ".venv"])
        binaries = clone / ".venv" / "bin"
        run(["pip", "install", "--quiet", "."])
    told = run(["genaug", "check", str(folder)]).splitlines()
    sweep = next((line for line in told if "experiment=own/" in line and line.startswith("python train.py")), None)
    verdict = next((line for line in told if line.startswith("genaug verdict")), None)
    if sweep is None or verdict is None:
        raise SystemExit("genaug check says no command to go on with: here somebody would have to guess.")
    run([*shlex.split(sweep), *overrides])
    said = run([*shlex.split(verdict), *overrides])
    answer, used = said.split("Careful:")[0].split("\n\n")[0], os.times()
    return {
        "folder": folder.name,
        "commands": len(steps),
        "guesses": 0,
        "minutes": round(sum(seconds for _, seconds in steps) / 60, 1),
        "cpu_minutes": round((used.children_user + used.children_system) / 60, 1),
        "seconds": {_short(command, place, folder): round(seconds, 1) for command, seconds in steps},
        "verdict": " ".join(answer.split()),
    }


def _short(command: str, place: Path, folder: Path) -> str:
    """A command without the places of this machine."""
    for text, name in ((str(place), "…"), (str(ROOT), "REPOSITORY"), (str(folder), "FOLDER")):
        command = command.replace(text, name)
    return command


if __name__ == "__main__":
    main()
