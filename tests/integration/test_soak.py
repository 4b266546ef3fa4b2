"""Ten kills of the smallest runs; ``benchmarks/soak.py`` makes as many as one likes, of every kind of run."""

import json

from tests.conftest import ROOT, STARTER, environment_of


def test_runs_that_are_killed_at_random_moments_end_as_if_never_killed(tmp_path):
    words = ["-m", "benchmarks", "soak", "--kills", "10", "--per-run", "4", "--only", "best_val", "quality"]
    code, said = STARTER.run([*words, "--out", str(tmp_path / "sums.json")], ROOT, environment_of({}))
    assert code == 0, said
    sums = json.loads((tmp_path / "sums.json").read_text())
    assert sums["kills"] >= 10 and sums["runs"] == sums["ended"] == sums["equal result"] >= 2
    assert sums["hung"] == sums["wrong exit codes"] == sums["damaged stores"] == 0
