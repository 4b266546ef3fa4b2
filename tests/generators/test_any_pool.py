"""Whatever lies where a pool was: the same command makes it as it was, and what reads it meanwhile says one sentence."""

import contextlib
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.pool import ROW, Pool, read_pool
from genaug.generators import forms
from genaug.runs.verification import verify
from tests.generators import test_publishing as pools
from tests.generators.test_publishing import Picky, build, dataset

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["train/0", "../x", "a"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "a"]), part, max_size=3),
    max_leaves=5,
)
lines = st.lists(
    st.one_of(
        odd.map(json.dumps),
        st.text(max_size=20),
        st.fixed_dictionaries({}, optional=dict.fromkeys(ROW, odd)).map(json.dumps),
        st.tuples(st.integers(0, 7), st.sampled_from([*ROW, "sha256"]), odd),
        st.integers(0, 7),
    ),
    max_size=5,
)


def text_of(parts: list, rows: list[str]) -> str:
    """Lines of a manifest: any text, whole rows by their number, and rows of which one value is another."""
    found = []
    for part in parts:
        if isinstance(part, tuple):
            number, key, value = part
            part = json.dumps({**json.loads(rows[number % len(rows)]), key: value})
        found.append(rows[part % len(rows)] if isinstance(part, int) else part)
    return "\n".join(found) + "\n" * (len(found) % 2)


def contents(pool: Pool) -> list[object]:
    return [pools.contents(pool), [sample.label for sample in pool.samples]]


def made_again(store: Store) -> list[object]:
    """What the pool holds once another process has read, verified and made it: nothing of it is damaged any more."""
    forms._seen.clear()
    [folder] = store.pools()
    with contextlib.suppress(GenaugError):
        read_pool(folder, dataset(), 2)
    verify(store.root.parent)
    pool = build(store, Picky(seed=0), dataset(), 2)
    assert pool.rejected == {"too dark": 4} and verify(store.root.parent)[1] == []
    return contents(pool)


@few
@example("metadata.jsonl", [(0, "label", {"a": 1.0}), 1, 2, 3])
@given(st.sampled_from(["metadata.jsonl", "rejected.jsonl"]), lines)
def test_any_manifest(name, parts):
    with tempfile.TemporaryDirectory() as top:
        store = Store(Path(top) / "store")
        pool = build(store, Picky(seed=0), dataset(), 2)
        path, expected = pool.folder / name, contents(pool)
        path.write_text(text_of(parts, path.read_text().splitlines()))
        assert made_again(store) == expected


@few
@given(
    st.integers(0, 9),
    st.one_of(
        st.binary(max_size=90), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5)
    ),
)
def test_any_file_of_a_packed_pool(number, change):
    with tempfile.TemporaryDirectory() as top:
        store = Store(Path(top) / "store", packed_from=1)
        pool = build(store, Picky(seed=0), dataset(), 2)
        expected = contents(pool)
        files = sorted(path for path in pool.folder.iterdir() if not path.name.endswith(".lock"))
        path = files[number % len(files)]
        data = bytearray(path.read_bytes())
        if isinstance(change, bytes):
            data = bytearray(change)
        else:
            for place, value in change:
                data[int(place * len(data))] = value
        path.write_bytes(data)
        assert made_again(store) == expected
