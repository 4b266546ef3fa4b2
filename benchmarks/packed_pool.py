"""A packed pool of ImageNet-100's size, 1.3e6 tiny pictures: opening it, listing what is missing, writing, against its targets.

Each part runs in a process of its own. Seconds are of CPU and wall clock, memory is the peak above that of the imports.

    python -m benchmarks packed_pool [--sources 130000] [--variants 10] [--keep FOLDER]
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from benchmarks.measure import RESULTS, measured
from benchmarks.measure import write as write_rows
from genaug.core.identity import identified
from genaug.core.png import encode
from genaug.core.shards import IMAGES, Writer
from genaug.core.store import Store, as_file, pixel_hash
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generator
from genaug.generators.forms import form_of
from genaug.generators.publishing import NUM_WRITERS, make_pool, pool_identity

NUM_CLASSES = 100
DISTINCT = 1000  # pictures; their pixels are not what is measured


@identified("benchmarks/pictures")
@dataclass(kw_only=True, slots=True)
class Pictures(Generator):
    """A generator whose images are there already."""

    uses_prior: ClassVar[bool] = False

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        return {"t0": 0.25 * (1 + index % 4)}


def dataset(num_sources: int) -> Dataset:
    blank = np.zeros((8, 8, 3), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(NUM_CLASSES))
    train = tuple(
        Sample(
            id=f"train/n{i % NUM_CLASSES:08d}/{i:06d}.JPEG",
            digest=f"{i:016x}",
            image=blank,
            label={i % NUM_CLASSES: 1.0},
        )
        for i in range(num_sources)
    )
    return Dataset(name="pictures", task="classification", class_names=names, train=train, val=(), test=())


def write(root: Path, data: Dataset, num_variants: int) -> dict[str, float]:
    """Every image but the last hundred, as a run that was killed leaves them."""
    store, generator = Store(root), Pictures(seed=0)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(DISTINCT)]
    files = [(encode(picture), pixel_hash(picture)) for picture in pictures]
    writer = Writer(store.pool(pool_identity(generator, data, "fitted")), IMAGES)
    variants = generator.variants(data, num_variants, "fitted")
    started, cpu = time.perf_counter(), time.process_time()
    for place, variant in enumerate(variants[:-100]):
        label = {data.class_names[i]: weight for i, weight in variant.source.label.items()}
        about = {"source_id": variant.source.id, "index": variant.index, "generator": "pictures", "label": label}
        about |= {**variant.draws, "prompt": f"a photo of a {next(iter(label))}", "rejected": None, "seconds": 0.0312}
        file, sha256 = files[place % DISTINCT]
        text = json.dumps({**about, "fingerprint": variant.fingerprint, "sha256": sha256})
        chunk = b"tEXtgenaug\0" + text.encode()
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        writer.append(variant.fingerprint, file[:33] + chunk + file[33:], text)  # after the header, as form.put has it
    writer.close()
    each = (time.process_time() - cpu) / len(variants)
    return {"append_cpu_us": each * 1e6, "write_wall_seconds": time.perf_counter() - started}


def finish(root: Path, data: Dataset, num_variants: int) -> dict[str, float]:
    """What a resumed run does first, part by part: list the wanted images, look up which are there; then the manifest."""
    store, generator = Store(root), Pictures(seed=0)
    before, cpu = _mib(), time.process_time()
    variants = generator.variants(data, num_variants, "fitted")
    listed = time.process_time()
    form = form_of(store, store.pool(pool_identity(generator, data, "fitted")), len(variants))
    names = [variant.fingerprint for variant in variants]
    form.verified(names)
    known = store.known(names)
    looked_up = time.process_time()
    peak = _mib() - before
    left = [variant for variant in variants if variant.fingerprint in known]
    assert len(left) == len(variants) - 100
    done = time.process_time()
    form.publish(left, num_variants, {}, data, print)
    return {
        "listing_wanted_seconds": listed - cpu,
        "listing_seconds": looked_up - listed,
        "listing_mib": peak,
        "manifest_seconds": time.process_time() - done,
    }


def opening(root: Path, data: Dataset, num_variants: int) -> dict[str, float]:
    """A run that needs the complete pool, and a few hundred random samples with their pixels."""
    import pyarrow.ipc  # noqa: F401

    before, cpu, wall = _mib(), time.process_time(), time.perf_counter()
    pool = make_pool(Store(root), Pictures(seed=0), data, None, "fitted", lambda: None, num_variants, say=print)
    groups = pool.by_source()
    found = {"open_seconds": time.process_time() - cpu, "open_wall_seconds": time.perf_counter() - wall}
    found |= {"open_mib": _mib() - before}
    assert len(groups) == len(data.train) and len(pool.samples) == len(data.train) * num_variants - 100
    places, cpu = np.random.default_rng(0).integers(0, len(pool.samples), 1000), time.process_time()
    for place in places.tolist():
        assert pool.samples[place].open().size == (8, 8)
    return found | {"sample_read_us": (time.process_time() - cpu) * 1e3}


def rate(root: Path) -> dict[str, float]:
    """Images of 512 pixels per second and core through the writers' threads, pixels to sealed shard."""
    from benchmarks.store_forms import photographs

    pictures, count = photographs(4), 200
    writer = Writer(root / "rate", IMAGES)

    def put(i: int) -> None:
        data, about = as_file(f"{i + 1:016x}", pictures[i % 4], {"rejected": None, "label": {"a": 1.0}})
        writer.append(f"{i + 1:016x}", data, json.dumps(about))

    cpu = time.process_time()
    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        list(threads.map(put, range(count)))
    writer.close()
    each = (time.process_time() - cpu) / count
    return {"ms_per_image_512_px": each * 1e3, "images_per_second_512_px_two_cores": 2 / each}


def _mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=130_000)
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="a folder for the store, which stays")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        parts = {"write": write, "finish": finish, "opening": opening}
        if arguments.part == "rate":
            print(json.dumps(rate(arguments.root)))
        else:
            print(json.dumps(parts[arguments.part](arguments.root, dataset(arguments.sources), arguments.variants)))
        return
    report: dict[str, Any] = {"images": arguments.sources * arguments.variants}
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        for part in ("write", "finish", "opening", "rate"):
            command = [sys.executable, "-m", "benchmarks.packed_pool", "--part", part, "--root", str(root)]
            command += ["--sources", str(arguments.sources), "--variants", str(arguments.variants)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            report |= json.loads(output.splitlines()[-1])
            print(part, output.splitlines()[-1], file=sys.stderr, flush=True)
        tars = list((root / "pools").rglob("*.tar"))
        report |= {"shards": len(tars), "bytes_per_image": sum(tar.stat().st_size for tar in tars) / report["images"]}
    what = f"a pool of {report['images']:,} images"
    listing = report["listing_wanted_seconds"] + report["listing_seconds"]
    rows = [
        measured(f"{what}: open it", [report["open_seconds"]], "s of CPU", "at most 5"),
        measured(f"{what}: open it, memory", [report["open_mib"]], "MiB", "at most 500"),
        measured(f"{what}: list what is missing", [listing], "s of CPU", "at most 10"),
        measured(
            "write images of 512 px, two cores",
            [report["images_per_second_512_px_two_cores"]],
            "images/s",
            "at least 200",
        ),
    ]
    write_rows("packed_pool", rows)
    (RESULTS / "packed_pool.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
