"""One pool by one process, by two that were started with the same command, and by two of Ray's; and what a large pool costs.

For each number of processes: images per second by the clock and CPU seconds per image, in alternation, and whether the images
are equal. Then, per image, what the store takes beside the sampling: writing a PNG, claiming, the manifest, opening. Writes
benchmarks/results/pool_workers.json, from which docs/scale.md calculates.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import RESULTS
from genaug.composition import compose_typed
from genaug.core.claims import MOST, claim
from genaug.core.store import Store, pixel_hash
from genaug.data.sample import Dataset, Sample
from genaug.generators.forms import form_of
from genaug.generators.publishing import in_order
from genaug.runs.environment import describe_environment

POOL = (
    "task=generate", "generator=real_guidance", "dataset.shots=4", "trainer.accelerator=cpu", "trainer.num_threads=1",
    "tracking=local",
)  # fmt: skip
RAY = "2 workers of Ray"


def make(outputs: Path, images: int, side: str) -> dict[str, Any]:
    """One pool of ``images`` images; seconds from the first image to the last, as starting costs the same however many."""
    processes = int(side[0]) if side != RAY else 1
    words = [*POOL, f"mix.m={images // 40}", f"paths.outputs_dir={outputs}"]
    words += ["generation.workers=2"] if side == RAY else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = [
        subprocess.Popen([sys.executable, "train.py", *words], stdout=subprocess.DEVNULL) for _ in range(processes)
    ]
    assert [process.wait() for process in started] == [0] * processes
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    paths = list(outputs.glob("store/images/*/*.png"))
    times = sorted(path.stat().st_mtime for path in paths)
    assert len(paths) == images, f"{len(paths)} images by {side}"
    return {
        "images_per_second": (images - 1) / (times[-1] - times[0]),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "hashes": {path.stem: pixel_hash(Image.open(path)) for path in paths},
        "load": os.getloadavg()[0],
    }


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    value = work()
    return time.process_time() - started, value


def store_costs(count: int, root: Path) -> dict[str, float]:
    """CPU seconds per image of the store's own work on a pool of ``count`` pictures of 8 px, and of a PNG of 512 px."""

    def source(i: int) -> Sample:
        return Sample(id=f"train/{i:07d}", digest=f"{i:064x}", image=np.zeros((8, 8, 3), np.uint8), label={0: 1.0})

    store, generator = Store(root), compose_typed(["generator=real_guidance"]).generator
    dataset = Dataset(
        name="bench",
        task="classification",
        class_names=("a",),
        train=tuple(map(source, range(count // 10))),
        val=(),
        test=(),
    )
    tracemalloc.start()
    kept = generator.variants(dataset, 10, "fitted")
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    plan, variants = seconds(lambda: generator.variants(dataset, 10, "fitted"))
    wanted = [variant.fingerprint for variant in variants]
    order, _ = seconds(lambda: in_order(variants, dataset))

    def one_claim() -> None:
        with claim(store, wanted) as (share, _):
            assert share

    claimed, _ = seconds(one_claim)
    small = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    row = {"label": {"a": 1.0}, "rejected": None, "generator": "bench", "seconds": 0.1, "t0": 0.5}
    form = form_of(store, store.pool("b" * 16), count)

    def put_all() -> dict[str, dict[str, Any]]:
        return {
            v.fingerprint: form.put(v.fingerprint, small, {**row, "source_id": v.source.id, "index": v.index})
            for v in variants
        }

    put, abouts = seconds(put_all)
    form.close()
    looked, known = seconds(lambda: store.known(wanted))
    assert len(known) == count
    manifest, _ = seconds(lambda: form.publish(variants, 10, abouts, dataset, print))
    again, pool = seconds(lambda: form_of(store, form.folder).published(10, dataset))
    assert pool is not None and len(pool.samples) == count
    noise = np.random.default_rng(0).normal(0, 6, (64, 64, 3))
    picture = Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8)).resize((512, 512), Image.Resampling.BICUBIC)
    large, _ = seconds(lambda: [store.put_image(f"{i:016x}", picture, row) for i in range(20)])
    decoded, _ = seconds(lambda: [store.about_image(f"{i:016x}") for i in range(20)])
    size = statistics.mean(store.image_path(f"{i:016x}").stat().st_size for i in range(20))
    each = {"plan": plan, "order": order, "write 8 px": put, "see whether it is there": looked, "manifest": manifest,
            "open": again}  # fmt: skip
    return {
        **{f"{key}, per image": value / count for key, value in each.items()},
        "claim, per image of the share": claimed / min(MOST, count / 2),
        "verify 512 px, per image": decoded / 20,
        "bytes of a plan in memory, per image": memory / count,
        "write 512 px, per image": large / 20,
        "bytes of a PNG of 512 px": size,
        "bytes of a packed pool of pictures of 8 px, per image": sum(p.stat().st_size for p in form.folder.iterdir())
        / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="a multiple of 40")
    parser.add_argument(
        "--count", type=int, default=20_000, help="images of the packed pool that only the store works on"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "pool_workers.json")
    options = parser.parse_args()
    sides = ["1 process", "2 processes", *([] if options.without_ray else [RAY])]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for repeat in range(options.repeats):
        for side in sides[:: 1 if repeat % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as outputs:
                found[side].append(make(Path(outputs), options.images, side))
            print(side, {k: v for k, v in found[side][-1].items() if k != "hashes"}, flush=True)
    expected = found["1 process"][0]["hashes"]
    with tempfile.TemporaryDirectory() as root:
        costs = store_costs(options.count, Path(root)) if options.count else {}
    rates = {side: [one["images_per_second"] for one in rows] for side, rows in found.items()}
    report = {
        "images": options.images,
        "images per second": {side: statistics.median(values) for side, values in rates.items()},
        "times the rate of 1 process": {
            side: [round(b / a, 2) for a, b in zip(rates["1 process"], values, strict=True)]
            for side, values in rates.items()
        },
        "CPU seconds, start included": {
            side: statistics.median(one["cpu"] for one in rows) for side, rows in found.items()
        },
        "images that differ from those of 1 process": sum(
            one["hashes"][name] != value for rows in found.values() for one in rows for name, value in expected.items()
        ),
        "load": [one["load"] for rows in found.values() for one in rows],
        "store, CPU seconds": {"pool": options.count, **costs},
        "environment": describe_environment(),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
