"""Features of images by a chosen backbone, each image's kept in the store under its digest, where later calls read them.

The backbone is always an explicit choice: any timm name with its pretrained weights (``vit_small_patch14_dinov2.lvd142m`` at
paper scale), the same name after ``random:`` (random weights of a fixed seed), or ``pixels`` (no network at all).
"""

import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import say_damaged, write_text
from genaug.core.identity import fingerprint
from genaug.core.store import Store
from genaug.data.sample import Sample

PIXELS = "pixels"
RANDOM = "random:"
PIXEL_SIDE = 16
BATCH = 64  # images that a network encodes at once


def features_of(samples: Sequence[Sample], backbone: str, store: Path, device: str | None = None) -> np.ndarray:
    """float32 [n, d], one row per sample; only images without a row in the store are encoded.

    Args:
        backbone: a timm name, ``random:<timm name>`` or ``pixels``.
        store: root of the store; rows live in ``features/<fingerprint of the backbone>``, to which several processes may add
            at once.
        device: where the backbone runs; None takes a GPU where there is one.
    """
    kept = KeptRows(Store(store), fingerprint(backbone))
    by_digest = {sample.digest: sample for sample in samples}
    known = kept.find(by_digest)
    missing = [sample for digest, sample in by_digest.items() if digest not in known]
    if missing:
        made = {s.digest: row for s, row in zip(missing, encode(missing, backbone, device), strict=True)}
        kept.add(made)
        known |= made
    return np.stack([known[sample.digest] for sample in samples])


class KeptRows:
    """Rows of numbers by name in the store, to which rows are only ever added: ``rows.f4`` has one after another, and
    ``index.txt`` their length and, in a line for each, name and checksum. A row that is not whole counts as absent."""

    def __init__(self, store: Store, name: str):
        self.store, self.name = store, name
        folder = store.root / "features" / name
        self.index, self.rows = folder / "index.txt", folder / "rows.f4"

    def _lines(self) -> tuple[int, list[str]]:
        """The length of a row, 0 if it is not known, and a line for each row."""
        if not self.index.exists():
            return 0, []
        length, *lines = self.index.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        if not length.isdecimal():
            say_damaged(self.index, "it does not begin with the length of a row")
            return 0, []
        return int(length), lines

    def find(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the names that have a row, float32 [d]."""
        length, lines = self._lines()
        places = {line.partition(" ")[0]: place for place, line in enumerate(lines)}  # of two, the later one
        wanted = {name: place for name in names if (place := places.get(quote(name))) is not None}
        found: dict[str, np.ndarray] = {}
        if not wanted or not self.rows.exists():
            return found
        with self.rows.open("rb") as file:
            for name, place in sorted(wanted.items(), key=lambda entry: entry[1]):
                file.seek(place * length * 4)
                row = file.read(length * 4)
                if _line(name, row) == lines[place]:
                    found[name] = np.frombuffer(row, np.float32)
        return found

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Keep float32 [d] for each name."""
        content = [(name, row.astype(np.float32).tobytes()) for name, row in rows.items()]
        size = len(content[0][1])
        with self.store.lock(f"features-{self.name}"):
            length, lines = self._lines()
            lines = lines if length * 4 == size else []
            self.rows.parent.mkdir(parents=True, exist_ok=True)
            with self.rows.open("ab") as file:
                file.truncate(len(lines) * size)  # without what a killed process left, of which no line speaks
                file.writelines(row for _, row in content)
            lines += [_line(name, row) for name, row in content]
            write_text(self.index, "".join(f"{line}\n" for line in (size // 4, *lines)))


def _line(name: str, row: bytes) -> str:
    """Of a row in the index: its name, and the checksum of both."""
    return f"{quote(name)} {zlib.crc32(row, zlib.crc32(name.encode()))}"


def encode(samples: Sequence[Sample], backbone: str, device: str | None = None) -> np.ndarray:
    """Features without the store."""
    if backbone == PIXELS:
        small = [np.asarray(s.open().resize((PIXEL_SIDE, PIXEL_SIDE))).reshape(-1) for s in samples]
        return np.stack(small).astype(np.float32) / 255
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    random = backbone.startswith(RANDOM)
    name = backbone.removeprefix(RANDOM)
    if name.split(".")[0] not in timm.list_models():
        raise GenaugError(
            f"There is no backbone {name} in timm. Write a name of timm.list_models(), random:NAME, or pixels."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with boundary(
            f"The weights of {name} cannot be had here",
            f"Choose another backbone: random:{name} has random weights, pixels needs none; neither is comparable with "
            "published numbers.",
        ):
            if not random:
                print(f"loading the weights of {name} …", file=sys.stderr, flush=True)
            network = timm.create_model(name, pretrained=not random, num_classes=0)
    network.eval()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    transform = create_transform(**resolve_data_config({}, model=network))
    rows = []
    with torch.inference_mode():
        for first in range(0, len(samples), BATCH):
            batch = torch.stack([transform(s.open()) for s in samples[first : first + BATCH]])  # type: ignore[operator]
            rows.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(rows)


def normalised(features_nd: np.ndarray) -> np.ndarray:
    """Rows of length 1, for cosine similarity."""
    return features_nd / np.maximum(np.linalg.norm(features_nd, axis=1, keepdims=True), 1e-12)
