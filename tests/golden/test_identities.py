"""Whose identities are on record; ``tests/conf`` compares each where it is composed."""

from tests.golden.identities import PRESETS, WITH_RUNS, on_record


def test_identities_of_all_presets_and_experiments_are_on_record_and_no_others() -> None:
    there = {f"{group}/{name}" for group, name in PRESETS} | {f"experiment/{item}" for item in WITH_RUNS}
    assert on_record().keys() == there, "run: python -m tests.golden.identities"
