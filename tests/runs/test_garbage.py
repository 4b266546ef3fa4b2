import itertools
import shutil
import threading
import time
from dataclasses import dataclass

import pytest

from genaug.composition import compose_typed
from genaug.core.claims import GARBAGE, REMOVES, claim
from genaug.core.errors import GenaugError
from genaug.core.files import write_json
from genaug.core.identity import identified
from genaug.core.store import Store, artefact
from genaug.downstream.classification.batches import decode
from genaug.run import run
from genaug.runs import garbage
from genaug.runs.cell import Cell
from genaug.runs.garbage import YOUNG, alone, find_garbage, remove
from genaug.runs.verification import verify
from tests.generators.test_publishing import Noise, build, dataset
from tests.runs.finished_run import write_finished


def test_only_old_pools_and_images_that_no_result_uses_are_removed(tmp_path):
    store = Store(tmp_path / "store")
    used = build(store, Noise(seed=0), dataset(), 2)
    unused = build(store, Noise(seed=1), dataset(), 2)
    write_finished(tmp_path / "runs" / "run-0", pool=used.fingerprint)

    assert find_garbage(tmp_path).paths == []  # all of it is young: a running cell may need it
    garbage = find_garbage(tmp_path, now=time.time() + 2 * YOUNG)
    images = {store.image_path(sample.digest) for sample in unused.samples}
    assert set(garbage.paths) == {unused.folder, *images}
    assert garbage.num_bytes == sum(image.stat().st_size for image in images)

    remove(garbage)
    assert not unused.folder.exists()
    assert build(store, Noise(seed=0), dataset(), 2).counts["images_generated"] == 0
    assert build(store, Noise(seed=1), dataset(), 2).counts["images_generated"] == 8


def test_images_of_no_pool_are_listed_when_they_are_old(tmp_path):
    store = Store(tmp_path / "store")
    pool = build(store, Noise(seed=1), dataset(), 2)
    write_finished(tmp_path / "runs" / "run-0")
    shutil.rmtree(pool.folder)
    assert find_garbage(tmp_path).paths == []  # the next run may need them in a moment
    assert len(find_garbage(tmp_path, now=time.time() + 2 * YOUNG).paths) == 8


def test_while_somebody_works_on_the_store_nothing_but_stale_partial_files_is_listed(tmp_path):
    store, later = Store(tmp_path / "store"), time.time() + 2 * YOUNG
    build(store, Noise(seed=1), dataset(), 2)
    write_finished(tmp_path / "runs" / "run-0")
    partial = store.root / "fitted" / ".thing-aa.partial"
    partial.mkdir(parents=True)
    assert len(find_garbage(tmp_path, now=later).paths) == 1 + 1 + 8
    assert find_garbage(tmp_path).paths == []  # written a moment ago
    with store.lock("a" * 16):
        assert find_garbage(tmp_path, now=later).paths == [partial]
    with claim(store, ["b" * 16]):
        assert find_garbage(tmp_path, now=later).paths == [partial]


def test_decoded_images_are_counted_and_listed_when_asked_for_unless_somebody_reads_them(tmp_path):
    store = Store(tmp_path / "store")
    decode(dataset().train, 32, "squash", store).values[:1]
    decode(dataset().train, 16, "crop", store)
    write_finished(tmp_path / "runs" / "run-0")
    found = find_garbage(tmp_path)
    assert found.paths == [] and 0 < found.cached_bytes < 200_000
    with store.lock("a" * 16):
        assert find_garbage(tmp_path, decoded=True).paths == []
    asked = find_garbage(tmp_path, decoded=True)
    assert asked.paths == [store.root / "decoded" / name for name in ("16-crop", "32-squash")]
    assert asked.num_bytes == found.cached_bytes and asked.cached_bytes == 0
    remove(asked)
    assert decode(dataset().train, 32, "squash", store).values[:1].shape == (1, 3, 32, 32)


def test_without_any_run_no_pool_is_listed(tmp_path):
    build(Store(tmp_path / "store"), Noise(seed=1), dataset(), 2)
    with pytest.raises(GenaugError, match="every pool would seem unused"):
        find_garbage(tmp_path, now=time.time() + 2 * YOUNG)


def test_a_damaged_result_does_not_stop_it(tmp_path):
    used = build(Store(tmp_path / "store"), Noise(seed=0), dataset(), 2)
    write_finished(tmp_path / "runs" / "run-0", pool=used.fingerprint)
    write_finished(tmp_path / "runs" / "run-1")
    (tmp_path / "runs" / "run-1" / "result.json").write_bytes(b"\x00")
    assert find_garbage(tmp_path, now=time.time() + 2 * YOUNG).paths == []


def test_the_pool_of_a_run_whose_result_is_damaged_is_kept_and_all_pools_if_its_needs_are_unknown(tmp_path):
    used, later = build(Store(tmp_path / "store"), Noise(seed=0), dataset(), 2), time.time() + 2 * YOUNG
    folder = tmp_path / "runs" / "run-0"
    write_finished(folder, pool=used.fingerprint)
    status = {"state": "complete", "attempt": 0, "host": "h", "pid": 1}
    write_json(folder / "status.json", {**status, "artefacts": [f"store/pools/{used.fingerprint}"]})
    (folder / "result.json").write_bytes(b"")
    assert find_garbage(tmp_path, now=later).paths == []
    (folder / "status.json").write_bytes(b"")
    found = find_garbage(tmp_path, now=later)
    assert found.paths == [] and found.kept is not None and "run-0 cannot say any more what it needs" in found.kept


@pytest.mark.parametrize("stage, kept", [("data", True), ("generate", True), ("train", False)])
def test_images_are_kept_while_those_of_an_unfinished_run_may_be_in_no_pool_yet(tmp_path, stage, kept):
    store = Store(tmp_path / "store")
    pool = build(store, Noise(seed=0), dataset(), 2)
    shutil.rmtree(pool.folder)  # as if it had been killed before the pool was published
    write_finished(tmp_path / "runs" / "run-0")
    needs = {"stage": stage, "artefacts": [f"store/pools/{pool.fingerprint}"]}
    about = {"state": "interrupted", "attempt": 0, "host": "h", "pid": 1, **needs}
    write_json(tmp_path / "runs" / "run-1" / "status.json", about)
    found = find_garbage(tmp_path, now=time.time() + 2 * YOUNG)
    assert len(found.paths) == (0 if kept else 8) and (found.kept is not None) == kept


def test_a_folder_that_somebody_fills_for_days_is_not_listed(tmp_path):
    store, fingerprint = Store(tmp_path / "store"), "ab" * 8

    def make(work):
        found = find_garbage(tmp_path, now=time.time() + 2 * YOUNG)
        return {"listed": [path.name for path in found.paths]}

    stale = store.root / "fitted" / ".thing-cd.partial"
    stale.mkdir(parents=True)
    folder, _ = store.folder("fitted", "thing", fingerprint, make)
    assert artefact(folder)["listed"] == [stale.name]


def test_folders_that_come_and_go_meanwhile_do_not_stop_it(tmp_path):
    write_finished(tmp_path / "runs" / "run-0")
    store, ended, found = Store(tmp_path / "store"), threading.Event(), 0

    numbers = itertools.count()
    (store.root / "fitted").mkdir(parents=True)

    def work():
        while not ended.is_set():
            places = [store.root / "fitted" / f".thing-{next(numbers)}.partial" for _ in range(20)]
            for place in places:
                below = tmp_path / "whole" / "below"
                below.mkdir(parents=True)
                (below / "file").touch()
                below.parent.rename(place)
            for place in places:
                shutil.rmtree(place, ignore_errors=True)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(200):
            garbage = find_garbage(tmp_path, now=time.time() + 2 * YOUNG, decoded=True)
            found += len(garbage.paths)
            remove(garbage)
        assert worker.is_alive() and found
    finally:
        ended.set()
        worker.join()


def test_no_run_starts_to_work_while_garbage_is_removed(tmp_path):
    words = ["generator=none", "dataset.shots=1", "tracking=local", f"paths.outputs_dir={tmp_path}"]
    cell = Cell.of(compose_typed([*words, "paths.lock_timeout=0.1"]))
    with alone(tmp_path), pytest.raises(GenaugError, match=REMOVES):
        run(cell)
    assert not cell.folder.exists()


@identified("generator/slow")
@dataclass(kw_only=True, slots=True)
class Slow(Noise):
    def generate(self, variants, dataset, prior, fitted, device):
        for item in Noise.generate(self, variants, dataset, prior, fitted, device):
            time.sleep(0.03)
            yield item


def test_garbage_is_removed_beside_runs_that_work_and_costs_none_of_them_an_image(tmp_path, monkeypatch):
    """Each run holds its lock as ``run.run`` does; what is removed meanwhile is what no run needs."""
    monkeypatch.setattr(garbage, "_partial", lambda top: ())  # on this test's clock they would be older than a day
    store, later, ended = Store(tmp_path / "store"), time.time() + 2 * YOUNG, threading.Event()
    write_finished(tmp_path / "runs" / "run-0")
    unused = build(store, Noise(seed=100), dataset(), 2).folder
    made = []

    def work():
        try:
            for seed in range(4):
                with store.lock(f"{seed:016x}"):
                    with store.lock(GARBAGE):
                        pass
                    pool = build(store, Slow(seed=seed), dataset(), 2)
                    write_finished(tmp_path / "runs" / f"run-{seed:016x}", pool=pool.fingerprint)
                    made.append(pool)
        finally:
            ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not ended.wait(0.3):  # longer than a run that waits leaves between two looks at the lock
        with alone(tmp_path):
            remove(find_garbage(tmp_path, now=later))
    with alone(tmp_path):
        remove(find_garbage(tmp_path, now=later))
    assert len(made) == 4 and not unused.exists()
    assert verify(tmp_path)[1] == []
    for seed in range(4):
        assert build(store, Slow(seed=seed), dataset(), 2).counts["images_generated"] == 0


def test_a_run_that_starts_waits_until_garbage_is_removed(tmp_path):
    with alone(tmp_path), pytest.raises(GenaugError, match="garbage"), Store(tmp_path / "store", 0.1).lock(GARBAGE):
        raise AssertionError("both hold it")
