"""Ten kills of the smallest runs; ``benchmarks/soak.py`` makes as many as one likes, of every kind of run."""

import json
import subprocess
import sys

from tests.conftest import ROOT


def test_runs_that_are_killed_at_random_moments_end_as_if_never_killed(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "soak",
        "--kills",
        "10",
        "--per-run",
        "4",
        "--only",
        "best_val",
        "quality",
    ]
    done = subprocess.run([*command, "--out", str(tmp_path / "sums.json")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sums = json.loads((tmp_path / "sums.json").read_text())
    assert sums["kills"] >= 10 and sums["runs"] == sums["ended"] == sums["equal result"] >= 2
    assert sums["hung"] == sums["wrong exit codes"] == sums["damaged stores"] == 0
