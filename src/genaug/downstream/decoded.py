"""Images at training size, each decoded once for all runs, when it is first drawn.

One file per size and way of resizing holds a row of pixels per picture; ``index.txt`` names the picture of each row. Rows are
only ever added, so that data sets, pools of any M and processes share it. It is a cache: removing it costs decoding again.
"""

import contextlib
import errno
import functools
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from genaug.core.files import write_text
from genaug.core.store import HASH, Store
from genaug.data.sample import Sample, SyntheticSample

PIXELS, CHECKS = "pixels.u8", "checks.u4"


def resized(image: Image.Image, size: int, resize: str) -> np.ndarray:
    """uint8 [3, size, size], bilinear, antialiased: the whole image (``squash``) or its central square (``crop``)."""
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _resized(size: int, resize: str, sample: Sample) -> np.ndarray:
    return resized(sample.open(), size, resize)


class Rows:
    """A row of bytes for each of some samples: the picture in one form, made when it is first read.

    Args:
        samples: what there are rows for, by their numbers.
        name: of the form, e.g. ``64-crop``; a folder in the store.
        num_bytes: length of a row.
        make: uint8 of at most that many elements, of a sample; equal for samples of equal content.
        store: where the rows are kept.
    """

    def __init__(
        self, samples: Sequence[Sample], name: str, num_bytes: int, make: Callable[[Sample], np.ndarray], store: Store
    ):
        self.samples, self.make = samples, make
        self.folder = store.root / "decoded" / name
        with store.lock(f"decoded-{name}"):
            self.place, total = _places([_key(sample) for sample in samples], self.folder, num_bytes)
        self.pixels = np.memmap(self.folder / PIXELS, np.uint8, "r", shape=(total, num_bytes))
        self.checks = np.memmap(self.folder / CHECKS, np.uint32, "r", shape=(total,))
        self.ready = np.zeros(len(samples), dtype=bool)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 [n, num_bytes]: the rows of the samples with these numbers, int64 [n]."""
        missing = np.unique(numbers[~self.ready[numbers]])
        if len(missing) > 0:
            with contextlib.ExitStack() as stack:
                # written, not changed in the map, where a full disk would end the process without a word
                files = [stack.enter_context((self.folder / name).open("r+b", 0)).fileno() for name in (PIXELS, CHECKS)]
                readers = stack.enter_context(ThreadPoolExecutor(min(os.cpu_count() or 1, 16)))
                for _ in readers.map(
                    functools.partial(self._fill, *files), missing
                ):  # raises what a thread could not do
                    pass
        return self.pixels[self.place[numbers]]

    def _fill(self, pixels_file: int, checks_file: int, number: int) -> None:
        """Decode a picture unless its row is whole: one that a killed process left half written fails its checksum, and so
        does another picture's, to which a damaged index leads."""
        place, key = int(self.place[number]), _key(self.samples[number])
        if not self.checks[place] or _checksum(self.pixels[place], key) != self.checks[place]:
            pixels = np.zeros(self.pixels.shape[1], dtype=np.uint8)
            made = self.make(self.samples[number]).ravel()
            pixels[: len(made)] = made
            for file, content in ((pixels_file, pixels), (checks_file, _checksum(pixels, key))):
                if os.pwrite(file, content.tobytes(), place * content.nbytes) < content.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        self.ready[number] = True


class Decoded(Rows):
    """``decoded[rows]``: uint8 [n, 3, size, size] of the samples with these numbers, or of a slice of them."""

    ndim = 4

    def __init__(self, samples: Sequence[Sample], size: int, resize: str, store: Store):
        make = functools.partial(_resized, size, resize)
        super().__init__(samples, f"{size}-{resize}", 3 * size * size, make, store)
        self.shape = (len(samples), 3, size, size)

    def __getitem__(self, rows: slice | np.ndarray | Sequence[int]) -> np.ndarray:
        return self.read(np.arange(len(self.samples))[rows]).reshape(-1, *self.shape[1:])


def distinct(samples: Sequence[Sample]) -> tuple[Sequence[Sample], dict[str, int]]:
    """The samples, each once, and the number of each by its id; without a copy where they are distinct already."""
    numbers: dict[str, int] = {}
    first = []
    for place, sample in enumerate(samples):
        if sample.id not in numbers:
            numbers[sample.id] = len(first)
            first.append(place)
    return samples if len(first) == len(samples) else [samples[place] for place in first], numbers


def _checksum(pixels: np.ndarray, key: str) -> np.uint32:
    """Of a picture's row and of what picture it is; never 0, which is a row that nobody wrote."""
    return np.uint32(zlib.crc32(pixels.tobytes(), zlib.crc32(key.encode())) | 1)


def _places(keys: Sequence[str], folder: Path, num_bytes: int) -> tuple[np.ndarray, int]:
    """Row of each picture, int64 [n], and the number of rows; pictures that have none get the next ones."""
    index = folder / "index.txt"
    rows = index.read_text(encoding="utf-8", errors="replace").splitlines() if index.exists() else []
    known = {key: row for row, key in enumerate(rows)}
    for key in keys:
        if known.setdefault(key, len(rows)) == len(rows):
            rows.append(key)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in ((PIXELS, num_bytes), (CHECKS, 4)):
        with (folder / name).open("ab") as file:
            if file.tell() < len(rows) * size:
                file.truncate(len(rows) * size)  # a hole: what nobody draws takes no room on disk
    write_text(index, "".join(f"{key}\n" for key in rows))
    return np.asarray([known[key] for key in keys], dtype=np.int64), len(rows)


def _key(sample: Sample) -> str:
    """The picture's content: of a synthetic one its pixels', as the manifest has it, since a fingerprint may be made again."""
    about = sample.about if isinstance(sample, SyntheticSample) else {}
    content = str(about.get(HASH, sample.digest))
    return quote(content) if sample.white is None else f"{quote(content)} {sample.white:g}"
