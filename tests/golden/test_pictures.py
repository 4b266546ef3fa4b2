"""No commit changes a generator's pictures unawares."""

import pytest

from tests.golden.pictures import CASES, difference, pictures


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_those_on_record(case: str) -> None:
    changed = difference(case, pictures(case))
    assert not changed, "\n".join([*changed, "if meant: python -m tests.golden.pictures"])
