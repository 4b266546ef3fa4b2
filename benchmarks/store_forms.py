"""Forms of a pool of many images, side by side: files, tar shards with an index, Parquet with image bytes, LMDB.

All hold the same PNG bytes and rows, so that only the form differs. For each: seconds of CPU and wall clock to write, to read
images at random and to list what is there (which a resumed run does first); what is left after the writer is killed; size and
number of files; whether ``datasets`` opens it. A second table gives the codecs at 512 pixels: milliseconds, size, all lossless.

    python -m benchmarks store_forms [--images 20000] [--reads 2000]        # LMDB needs: pip install lmdb
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genaug.core.png import encode

SHARD = 4096  # images of one tar or Parquet file
ROW_GROUP = 128  # images that Parquet reads at once
KILLED_AT = 5000  # the writer dies after as many images
RECORD = np.dtype([("key", "S16"), ("shard", "<u4"), ("size", "<u4"), ("offset", "<u8")])

Row = tuple[str, bytes, dict[str, Any]]  # key, PNG, metadata


def rows(count: int) -> Iterator[Row]:
    """Tiny pictures with the metadata that a pool has."""
    rng = np.random.default_rng(0)
    for i in range(count):
        key = hashlib.sha256(str(i).encode()).hexdigest()[:16]
        about = {
            "source_id": f"train/{i % 1000}",
            "index": i // 1000,
            "label": {"seven": 1.0},
            "t0": 0.5,
            "rejected": None,
        }
        pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        yield key, encode(Image.fromarray(pixels)), {**about, "generator": "da_fusion", "prompt": "a photo of a seven"}


class Files:
    """One PNG each in 256 folders, as small pools are kept, and a line of JSON."""

    builder = "imagefolder"

    def write(self, folder: Path, items: Iterator[Row]) -> None:
        with (folder / "metadata.jsonl").open("w") as lines:
            for key, data, about in items:
                path = folder / key[:2] / f"{key}.png"
                path.parent.mkdir(exist_ok=True)
                partial = path.with_suffix(".partial")
                partial.write_bytes(data)
                partial.rename(path)
                lines.write(json.dumps({"file_name": f"{key[:2]}/{key}.png", **about}) + "\n")

    def keys(self, folder: Path) -> list[str]:
        return [entry.name[:-4] for part in os.scandir(folder) if part.is_dir() for entry in os.scandir(part.path)]

    def reader(self, folder: Path) -> Callable[[str], bytes]:
        return lambda key: (folder / key[:2] / f"{key}.png").read_bytes()


class TarShards:
    """WebDataset's tar files: PNG and JSON of each image, appended; a fixed-size record of each in an index beside them."""

    builder = "webdataset"

    def write(self, folder: Path, items: Iterator[Row]) -> None:
        with (folder / "index").open("wb", buffering=0) as index:
            shard = None
            for i, (key, data, about) in enumerate(items):
                if i % SHARD == 0:
                    shard = self._next(folder, shard, i // SHARD)
                assert shard is not None
                for ending, content in (("json", json.dumps(about).encode()), ("png", data)):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    shard.write(info.tobuf() + content + bytes(-len(content) % 512))
                place = shard.tell() - len(data) - (-len(data) % 512)
                index.write(np.array([(key, i // SHARD, len(data), place)], RECORD).tobytes())
            self._next(folder, shard, -1)

    def _next(self, folder: Path, shard: Any, number: int) -> Any:
        if shard is not None:
            shard.write(bytes(1024))
            shard.close()
        return (folder / f"images-{number:05d}.tar").open("wb", buffering=0) if number >= 0 else None

    def _index(self, folder: Path) -> np.ndarray:
        data = (folder / "index").read_bytes()
        return np.frombuffer(data[: len(data) // RECORD.itemsize * RECORD.itemsize], RECORD)

    def keys(self, folder: Path) -> list[str]:
        return self._index(folder)["key"].astype(str).tolist()

    def reader(self, folder: Path) -> Callable[[str], bytes]:
        index = self._index(folder)
        order = index["key"].argsort()
        known = index["key"][order]

        def read(key: str) -> bytes:
            found = index[order[known.searchsorted(key.encode())]]
            with (folder / f"images-{found['shard']:05d}.tar").open("rb") as file:
                return os.pread(file.fileno(), int(found["size"]), int(found["offset"]))

        return read


class Parquet:
    """The Hub's own form: a column of image bytes beside the metadata, in row groups."""

    builder = "parquet"

    def write(self, folder: Path, items: Iterator[Row]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        fields = {
            "key": pa.string(),
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "about": pa.string(),
        }
        schema, writer, group, number = pa.schema(fields), None, [], 0
        for i, (key, data, about) in enumerate(items):
            if i % SHARD == 0:
                number, writer = number + 1, self._close(writer, group, schema)
                writer = ParquetWriter(folder / f"images-{number:05d}.parquet", schema, compression="zstd")
            group.append({"key": key, "image": {"bytes": data, "path": f"{key}.png"}, "about": json.dumps(about)})
            if len(group) == ROW_GROUP:
                assert writer is not None
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        self._close(writer, group, schema)

    def _close(self, writer: Any, group: list[dict[str, Any]], schema: Any) -> None:
        import pyarrow as pa

        if writer is not None:
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
            writer.close()

    def _files(self, folder: Path) -> Iterator[Path]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        for path in sorted(folder.glob("*.parquet")):
            try:
                ParquetFile(path).close()
            except pa.ArrowInvalid:  # killed before its footer was written: nothing of the file can be read
                continue
            yield path

    def keys(self, folder: Path) -> list[str]:
        from pyarrow.parquet import read_table

        return [key for path in self._files(folder) for key in read_table(path, columns=["key"])["key"].to_pylist()]

    def reader(self, folder: Path) -> Callable[[str], bytes]:
        from pyarrow.parquet import ParquetFile, read_table

        files = list(self._files(folder))
        opened = [ParquetFile(path, memory_map=True) for path in files]
        places = {
            key: (number, row)
            for number, path in enumerate(files)
            for row, key in enumerate(read_table(path, columns=["key"])["key"].to_pylist())
        }

        def read(key: str) -> bytes:
            number, row = places[key]
            group = opened[number].read_row_group(row // ROW_GROUP, columns=["image"])
            return group["image"][row % ROW_GROUP]["bytes"].as_py()

        return read


class Lmdb:
    """One memory-mapped B+ tree; a transaction for every 64 images, the number in flight at a kill."""

    builder = None

    def write(self, folder: Path, items: Iterator[Row]) -> None:
        import lmdb

        with lmdb.open(str(folder), map_size=2**40) as store:
            transaction = store.begin(write=True)
            for i, (key, data, about) in enumerate(items):
                transaction.put(key.encode(), data)
                transaction.put(f"{key}.json".encode(), json.dumps(about).encode())
                if i % 64 == 63:
                    transaction.commit()
                    transaction = store.begin(write=True)
            transaction.commit()

    def keys(self, folder: Path) -> list[str]:
        import lmdb

        with lmdb.open(str(folder), readonly=True, lock=False) as store, store.begin() as transaction:
            keys = transaction.cursor().iternext(keys=True, values=False)
            return [key.decode() for key in keys if not key.endswith(b".json")]

    def reader(self, folder: Path) -> Callable[[str], bytes]:
        import lmdb

        transaction = lmdb.open(str(folder), readonly=True, lock=False).begin()
        return lambda key: transaction.get(key.encode())


FORMS = {"files": Files, "tar shards + index": TarShards, "Parquet": Parquet, "LMDB": Lmdb}


def until_killed(form: Any, folder: Path) -> None:
    """Write, and die without a word."""

    def items() -> Iterator[Row]:
        for i, row in enumerate(rows(2 * KILLED_AT)):
            if i == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row

    form.write(folder, items())


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU and wall seconds of ``work()``, and what it returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    value = work()
    return time.process_time() - cpu, time.perf_counter() - wall, value


def measure(name: str, count: int, num_reads: int, top: Path) -> dict[str, Any]:
    """One row of the table."""
    form, folder, killed = FORMS[name](), top / "whole", top / "killed"
    for place in (folder, killed):
        place.mkdir(parents=True)
    items = list(rows(count))
    write = timed(lambda: form.write(folder, iter(items)))
    chosen = random.Random(0).sample(items, num_reads)
    listed = timed(lambda: form.keys(folder))
    opened = timed(lambda: form.reader(folder))
    reads = timed(lambda: [opened[2](key) for key, _, _ in chosen])
    assert sorted(listed[2]) == sorted(key for key, _, _ in items)
    assert reads[2] == [data for _, data, _ in chosen], "other bytes came back"
    writer = multiprocessing.get_context("spawn").Process(target=until_killed, args=(form, killed))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    left = form.keys(killed)
    if left:
        form.reader(killed)(left[-1])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "form": name,
        "write_cpu_us": write[0] / count * 1e6,
        "write_wall_us": write[1] / count * 1e6,
        "list_us": listed[0] / count * 1e6,
        "random_read_cpu_us": reads[0] / num_reads * 1e6,
        "random_read_wall_us": reads[1] / num_reads * 1e6,
        "bytes_on_disk": sum(path.stat().st_blocks * 512 for path in files) / count,
        "files": len(files),
        f"left_of_{KILLED_AT}_when_killed": len(left),
        "datasets": opens(form.builder, folder, top / "cache") if form.builder else "no",
    }


def opens(builder: str, folder: Path, cache: Path) -> str:
    """Whether ``datasets`` opens the folder, and the seconds until its first image."""
    from datasets import load_dataset

    pattern = {"webdataset": "*.tar", "parquet": "*.parquet"}.get(builder)
    chosen = {"data_files": str(folder / pattern)} if pattern else {"data_dir": str(folder)}
    _, wall, row = timed(
        lambda: next(iter(load_dataset(builder, split="train", streaming=True, cache_dir=str(cache), **chosen)))
    )
    assert any(name in row for name in ("image", "png"))
    return f"{wall:.1f} s to the first image"


def pillow(kind: str, **options: Any) -> Callable[[Image.Image], bytes]:
    def write(image: Image.Image) -> bytes:
        data = io.BytesIO()
        image.save(data, kind, **options)
        return data.getvalue()

    return write


def codecs(pictures: list[Image.Image]) -> list[dict[str, Any]]:
    """CPU milliseconds to write and read a picture, and its size, for each codec."""
    table = []
    for name, write in {
        "PNG level 1 (Pillow)": pillow("PNG", compress_level=1),
        "PNG level 6 (Pillow)": pillow("PNG", compress_level=6),
        "WebP lossless, method 0": pillow("WEBP", lossless=True, method=0, quality=0),
        "PNG, average filter, run lengths (genaug)": encode,
    }.items():
        cpu, _, files = timed(lambda write=write: [write(picture) for picture in pictures])
        back, _, same = timed(
            lambda files=files: [
                np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), np.asarray(picture))
                for data, picture in zip(files, pictures, strict=True)
            ]
        )
        assert all(same), f"{name} is not lossless"
        size = sum(map(len, files)) / len(files)
        table.append(
            {"codec": name, "write_ms": cpu / len(files) * 1e3, "read_ms": back / len(files) * 1e3, "bytes": size}
        )
    return table


def photographs(count: int, side: int = 512) -> list[Image.Image]:
    """Pictures with the spectrum of photographs and a little noise, as a decoder leaves it."""
    pictures = []
    for seed in range(count):
        rng, total = np.random.default_rng(seed), np.zeros((side, side, 3))
        for power in range(2, 10):
            noise = Image.fromarray(rng.integers(0, 255, (2**power, 2**power, 3), dtype=np.uint8))
            total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC)) * 2.0 ** (-0.9 * power)
        total = (total - total.min()) / (total.max() - total.min()) * 255 + rng.normal(0, 2, total.shape)
        pictures.append(Image.fromarray(total.clip(0, 255).astype(np.uint8)))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=2000)
    arguments = parser.parse_args()
    forms = []
    for name in FORMS:
        top = Path(tempfile.mkdtemp())
        forms.append(measure(name, arguments.images, arguments.reads, top))
        shutil.rmtree(top)
    report = {
        "images": arguments.images,
        "png_bytes": sum(len(data) for _, data, _ in rows(64)) / 64,
        "forms": forms,
        "codecs_512_px": codecs(photographs(8)),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=1, default=float))


if __name__ == "__main__":
    main()
