"""The manifest of a packed pool and its samples, of which each is made when it is asked for: a million rows open at once.

``metadata.arrow`` is an Arrow file that is mapped into memory: ``fingerprint``, ``source_id``, ``index``, ``rejected`` (null
for images that are trained on) and ``row``, the JSON that a line of ``metadata.jsonl`` would hold. Where an image lies is not
in it: the shards' own indices say that, also after one was made again. ``packed.json`` names the M up to which it is complete.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import as_json, read_json, whole
from genaug.core.shards import IMAGES, REJECTED, Catalogue, Packed, as_numbers
from genaug.core.store import HASH, file_hash
from genaug.data.sample import SyntheticSample

if TYPE_CHECKING:
    from pyarrow import Table

SHARDED, TABLE = "packed.json", "metadata.arrow"
ROWS_AT_ONCE = 1 << 16

Sampled = Callable[[dict[str, Any], Path | Packed], SyntheticSample]
"""Makes a sample of a manifest's row and its image."""


def shards_of(folder: Path) -> list[Path]:
    """The tar files of a pool."""
    return sorted(tar for kind in (IMAGES, REJECTED) for tar in folder.glob(f"{kind}-*.tar"))


def read_table(folder: Path) -> "Table":
    """The manifest of a packed pool; columns are read from disk where they are looked at.

    Raises:
        GenaugError: if it is not as it was written.
    """
    from pyarrow import ipc, memory_map

    with boundary(f"{folder / TABLE} cannot be read", "Run the command that made it again: it is written again."):
        about = read_json(folder / SHARDED, {"m": int, HASH: str})
        if about is None or file_hash(folder / TABLE) != about[HASH]:
            raise ValueError("its content has changed")
        return ipc.open_file(memory_map(str(folder / TABLE))).read_all()


def numbers_of(table: "Table") -> np.ndarray:
    """Fingerprints of a manifest's rows, uint64 [n]."""
    return as_numbers("".join(table["fingerprint"].to_pylist()))


def old_rows(folder: Path, num_variants: int) -> list[str]:
    """Rows of a larger M that was published before, as JSON; none where the manifest is damaged."""
    try:
        table = read_table(folder)
    except GenaugError:
        return []
    return table["row"].filter(table["index"].to_numpy() >= num_variants).to_pylist()


def write_table(folder: Path, wanted: list[tuple[str, str, int]], old: list[str], catalogue: Catalogue) -> None:
    """Write the manifest, by index and source.

    Args:
        wanted: fingerprint, source and index of each image; its metadata are read from the image.
        old: further rows, as JSON; those whose images are gone are left out.
        catalogue: where the images lie.
    """
    import pyarrow as pa

    kept = [(row["fingerprint"], row["source_id"], row["index"], text) for text in old for row in [json.loads(text)]]
    keyed = [*kept, *((*image, None) for image in wanted)]
    places = catalogue.places(as_numbers("".join(name for name, *_ in keyed)))
    if (absent := int((places[len(kept) :] < 0).sum())) > 0:
        raise GenaugError(f"{absent} images of {folder} are in none of its shards. Run the same command again.")
    keep = np.flatnonzero(places >= 0)
    order = sorted(keep.tolist(), key=lambda i: (keyed[i][2], keyed[i][1]))
    kinds = {"fingerprint": pa.string(), "source_id": pa.string(), "index": pa.int32(), "rejected": pa.string()}
    schema = pa.schema({**kinds, "row": pa.string()})
    with (
        whole(folder / TABLE) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        for start in range(0, len(order), ROWS_AT_ONCE):
            columns: list[list[Any]] = [[], [], [], [], []]
            for i in order[start : start + ROWS_AT_ONCE]:
                name, source_id, index, text = keyed[i]
                if text is None:
                    about = json.loads(catalogue.at(int(places[i])).texts()["genaug"])
                    # the image may have been made for the same picture under another name, or as another variant
                    row = {"file_name": f"{name}.png", **about, "source_id": source_id}
                    text = as_json(row, str(folder / TABLE))
                else:
                    row = json.loads(text)
                for column, value in zip(columns, (name, source_id, index, row["rejected"], text), strict=True):
                    column.append(value)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


@dataclass(kw_only=True, slots=True)
class Opened:
    """A packed pool that is open."""

    table: "Table"
    catalogue: Catalogue
    places: np.ndarray
    """int64 [rows of the table]: where each image lies, for ``catalogue.at``."""
    sampled: Sampled


class PackedSamples(Sequence[SyntheticSample]):
    """Some rows of a packed pool; a sample is made of its row whenever it is asked for."""

    __slots__ = ("opened", "rows")

    def __init__(self, opened: Opened, rows: np.ndarray):
        self.opened, self.rows = opened, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> SyntheticSample: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedSamples": ...
    def __getitem__(self, index: int | slice) -> "SyntheticSample | PackedSamples":
        if isinstance(index, slice):
            return PackedSamples(self.opened, self.rows[index])
        row = int(self.rows[index])
        opened = self.opened
        return opened.sampled(
            json.loads(opened.table["row"][row].as_py()), opened.catalogue.at(int(opened.places[row]))
        )

    def __iter__(self) -> Iterator[SyntheticSample]:
        return (self[place] for place in range(len(self.rows)))

    def at(self, places: Sequence[int] | np.ndarray) -> "PackedSamples":
        """The samples at some places of this sequence."""
        return PackedSamples(self.opened, self.rows[np.asarray(places, dtype=np.int64)])

    def by_source(self) -> dict[str, "PackedSamples"]:
        """Those of each real sample, in order of their index."""
        if len(self.rows) == 0:
            return {}
        sources = self.opened.table["source_id"].combine_chunks().dictionary_encode()
        codes = sources.indices.to_numpy(zero_copy_only=False)[self.rows]
        order = np.argsort(codes, kind="stable")  # the manifest is sorted by index
        first = np.flatnonzero(np.diff(codes[order], prepend=-1))
        groups = np.split(self.rows[order], first[1:])
        names = sources.dictionary.take(codes[order][first]).to_pylist()
        return {name: PackedSamples(self.opened, rows) for name, rows in zip(names, groups, strict=True)}
