"""The two forms of a pool: a folder of image files, or tar shards. Both are found, filled, verified and published alike."""

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import (
    SEAL,
    as_json,
    has_changed,
    read_json,
    say_damaged,
    seal_of,
    whole,
    write_json,
    write_text,
)
from genaug.core.shards import IMAGES, REJECTED, Catalogue, Packed, Writer, is_written, mend
from genaug.core.store import HASH, Store, about_picture, as_file, file_hash
from genaug.data.packed import SHARDED, TABLE, old_rows, shards_of, write_table
from genaug.data.pool import ACCEPTED, REJECTED_ROWS, Pool, manifest_rows, open_packed, pool_of, unlisted
from genaug.data.sample import Dataset
from genaug.generators.base import Variant

Say = Callable[[str], None]

_seen: set[tuple[Path, str, int, int]] = set()
"""Image files that this process has verified: pool, fingerprint, size and time of change of the file."""


class Form(ABC):
    """How the images of one pool are kept."""

    def __init__(self, store: Store, folder: Path):
        self.store, self.folder = store, folder

    @abstractmethod
    def own(self, names: Collection[str]) -> set[str]:
        """Those of these images that the pool has in this form."""

    @abstractmethod
    def verified(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Look at the pool's own images: a damaged one is named and removed, so that it is made again.

        Returns:
            what is known of them, unless that is read when it is needed.
        """

    @abstractmethod
    def put(self, name: str, image: Image.Image, about: dict[str, Any]) -> dict[str, Any]:
        """Keep a new image; returns what is known of it, unless that is read when it is needed."""

    @abstractmethod
    def take(self, name: str, data: bytes, about: dict[str, Any]) -> None:
        """Keep an image that the store has in another place, as it is there."""

    @abstractmethod
    def publish(
        self, variants: list[Variant], num_variants: int, abouts: dict[str, dict[str, Any]], dataset: Dataset, say: Say
    ) -> Pool:
        """Write the manifest: the images of ``variants`` as they are, and rows of a larger earlier M.

        Args:
            abouts: of images that were made or looked at now. The row of any other is kept if there is one, else read from
                the image.
        """

    def published(self, num_variants: int, dataset: Dataset) -> Pool | None:
        """The pool, where what was published needs no further look; the images of M = ``num_variants`` are then not listed."""
        return None

    def close(self) -> None:
        """Finish what is being written."""

    def gather(self, names: Collection[str]) -> None:
        """Copy what the store has of these images in another place than this pool's; what is damaged there is removed."""
        lacking = set(names) - self.own(names)
        for name in sorted(self.store.known(lacking)):
            image = self.store.image(name)
            try:
                about = about_picture(image)
                self.take(name, image.read() if isinstance(image, Packed) else image.read_bytes(), about)
            except GenaugError as error:
                say_damaged(Path(str(image)), str(error))
                if isinstance(image, Path):
                    image.unlink(missing_ok=True)
                else:
                    self.mend(image.shard)
                    self.store.packed.refresh()

    def mend(self, tar: Path) -> None:
        """Look at each image of a shard, unless somebody writes it, and seal what is whole."""
        with self.store.lock(f"shard-{tar.stem.lstrip('.')}"):
            if tar.exists() and not is_written(tar):
                mend(tar, damage)


def damage(image: Packed) -> str | None:
    """What is wrong with the bytes of an image in a shard; None if nothing is."""
    try:
        image.read()
        image.check_beside()
        about = json.loads(image.texts()["genaug"])
    except (OSError, ValueError, KeyError) as error:
        return str(error) or type(error).__name__
    return None if about["fingerprint"] == image.stem else f"it is the image {about['fingerprint']}"


def form_of(store: Store, folder: Path, num_images: int = 0) -> Form:
    """The form of a pool: packed from ``paths.packed_from`` images on, and for good once it is."""
    packs = num_images >= store.packed_from or (folder / SHARDED).exists() or bool(shards_of(folder))
    return Shards(store, folder) if packs else Files(store, folder)


class Files(Form):
    """Each image is a file of the store, with a hard link in the pool's folder; the manifest is ``metadata.jsonl``."""

    def own(self, names: Collection[str]) -> set[str]:
        return {name for name in names if self.store.has_file(name)}

    def verified(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Each image is decoded and compared with the hash of its pixels once per process and pool."""

        def look(name: str) -> tuple[str, dict[str, Any] | None]:
            path = self.store.image_path(name)
            try:
                return name, self.store.about_image(name)
            except GenaugError as error:
                say_damaged(path, str(error))
                path.unlink(missing_ok=True)
                return name, None

        there = [name for name in names if self.store.image_path(name).exists()]
        fresh = [name for name in there if self._state(name) not in _seen]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:
            found = {name: about for name, about in readers.map(look, fresh) if about is not None}
        _seen.update(self._state(name) for name in found)
        self.gather(names)
        return found

    def _state(self, name: str) -> tuple[Path, str, int, int]:
        stat = self.store.image_path(name).stat()
        return self.folder, name, stat.st_size, stat.st_mtime_ns

    def put(self, name: str, image: Image.Image, about: dict[str, Any]) -> dict[str, Any]:
        about = self.store.put_image(name, image, about)
        _seen.add(self._state(name))
        return about

    def take(self, name: str, data: bytes, about: dict[str, Any]) -> None:
        with whole(self.store.image_path(name)) as partial:
            partial.write_bytes(data)

    def publish(
        self, variants: list[Variant], num_variants: int, abouts: dict[str, dict[str, Any]], dataset: Dataset, say: Say
    ) -> Pool:
        self.gather({variant.fingerprint for variant in variants})
        known = {(row["fingerprint"], row["source_id"]): row for row in manifest_rows(self.folder)}
        others = {v.fingerprint for v in variants if (v.fingerprint, v.source.id) not in known} - abouts.keys()
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:  # every pixel is decoded, to be verified
            abouts = abouts | dict(zip(others, readers.map(self.store.about_image, others), strict=True))
        rows = {key: row for key, row in known.items() if row["index"] >= num_variants}
        for variant in variants:
            key = variant.fingerprint, variant.source.id
            about = abouts.get(variant.fingerprint)
            if about is None:
                rows[key] = known[key]
            else:
                place = ".rejected" if about["rejected"] else f"{variant.index:03d}"
                rows[key] = {
                    "file_name": f"{place}/{variant.fingerprint}.png",
                    "fingerprint": variant.fingerprint,
                    **about,
                    # the image may have been made for the same picture under another name
                    "source_id": variant.source.id,
                }
            _link(self.store.image_path(variant.fingerprint), self.folder / rows[key]["file_name"])
        ordered = _write_rows(self.folder, rows.values(), say)
        for image in unlisted(self.folder, ordered):  # of a larger M, whose lines were lost; the store has it still
            image.unlink()
        return pool_of(ordered, self.folder, dataset, num_variants)


def _write_rows(folder: Path, rows: Iterable[dict[str, Any]], say: Say) -> list[dict[str, Any]]:
    """Write both manifests of a pool as these rows say, each row sealed; returns them in order."""
    ordered = sorted(rows, key=lambda row: (row["index"], row["source_id"]))
    for name, chosen in ((REJECTED_ROWS, True), (ACCEPTED, False)):
        path = folder / name
        own = [row for row in ordered if bool(row["rejected"]) == chosen]
        lines = [as_json({**row, SEAL: seal_of(row)}, str(path)) for row in own]
        former = path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []
        if lines == former and path.exists():
            continue
        unsealed = (as_json(row, str(path)) for row in own)  # as earlier versions wrote them
        if wrong := (Counter(former) - Counter(lines) - Counter(unsealed)).total():
            say(f"{path}: {wrong} line(s) were not those of its images and are replaced")
        if lines or former or not chosen:
            write_text(path, "".join(f"{line}\n" for line in lines))
    return ordered


def adopt(store: Store, folder: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Take rows of the same pool from another machine into its manifest; its folder holds their images, or the store does.

    The caller holds the lock of the pool.

    Returns:
        the number of rows that were not known.

    Raises:
        GenaugError: if a row is not one of a manifest, or its image is damaged.
    """
    known = {(row["fingerprint"], row["source_id"]): row for row in manifest_rows(folder)}
    fresh = {}
    for row in rows:
        with boundary(f"{folder.name} has a line that is none of a pool", "Push the pool again."):
            place = ".rejected" if row["rejected"] else f"{int(row['index']):03d}"
            if row["file_name"] != f"{place}/{int(row['fingerprint'], 16):016x}.png":
                raise ValueError(f"{row['file_name']!r}")
            if has_changed(row):
                raise ValueError(f"the line of {row['file_name']} has changed")
            key = row["fingerprint"], str(row["source_id"])
        if key in known:
            continue
        path, ours = folder / row["file_name"], store.image_path(row["fingerprint"])
        if not ours.exists():
            about_picture(path)
            _link(path, ours)
        fresh[key] = {
            **{name: row[name] for name in row if name != SEAL},
            **store.about_image(row["fingerprint"]),
            "source_id": row["source_id"],
        }
        _link(ours, path)
    if fresh:
        _write_rows(folder, [*known.values(), *fresh.values()], lambda text: None)
    return len(fresh)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the file ``source``: a hard link, or a whole copy on another file system or one without links."""
    if target.exists() and (target.samefile(source) or file_hash(target) == file_hash(source)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with whole(target) as partial:
            shutil.copyfile(source, partial)


class Shards(Form):
    """The images lie in tar shards of the pool's own (``core.shards``), its rows in ``metadata.arrow`` (``data.packed``)."""

    def __init__(self, store: Store, folder: Path):
        super().__init__(store, folder)
        self.writers = {kind: Writer(folder, kind) for kind in (IMAGES, REJECTED)}
        self.catalogue = Catalogue(lambda: [folder] if folder.is_dir() else [])

    def own(self, names: Collection[str]) -> set[str]:
        listed = list(names)
        return {n for n, there in zip(listed, self.catalogue.refresh().has(listed).tolist(), strict=True) if there}

    def verified(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """The images of a shard are looked at where it is not as it was sealed; every image again whenever it is read."""
        for tar in sorted(set(shards_of(self.folder)) - self.catalogue.refresh().sealed()):
            self.mend(tar)
        self.gather(names)
        return {}

    def put(self, name: str, image: Image.Image, about: dict[str, Any]) -> dict[str, Any]:
        data, about = as_file(name, image, about)
        self.take(name, data, about)
        return {}

    def take(self, name: str, data: bytes, about: dict[str, Any]) -> None:
        self.writers[REJECTED if about["rejected"] else IMAGES].append(name, data, as_json(about, f"image {name}"))

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def publish(
        self, variants: list[Variant], num_variants: int, abouts: dict[str, dict[str, Any]], dataset: Dataset, say: Say
    ) -> Pool:
        self.gather({variant.fingerprint for variant in variants})
        self.close()
        catalogue = self.catalogue.refresh()
        wanted = [(variant.fingerprint, variant.source.id, variant.index) for variant in variants]
        write_table(self.folder, wanted, old_rows(self.folder, num_variants), catalogue)
        write_json(self.folder / SHARDED, {"m": num_variants, HASH: file_hash(self.folder / TABLE)})
        return open_packed(self.folder, dataset, num_variants)

    def published(self, num_variants: int, dataset: Dataset) -> Pool | None:
        """The manifest is compared with its hash, and no shard may have changed."""
        about = read_json(self.folder / SHARDED, {"m": int, HASH: str})
        if about is None or about["m"] < num_variants or not (self.folder / TABLE).exists():
            return None
        if len(self.catalogue.refresh().sealed()) != len(shards_of(self.folder)):
            return None
        try:
            return open_packed(self.folder, dataset, num_variants)
        except GenaugError as error:  # e.g. a shard is gone, or the manifest has changed
            say_damaged(self.folder / TABLE, str(error))
            return None
