import time

from genaug.core.store import Store
from genaug.runs.garbage import YOUNG, find_garbage, remove
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
