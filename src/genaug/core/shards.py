"""Many images in few files: tar shards in WebDataset's layout, each with an index beside it.

``<name>.tar``    of each image its metadata (``<fingerprint>.json``) and its file (``<fingerprint>.png``); only appended to
``<name>.index``  a ``RECORD`` for each image, written after it, and a seal: size and time of the finished tar file

A writer that is killed leaves a shard without a seal, whose images count all the same; whoever opens the pool next looks at
each of them and seals it (``mend``). A shard that is not as it was sealed is looked at in the same way.
"""

import contextlib
import io
import os
import secrets
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from genaug.core.files import say_damaged
from genaug.core.png import texts

IMAGES, REJECTED = "images", ".rejected"
"""Beginnings of a shard's name; no tool takes a file with a dot in front by accident."""
MOST_BYTES, MOST_IMAGES = 2**28, 10_000  # of one shard
RECORD = np.dtype([("fingerprint", "<u8"), ("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""An image's file inside the tar file, and the CRC-32 of its bytes. In a seal the fingerprint is 0, ``offset`` the time of
change of the tar file in nanoseconds, ``size`` its size and ``crc`` that of all records before."""
BLOCK = 512  # of tar files
END = bytes(2 * BLOCK)


@dataclass(kw_only=True, frozen=True, slots=True)
class Packed:
    """The file of an image inside a shard."""

    shard: Path
    stem: str
    """Fingerprint of the image."""
    offset: int
    size: int
    crc: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.stem}.png"

    def read(self) -> bytes:
        """The bytes of the PNG file.

        Raises:
            ValueError: if they have changed; the next run then looks at the whole shard and makes its damaged images again.
        """
        with self.shard.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.size, self.offset)
        if zlib.crc32(data) != self.crc:
            with contextlib.suppress(OSError):
                os.utime(self.shard)  # no longer as it was sealed
            raise ValueError("its bytes have changed")
        return data

    def texts(self) -> dict[str, str]:
        """The texts of the PNG file, without its pixels."""
        with self.shard.open("rb", buffering=0) as file:
            return texts(os.pread(file.fileno(), min(self.size, 1 << 16), self.offset))

    def check_beside(self) -> None:
        """Raise ``ValueError`` if the names and metadata in front of it, for other readers, are not as they were written."""
        about = self.texts()["genaug"].encode()
        expected = _member(f"{self.stem}.json", about) + _header(f"{self.stem}.png", self.size)
        with self.shard.open("rb", buffering=0) as file:
            if os.pread(file.fileno(), len(expected), self.offset - len(expected)) != expected:
                raise ValueError("the metadata in front of it have changed")


class Writer:
    """Appends images to shards of its own in ``folder``; threads may share it."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        self.one_at_a_time = threading.Lock()
        self.tar: BinaryIO | None = None

    def append(self, fingerprint: str, data: bytes, about: str) -> None:
        """Add a PNG file and its metadata, which are then found by every process."""
        with self.one_at_a_time:
            if self.tar is not None and (self.end > MOST_BYTES or self.count >= MOST_IMAGES):
                self._close()
            if self.tar is None:
                self._open()
            assert self.tar is not None
            described = _member(f"{fingerprint}.json", about.encode())
            place = self.end + len(described) + BLOCK
            both = described + _member(f"{fingerprint}.png", data)
            try:
                self.tar.write(both)
                self.tar.flush()
            except BaseException:  # e.g. a full disk: what was written of it is no part of the shard
                self.tar = io.BytesIO()
                os.truncate(self.path, self.end)
                self.tar = self.path.open("ab")
                raise
            self.end += len(both)
            self.count += 1
            record = (int(fingerprint, 16), place, len(data), zlib.crc32(data))
            self.index.write(np.array([record], RECORD).tobytes())
            self.index.flush()

    def close(self) -> None:
        """Flush the last shard to disk and seal it."""
        with self.one_at_a_time:
            self._close()

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        self.path = self.folder / f"{name}.tar"
        self.lock = FileLock(lock_of(self.path))
        self.lock.acquire()
        self.tar, self.index = self.path.open("wb"), self.path.with_suffix(".index").open("wb")
        self.end = self.count = 0

    def _close(self) -> None:
        if self.tar is None:
            return
        self.tar.write(END)
        for file in (self.tar, self.index):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self.tar = None
        seal(self.path)
        lock_of(self.path).unlink(missing_ok=True)
        self.lock.release()


def _member(name: str, content: bytes) -> bytes:
    """A file as it stands in a tar file."""
    return _header(name, len(content)) + content + bytes(-len(content) % BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()


def lock_of(tar: Path) -> Path:
    """The file on which the writer of a shard holds a lock."""
    return tar.with_name(f".{tar.stem.lstrip('.')}.lock")


def is_written(tar: Path) -> bool:
    """Whether a process is still writing a shard."""
    if not lock_of(tar).exists():
        return False
    lock = FileLock(lock_of(tar))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock_of(tar).unlink(missing_ok=True)
    lock.release()
    return False


def seal(tar: Path) -> None:
    """Say in the index that the shard is finished, as it is now."""
    index, stat = tar.with_suffix(".index"), tar.stat()
    record = (0, stat.st_mtime_ns, stat.st_size, zlib.crc32(index.read_bytes()))
    with index.open("ab") as file:
        file.write(np.array([record], RECORD).tobytes())
        file.flush()
        os.fsync(file.fileno())


def restore_seal(tar: Path) -> None:
    """Give a copy of a shard, whose bytes the caller has compared, the time of change with which it was sealed."""
    data = tar.with_suffix(".index").read_bytes()
    records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
    if len(records) and records[-1]["fingerprint"] == 0:
        sealed = int(records[-1]["offset"])
        os.utime(tar, ns=(sealed, sealed))


def read_index(tar: Path) -> tuple[np.ndarray, bool]:
    """The records of the images in a shard, and whether it is as it was sealed."""
    try:
        data, stat = tar.with_suffix(".index").read_bytes(), tar.stat()
    except FileNotFoundError:
        return np.empty(0, RECORD), False
    records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
    images = records[records["fingerprint"] != 0]
    images = images[images["offset"] + images["size"] <= stat.st_size]
    if len(records) == 0:
        return images, False
    sealed = (0, stat.st_mtime_ns, stat.st_size, zlib.crc32(data[: (len(records) - 1) * RECORD.itemsize]))
    return images, records[-1].item() == sealed


def packed(tar: Path, record: np.ndarray) -> Packed:
    """The image of one record."""
    fingerprint, offset, size, crc = record.item()
    return Packed(shard=tar, stem=f"{fingerprint:016x}", offset=offset, size=size, crc=crc)


def mend(tar: Path, why_damaged: Callable[[Packed], str | None]) -> list[str]:
    """Look at each image of a shard and seal it; where some are damaged, those that are not go into a new shard.

    Args:
        tar: a shard that nobody writes.
        why_damaged: what is wrong with an image; None if nothing is.

    Returns:
        fingerprints of what was damaged.
    """
    index = tar.with_suffix(".index")
    images = read_index(tar)[0] if index.exists() else _found_in(tar)
    found = [packed(tar, record) for record in images]
    damaged = {image.stem: why for image in found if (why := why_damaged(image)) is not None}
    for name, why in damaged.items():
        say_damaged(tar.with_name(f"{tar.name}:{name}.png"), why)
    if found and not damaged:
        index.write_bytes(images.tobytes())
        end = max(image.offset + image.size + (-image.size % BLOCK) for image in found)
        if tar.stat().st_size != end + len(END):
            with tar.open("rb+") as file:
                file.truncate(end)  # what a killed writer did not finish
                file.seek(end)
                file.write(END)
        seal(tar)
        return []
    writer = Writer(tar.parent, tar.name.partition("-")[0])
    for image in found:
        if image.stem not in damaged:
            writer.append(image.stem, image.read(), image.texts()["genaug"])
    writer.close()
    for path in (tar, index):
        path.unlink(missing_ok=True)
    return list(damaged)


def _found_in(tar: Path) -> np.ndarray:
    """Records of the images in a tar file whose index is gone."""
    records = []
    with contextlib.suppress(tarfile.TarError), tarfile.open(tar) as file:
        for member in file:
            stem, _, ending = member.name.partition(".")
            if ending == "png":
                data = file.extractfile(member).read()  # type: ignore[union-attr]
                records.append((int(stem, 16), member.offset_data, member.size, zlib.crc32(data)))
    return np.array(records, RECORD)


class Catalogue:
    """Where each image lies in the shards of some folders; ``refresh`` sees what other processes have added."""

    def __init__(self, folders: Callable[[], Iterable[Path]]):
        self.folders = folders
        self.seen: dict[Path, tuple[tuple[int, ...], np.ndarray, bool]] = {}
        self._merge()

    def refresh(self) -> "Catalogue":
        """Read the indices that have changed."""
        now = {}
        for folder in self.folders():
            try:
                entries = list(os.scandir(folder))
            except OSError:  # gone since it was listed
                continue
            for entry in entries:
                if not entry.name.endswith(".tar"):
                    continue
                tar = Path(entry.path)
                state = tuple(v for path in (tar, tar.with_suffix(".index")) for v in _state(path))
                known = self.seen.get(tar)
                now[tar] = known if known is not None and known[0] == state else (state, *read_index(tar))
        changed = [tar for tar, (state, *_) in now.items() if tar not in self.seen or self.seen[tar][0] != state]
        if changed or len(now) != len(self.seen):
            self.seen = now
            self._merge()
        return self

    def _merge(self) -> None:
        self.shards = sorted(self.seen)
        parts = [self.seen[tar][1] for tar in self.shards]
        self.records = np.concatenate([np.empty(0, RECORD), *parts])
        self.shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        self.order = np.argsort(self.records["fingerprint"], kind="stable")
        self.numbers = self.records["fingerprint"][self.order]

    def sealed(self) -> set[Path]:
        """Shards that are as they were sealed."""
        return {tar for tar, (_, _, is_sealed) in self.seen.items() if is_sealed}

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Place of each image, int64 [n], by fingerprints as uint64 [n]; -1 where it is in no shard."""
        if len(self.numbers) == 0:
            return np.full(len(numbers), -1, dtype=np.int64)
        found = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return np.where(self.numbers[found] == numbers, self.order[found], -1)

    def has(self, names: Sequence[str]) -> np.ndarray:
        """Whether each image is in a shard, bool [n]."""
        return self.places(as_numbers("".join(names))) >= 0

    def at(self, place: int) -> Packed:
        """The image at a place."""
        return packed(self.shards[self.shard[place]], self.records[place])

    def image(self, name: str) -> Packed | None:
        """The image of a fingerprint."""
        place = int(self.places(as_numbers(name))[0])
        return self.at(place) if place >= 0 else None


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def as_numbers(names: str) -> np.ndarray:
    """Fingerprints in one text, without anything between them, as uint64 [n]."""
    return np.frombuffer(bytes.fromhex(names), ">u8").astype(np.uint64)
