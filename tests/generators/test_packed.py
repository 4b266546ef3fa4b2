"""Pools as tar shards: the same images and rows as files, whatever happens to writers and bytes."""

import multiprocessing
import os
import signal
import tarfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.core import shards
from genaug.core.errors import GenaugError
from genaug.core.files import PARTIAL, read_json, write_json
from genaug.core.identity import NOT_IDENTITY, identified
from genaug.core.shards import RECORD, Catalogue
from genaug.core.store import Store
from genaug.data.export import export
from genaug.data.mixed import MixedDataset
from genaug.data.mixing import Replace, Stream
from genaug.data.packed import SHARDED, TABLE, shards_of
from genaug.data.pool import manifest_rows, read_pool
from genaug.downstream.classification.batches import decode
from genaug.evaluation.filters import Blank
from genaug.generators import forms
from genaug.runs.garbage import YOUNG, find_garbage, remove
from genaug.runs.verification import repair, verify
from tests.generators.test_publishing import Crashing, Noise, Picky, build, contents, dataset
from tests.runs.finished_run import write_finished


def packing(root):
    return Store(root, packed_from=1)


@pytest.fixture
def as_files(tmp_path):
    """What the same pool holds as files."""
    return build(Store(tmp_path / "as files"), Picky(seed=0), dataset(), 3)


def without_places(rows):
    return [{key: value for key, value in row.items() if key not in ("file_name", "seconds")} for row in rows]


def test_both_forms_hold_the_same_images_and_rows_under_the_same_identity(tmp_path, as_files):
    pool = build(packing(tmp_path), Picky(seed=0), dataset(), 3)
    assert pool.fingerprint == as_files.fingerprint and pool.rejected == as_files.rejected == {"too dark": 4}
    assert read_pool(pool.folder, dataset(), 1).rejected == read_pool(as_files.folder, dataset(), 1).rejected == {}
    assert contents(pool) == contents(as_files)
    assert without_places(manifest_rows(pool.folder)) == without_places(manifest_rows(as_files.folder))
    opened = read_pool(pool.folder, dataset(), 2, with_rejected=True)
    assert len(opened.samples) == 8 and sum(bool(s.about["rejected"]) for s in opened.samples) == 4
    groups, expected = opened.by_source(), read_pool(as_files.folder, dataset(), 2, with_rejected=True).by_source()
    assert {k: [v.digest for v in g] for k, g in groups.items()} == {
        k: [v.digest for v in g] for k, g in expected.items()
    }
    assert not list(pool.folder.rglob("*.png")) and not list((tmp_path / "images").rglob("*.png"))


def test_a_pool_is_packed_from_the_stated_number_of_images_on_and_takes_its_files_along(tmp_path):
    store, few, data = Store(tmp_path, packed_from=10), Noise(seed=0), dataset()
    small = build(store, few, data, 2)
    assert shards_of(small.folder) == []
    large = build(store, few, data, 3)
    assert large.counts["images_generated"] == 4 and len(shards_of(large.folder)) == 1
    assert contents(small).items() <= contents(large).items()
    again = build(Store(tmp_path, packed_from=10**6), few, data, 2)  # once packed, packed
    assert again.counts["images_generated"] == 0 and contents(again) == contents(small)
    assert not isinstance(again.samples, tuple)


def test_images_are_shared_between_the_forms(tmp_path):
    data = dataset()
    build(packing(tmp_path), Noise(seed=0), data, 2)
    part = replace(data, train=data.train[:2])
    pool = build(Store(tmp_path), Noise(seed=0), part, 2)
    assert pool.counts["images_generated"] == 0 and isinstance(pool.samples, tuple)
    more = build(packing(tmp_path), Noise(seed=0, levels=[0.5, 1.0]), data, 4)
    assert 0 < more.counts["images_reused"] < 16


def test_a_complete_pool_opens_without_listing_its_images(tmp_path, monkeypatch):
    first = build(packing(tmp_path), Picky(seed=0), dataset(), 3)
    monkeypatch.setattr(Picky, "variants", lambda *args: pytest.fail("the images were listed"))
    again = build(packing(tmp_path), Picky(seed=0), dataset(), 2)
    assert again.counts == {"images_generated": 0, "images_reused": 8, "network_evaluations": 0}
    assert contents(again).items() <= contents(first).items()


def test_a_run_that_is_interrupted_goes_on_after_its_last_image(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        build(packing(tmp_path), Crashing(seed=0), dataset(), 2)
    monkeypatch.setattr(Crashing, "survives", 100)
    resumed = build(packing(tmp_path), Crashing(seed=0), dataset(), 2)
    assert resumed.counts["images_reused"] == 3
    assert contents(resumed) == contents(build(Store(tmp_path / "fresh"), Crashing(seed=0), dataset(), 2))


@identified("tests/killed")
@dataclass(kw_only=True, slots=True)
class Killed(Noise):
    """Its process is killed after some images, without a word."""

    after: int = field(default=5, metadata=NOT_IDENTITY)

    def generate(self, variants, dataset, prior, fitted, device):
        for done, item in enumerate(Noise.generate(self, variants, dataset, prior, fitted, device)):
            if done == self.after:
                time.sleep(0.3)  # the writers' threads have written what was made
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def until_killed(root: Path) -> None:
    build(packing(root), Killed(seed=0), dataset(), 3)


@pytest.mark.slow
def test_a_killed_writer_leaves_a_shard_whose_images_count_and_that_is_sealed_later(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=until_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (folder,) = (tmp_path / "pools").iterdir()
    (tar,) = shards_of(folder)
    with tar.open("ab") as file:
        file.write(b"half of an image")
    with tar.with_suffix(".index").open("ab") as file:
        file.write(bytes(7))  # half of a record
    pool = build(packing(tmp_path), Killed(seed=0, after=10**6), dataset(), 3)
    assert pool.counts["images_reused"] == 5 and pool.counts["images_generated"] == 7
    assert contents(pool) == contents(build(Store(tmp_path / "files"), Killed(seed=0, after=10**6), dataset(), 3))
    assert Catalogue(lambda: [folder]).refresh().sealed() == set(shards_of(folder))
    for shard in shards_of(folder):
        with tarfile.open(shard) as file:
            assert len(file.getnames()) in (2 * 5, 2 * 7)
    assert not list(folder.glob(".*.lock")) and not list(folder.rglob(f"*{PARTIAL}"))


def changed(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of an image": lambda tar: changed(tar, int(shards.read_index(tar)[0]["offset"][2]) + 300),
    "cut": lambda tar: os.truncate(tar, int(shards.read_index(tar)[0]["offset"][3])),
    "emptied": lambda tar: tar.write_bytes(b""),
    "removed": lambda tar: tar.unlink(),
    "index removed": lambda tar: tar.with_suffix(".index").unlink(),
    "a bit of the index": lambda tar: changed(tar.with_suffix(".index"), RECORD.itemsize * 2 + 1),
    "index cut": lambda tar: os.truncate(tar.with_suffix(".index"), RECORD.itemsize * 2 + 5),
    "manifest": lambda tar: changed(tar.parent / TABLE, -1000),
    "manifest removed": lambda tar: (tar.parent / TABLE).unlink(),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_made_again_in_the_run_and_no_damaged_image_stays(tmp_path, name):
    before = build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    expected, rows = contents(before), manifest_rows(before.folder)
    DAMAGE[name](shards_of(before.folder)[0])
    after = build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    assert contents(after) == expected
    again = {"a bit of an image": 1, "cut": 5, "emptied": 8, "removed": 8, "a bit of the index": 1, "index cut": 6}
    assert after.counts["images_generated"] == again.get(name, 0)
    assert without_places(manifest_rows(after.folder)) == without_places(rows)
    assert verify(tmp_path.parent)[1] == []
    names = []
    for tar in shards_of(after.folder):  # as another program reads them
        with tarfile.open(tar) as file:
            names += [n for n in file.getnames() if n.endswith(".png")]
    assert len(names) == len(set(names)) == 8


def test_bytes_that_change_in_silence_are_found_when_they_are_read_and_made_again_by_the_next_run(tmp_path):
    pool = build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    expected, (tar,) = contents(pool), shards_of(pool.folder)
    stat = tar.stat()
    changed(tar, pool.samples[3].image.offset + 300)
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    opened = build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    with pytest.raises(GenaugError, match=f"{pool.samples[3].digest}.png.*its bytes have changed"):
        opened.samples[3].open()
    assert contents(build(packing(tmp_path), Noise(seed=0), dataset(), 2)) == expected


def test_a_damaged_image_of_another_pool_is_not_taken_over(tmp_path):
    data = dataset()
    pool = build(packing(tmp_path), Noise(seed=0), data, 2)
    changed(shards_of(pool.folder)[0], pool.samples[0].image.offset + 300)
    other = build(packing(tmp_path), Noise(seed=0), replace(data, train=data.train[::-1]), 2)
    assert other.counts["images_generated"] == 1 and contents(other) == contents(
        build(Store(tmp_path / "f"), Noise(seed=0), data, 2)
    )


def test_verify_names_a_damaged_shard_and_repair_leaves_what_is_whole(tmp_path):
    store = packing(tmp_path / "store")
    pool = build(store, Picky(seed=0), dataset(), 3)
    expected = contents(pool)
    write_finished(tmp_path / "runs" / "run-aa", pool=pool.fingerprint)
    assert verify(tmp_path)[1] == []
    tar = pool.samples[0].image.shard
    changed(tar, pool.samples[0].image.offset + 300)
    damages = verify(tmp_path)[1]
    assert [damage.path for damage in damages] == [tar]
    repair(damages)
    again = build(store, Picky(seed=0), dataset(), 3)
    assert again.counts["images_generated"] == 1 and contents(again) == expected and verify(tmp_path)[1] == []


def test_verify_names_a_packed_pool_whose_images_are_gone(tmp_path):
    store = packing(tmp_path / "store")
    pool = build(store, Picky(seed=0), dataset(), 3)
    expected = contents(pool)
    for tar in shards_of(pool.folder):
        tar.unlink()
    damages = verify(tmp_path)[1]
    assert [(damage.path, damage.why) for damage in damages] == [
        (pool.folder / SHARDED, "images of its manifest are in no shard")
    ]
    repair(damages)
    assert contents(build(store, Picky(seed=0), dataset(), 3)) == expected and verify(tmp_path)[1] == []


def test_garbage_is_a_packed_pool_that_no_run_needs(tmp_path):
    store, later = packing(tmp_path / "store"), time.time() + 2 * YOUNG
    used, unused = build(store, Noise(seed=0), dataset(), 2), build(store, Noise(seed=1), dataset(), 2)
    write_finished(tmp_path / "runs" / "run-0", pool=used.fingerprint)
    garbage = find_garbage(tmp_path, now=later)
    assert garbage.paths == [unused.folder]
    assert garbage.num_bytes >= sum(tar.stat().st_size for tar in shards_of(unused.folder))
    remove(garbage)
    assert build(store, Noise(seed=0), dataset(), 2).counts["images_generated"] == 0
    assert build(store, Noise(seed=1), dataset(), 2).counts["images_generated"] == 8


def fill(root: Path, log: Path, count: int, packed: int) -> None:
    from tests.generators.test_faults import Slow

    build(Store(root, packed_from=packed), Slow(seed=0, log=str(log)), dataset(count), 10)


@pytest.mark.slow
def test_processes_fill_overlapping_pools_of_both_forms_together(tmp_path):
    log, context = tmp_path / "log", multiprocessing.get_context("fork")
    jobs = ((20, 1), (10, 10**6), (20, 1))
    workers = [context.Process(target=fill, args=(tmp_path / "store", log, *job)) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    made = [line.split()[0] for line in log.read_text().splitlines()]
    assert len(made) == len(set(made)) == 200
    assert verify(tmp_path)[1] == []


def test_a_shard_that_is_full_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_IMAGES", 3)
    pool = build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    assert len(shards_of(pool.folder)) == 3 and len(contents(pool)) == 8


def test_a_full_disk_leaves_no_half_image_in_a_shard(tmp_path):
    store = packing(tmp_path)
    form = forms.Shards(store, store.pool("a" * 16))
    picture = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    form.put("1" * 16, picture, {"rejected": None})
    writer = form.writers["images"]
    whole, real = writer.tar.tell(), writer.tar

    class Full:
        def write(self, data):
            real.write(data[:100])
            raise OSError(28, "No space left on device")

    writer.tar = Full()
    with pytest.raises(OSError, match="No space"):
        form.put("2" * 16, picture, {"rejected": None})
    assert writer.path.stat().st_size == whole
    form.put("3" * 16, picture, {"rejected": None})
    form.close()
    assert store.known([name * 16 for name in "123"]) == {"1" * 16, "3" * 16}
    with tarfile.open(writer.path) as file:
        assert len(file.getnames()) == 4


def test_datasets_opens_the_shards_as_webdataset_without_rejected_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    pool = build(packing(tmp_path), Picky(seed=0), dataset(), 3)
    where = {"data_files": f"{pool.folder}/images-*.tar", "cache_dir": str(tmp_path / "cache")}
    rows = list(datasets.load_dataset("webdataset", split="train", **where))
    assert {row["json"]["fingerprint"] for row in rows} == {sample.digest for sample in pool.samples}
    by_name = {row["json"]["fingerprint"]: np.asarray(row["png"]).tobytes() for row in rows}
    assert all(np.asarray(s.open()).tobytes() == by_name[s.digest] for s in pool.samples)


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_a_packed_pool_is_exported_as_files_are(tmp_path, as_files, form):
    pool = build(packing(tmp_path), Picky(seed=0), dataset(), 3)
    found = [export(dataset(), p, form, tmp_path / name, real=False) for p, name in ((pool, "a"), (as_files, "b"))]
    assert found[0].counts == found[1].counts
    listed = [sorted(p.relative_to(f.folder) for p in f.folder.rglob("*")) for f in found]
    assert listed[0] == listed[1]


@pytest.mark.parametrize("m", [None, 1, 2])
def test_mixed_data_sets_take_a_packed_pool_like_any_other(tmp_path, as_files, m):
    pool, data = build(packing(tmp_path), Picky(seed=0), dataset(), 3), dataset()
    for alpha in (None, 0.8):
        ours, others = (MixedDataset(data, p, alpha, m) for p in (pool, as_files))
        assert len(ours) == len(others) and ours.num_generated == others.num_generated
        assert [ours.sample(i).digest for i in range(len(ours))] == [
            others.sample(i).digest for i in range(len(others))
        ]
    assert MixedDataset(data.train, pool, None, m).num_classes == 2


def test_streams_and_filters_take_a_packed_pool_like_any_other(tmp_path, as_files):
    pool = build(packing(tmp_path), Picky(seed=0), dataset(), 3)
    drawn = []
    for found in (pool, as_files):
        stream = Stream(Replace(alpha=0.7, m=3), dataset().train, found, seed=0)
        drawn.append([stream[d].sample.digest for d in range(50)])
        inputs = decode(stream.samples(), 8, "squash", Store(tmp_path / "decoded"))
        assert len(inputs.values) == 4 + 8 and inputs.of([stream[d].sample for d in range(50)]).shape == (50, 3, 8, 8)
        assert [sample.id for sample in stream.samples()] == list(inputs.rows)
    assert drawn[0] == drawn[1]
    blank = Blank(name="blank", min_std=60.0)
    kept = [
        blank.apply(p, dataset(), s) for p, s in ((pool, packing(tmp_path)), (as_files, Store(tmp_path / "as files")))
    ]
    assert [s.digest for s in kept[0].samples] == [s.digest for s in kept[1].samples] and kept[0].rejected == kept[
        1
    ].rejected
    assert len(kept[0].by_source()) == len(kept[1].by_source())


def test_rows_of_a_larger_pool_stay(tmp_path):
    large = build(packing(tmp_path), Noise(seed=0), dataset(), 5)
    seal = read_json(large.folder / SHARDED)
    write_json(large.folder / SHARDED, {**seal, "m": 1})  # the pool is looked at again
    build(packing(tmp_path), Noise(seed=0), dataset(), 2)
    assert contents(read_pool(large.folder, dataset(), 5)) == contents(large)
    assert build(packing(tmp_path), Noise(seed=0), dataset(), 5).counts["images_generated"] == 0
