"""No commit changes what a downstream model learns unawares."""

import copy
import json

from tests.golden.predictions import FILE, PIXELS, PROBABILITY, difference, predictions


def test_predictions_are_those_on_record() -> None:
    changed = difference(json.loads(FILE.read_text()), predictions())
    assert not changed, "\n".join(
        [*changed, "if meant: bump the component's version, python -m tests.golden.predictions"]
    )


def test_a_difference_above_the_tolerance_is_seen_and_one_below_it_is_not() -> None:
    old = json.loads(FILE.read_text())
    for factor, names in ((0.9, []), (1.1, ["classifier", "detector"])):
        new = copy.deepcopy(old)
        new["classifier"][3][1] += factor * PROBABILITY
        new["detector"][1][0][2] += factor * PIXELS
        assert [line.partition(":")[0] for line in difference(old, new)] == names
    assert difference(old, {}) == [f"{name}: gone" for name in sorted(old)]
