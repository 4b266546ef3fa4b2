import json
import os

import pytest

from genaug.core.files import SEAL
from genaug.core.store import Store
from genaug.data.packed import SHARDED, shards_of
from genaug.data.pool import ACCEPTED
from genaug.generators import forms
from genaug.runs.verification import repair, verify
from tests.generators.test_publishing import Noise, build, contents, dataset
from tests.runs.finished_run import write_finished


def test_whatever_is_damaged_is_named_removed_and_made_again(tmp_path):
    store = Store(tmp_path / "store")
    pool = build(store, Noise(seed=0), dataset(), 2)
    expected = contents(pool)
    folder, _ = store.folder("fitted", "thing", "b" * 16, lambda work: ((work / "w").write_bytes(b"12") and {}) or {})
    write_finished(tmp_path / "runs" / "run-aa", pool=pool.fingerprint)
    count, found = verify(tmp_path)
    assert found == [] and count == 1 + 8 + 1 + 2

    (folder / "w").rename(tmp_path / "w")
    assert [(damage.path, damage.why) for damage in verify(tmp_path)[1]] == [(folder, "w is missing")]
    (tmp_path / "w").rename(folder / "w")

    (folder / "w").write_bytes(b"13")
    image = store.image_path(pool.samples[0].digest)
    data = image.read_bytes()
    image.write_bytes(data[:60])
    manifest = pool.folder / ACCEPTED
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[-1]["label"] = {"a": 0.5}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = tmp_path / "runs" / "run-aa" / "result.json"
    result.write_text("{}")
    _, found = verify(tmp_path)
    assert {folder, image, result} <= {damage.path for damage in found} and len(found) >= 4

    for _ in range(2):  # a pool names one damaged thing at a time
        repair(verify(tmp_path)[1])
    forms._seen.clear()
    assert contents(build(store, Noise(seed=0), dataset(), 2)) == expected
    assert verify(tmp_path)[1] == []


CHANGED = "lines are damaged, have changed or stand twice"


def unsealed(line: str, **edits: object) -> str:
    """A line as earlier versions wrote them, edited."""
    row = json.loads(line)
    return json.dumps({key: row[key] for key in row if key != SEAL} | edits)


@pytest.mark.parametrize(
    "edit, why",
    [
        (lambda rows: rows[:-1], "lines of its images are missing"),
        (lambda rows: [*rows, rows[0]], CHANGED),
        (lambda rows: [rows[0][:-5], *rows[1:]], CHANGED),
        (lambda rows: [rows[0].replace('"a": 1.0', '"a": 0.5'), *rows[1:]], CHANGED),
        (lambda rows: [rows[0].replace("000/", "001/"), *rows[1:]], CHANGED),
        (lambda rows: [rows[0].replace('"source_id": "', '"source_id": "other'), *rows[1:]], CHANGED),
        (lambda rows: [unsealed(rows[0], label={"a": 0.5}), *rows[1:]], "is not that of its image"),
        (lambda rows: [unsealed(rows[0], file_name="001/0.png"), *rows[1:]], "No such file"),
    ],
    ids=["missing", "twice", "cut", "label", "file", "source", "label, without a seal", "file, without a seal"],
)
def test_each_edit_of_a_manifest_is_named(tmp_path, edit, why):
    manifest = build(Store(tmp_path / "store"), Noise(seed=0), dataset(), 1).folder / ACCEPTED
    rows = manifest.read_text().splitlines()
    manifest.write_text("".join(f"{row}\n" for row in edit(rows)))
    assert manifest.read_text().splitlines() != rows
    [damage] = verify(tmp_path)[1]
    assert why in damage.why and damage.path.is_relative_to(manifest.parent)


def test_an_image_that_waits_for_its_line_is_not_damage(tmp_path):
    """As a kill between linking and writing leaves it."""
    store = Store(tmp_path / "store")
    pool = build(store, Noise(seed=0), dataset(), 1).folder
    manifest = pool / ACCEPTED
    former = manifest.read_bytes(), manifest.stat().st_mtime_ns
    build(store, Noise(seed=0), dataset(), 2)
    manifest.write_bytes(former[0])
    os.utime(manifest, ns=(former[1], former[1]))
    assert verify(tmp_path)[1] == []


def test_a_packed_pool_of_which_one_shard_is_gone_is_named(tmp_path):
    store = Store(tmp_path / "store", packed_from=1)
    build(store, Noise(seed=0), dataset(), 2)
    pool = build(store, Noise(seed=0), dataset(), 3)
    first, second = shards_of(pool.folder)
    assert verify(tmp_path)[1] == []
    second.unlink()
    second.with_suffix(".index").unlink()
    [damage] = verify(tmp_path)[1]
    assert damage.path == pool.folder / SHARDED and damage.why == "images of its manifest are in no shard"
    assert first.exists()
