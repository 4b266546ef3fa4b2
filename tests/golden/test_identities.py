"""No commit changes an identity unawares."""

import json

from tests.golden.identities import FILE, difference, identities


def test_identities_are_those_on_record() -> None:
    changed = difference(json.loads(FILE.read_text()), identities())
    assert not changed, "\n".join(
        [*changed, "if meant: bump the component's version, python -m tests.golden.identities"]
    )
