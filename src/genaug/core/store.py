"""The content-addressed store: whatever was computed once is found again by its fingerprint.

``fitted/<name>-<fingerprint>/``   what a generator learned: a folder with an ``artefact.json``
``images/<ff>/<fingerprint>.png``  one synthetic image each, its metadata inside the PNG's text chunk ``genaug``
``pools/<fingerprint>/``           images and ``metadata.jsonl`` of one experiment, hard-linked from ``images``; of many images
                                   shards (``core.shards``) and ``metadata.arrow`` instead, which are its own
``locks/``                         one lock file per fingerprint, and who holds it

Publishing is atomic: written beside, flushed to disk, renamed. A process that dies leaves either nothing or the whole.
Artefacts and images carry the hash of their content, and are compared with it when a process first uses them.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import PARTIAL, as_json, has_changed, read_json, say_damaged, whole, write_json, write_sealed
from genaug.core.png import encode
from genaug.core.shards import Catalogue, Packed

ABOUT = "artefact.json"
HASH = "sha256"
MOMENT = 0.5
"""Seconds of waiting for a lock of which nobody is told: runs that start together take some in turn."""
PACKED_FROM = 10_000
"""Images of a pool from which on it is packed: files would be opened one by one, and each is one more for the file system."""

_verified: dict[Path, tuple[int, ...]] = {}
"""Artefacts whose content this process has compared with its hash, and the sizes and times of their files then."""


class Store:
    """Folders and images by fingerprint under one root, safe for several processes at once.

    Args:
        root: the folder.
        lock_timeout: seconds to wait for another process; None waits for as long as it takes.
        packed_from: images of a pool from which on it is packed.
    """

    def __init__(self, root: Path, lock_timeout: float | None = None, packed_from: int = PACKED_FROM):
        self.root, self.lock_timeout, self.packed_from = root, lock_timeout, packed_from

    @property
    def has_pools(self) -> bool:
        """Whether any pool was ever published here."""
        return any((self.root / "pools").glob("*"))

    @contextlib.contextmanager
    def lock(self, fingerprint: str, say: Callable[[str], None] = print, work: str | None = None) -> Iterator[None]:
        """Hold the lock of one fingerprint; says who holds it where another process does for longer than a moment.

        ``work`` is what that process does, in words: it ``makes`` the fingerprint, unless said otherwise.

        The operating system releases the lock of a process that ends, however it ends. That holds between machines, too,
        on NFS version 4 (after the lease of a dead machine, usually 90 s) and on Lustre mounted with ``-o flock``; not on
        Lustre with ``localflock``, where each machine sees its own locks alone.

        Raises:
            GenaugError: if the file system has no locks, or another process holds this one for ``lock_timeout``.
        """
        path = self.root / "locks" / f"{fingerprint}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, work = FileLock(path), work or f"makes {fingerprint}"
        with boundary(
            f"{path} cannot be locked", "Choose a folder on a file system with locks with paths.outputs_dir=FOLDER."
        ):
            try:
                lock.acquire(timeout=MOMENT)
            except Timeout:
                owner = path.with_suffix(".owner")
                say(f"waiting for another process that {work}: {held_by(owner)}")
                try:
                    lock.acquire(timeout=-1 if self.lock_timeout is None else self.lock_timeout, poll_interval=0.2)
                except Timeout:
                    raise GenaugError(
                        f"Another process still {work} after {self.lock_timeout:g} s: {held_by(owner)}. End it "
                        "if it hangs, or write paths.lock_timeout=null to wait for as long as it takes."
                    ) from None
        owner = path.with_suffix(".owner")
        try:
            write_json(owner, owner_now())
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def place(self, kind: str, name: str, fingerprint: str) -> Path:
        """Where the artefact of a fingerprint lies, whether it is made or not."""
        return self.root / kind / f"{name}-{fingerprint}"

    def pool(self, fingerprint: str) -> Path:
        """Where the pool of a fingerprint lies."""
        return self.root / "pools" / fingerprint

    def pools(self) -> list[Path]:
        """Every pool, finished or not."""
        return sorted(path for path in (self.root / "pools").glob("*") if path.is_dir())

    def images(self) -> Iterator[Path]:
        """The file of every image."""
        return (self.root / "images").glob("*/*.png")

    def folder(
        self, kind: str, name: str, fingerprint: str, make: Callable[[Path], dict[str, Any]]
    ) -> tuple[Path, bool]:
        """The published folder of a fingerprint; ``make(work_dir)`` fills it if there is none yet, or a damaged one.

        ``work_dir`` keeps its name from one attempt to the next, so that ``make`` may resume what an interrupted
        attempt left there. What ``make`` returns is written to ``artefact.json`` with the files' sizes and hashes.

        Returns:
            the folder, and whether it was made now.
        """
        final = self.place(kind, name, fingerprint)
        if is_whole(final):
            return final, False
        with self.lock(fingerprint):
            if is_whole(final):
                return final, False
            work = final.with_name(f".{final.name}{PARTIAL}")
            work.mkdir(parents=True, exist_ok=True)
            about = make(work)
            for left in work.rglob(f".*{PARTIAL}"):  # of a checkpoint in whose middle an earlier attempt was killed
                left.unlink()
            files = {p.relative_to(work).as_posix(): p for p in sorted(work.rglob("*")) if p.is_file()}
            files.pop(ABOUT, None)
            sizes = {name: path.stat().st_size for name, path in files.items()}
            hashes = {name: file_hash(path) for name, path in files.items()}
            about = {**about, "fingerprint": fingerprint, "files": sizes, HASH: hashes}
            write_sealed(work / ABOUT, about)
            if final.exists():  # present but incomplete: damaged from outside
                shutil.rmtree(final)
            work.rename(final)
        return final, True

    @property
    def packed(self) -> Catalogue:
        """Where the images of packed pools lie, as it is now."""
        return _catalogue(self.root / "pools").refresh()

    def image_path(self, fingerprint: str) -> Path:
        """The file of an image, where it has one of its own."""
        return self.root / "images" / fingerprint[:2] / f"{fingerprint}.png"

    def has_file(self, fingerprint: str) -> bool:
        """Whether the file is there; a PNG is renamed into place only when whole, an empty one was cut by a crash."""
        try:  # as text: a path object costs ten times as much as the look
            return os.stat(f"{self.root}/images/{fingerprint[:2]}/{fingerprint}.png").st_size > 0
        except OSError:
            return False

    def known(self, fingerprints: Collection[str]) -> set[str]:
        """Those of these images that are in the store, as files or packed."""
        names = list(fingerprints)
        there = self.packed.has(names).tolist()
        images = self.root / "images"
        # of a million names that are not there, most are known by their folder's absence
        begins = set(os.listdir(images)) if images.is_dir() else set()
        return {
            name
            for name, is_packed in zip(names, there, strict=True)
            if is_packed or (name[:2] in begins and self.has_file(name))
        }

    def image(self, fingerprint: str) -> Path | Packed:
        """An image of the store; where there is none, its place among the files."""
        path = self.image_path(fingerprint)
        return path if path.exists() else _catalogue(self.root / "pools").image(fingerprint) or path

    def put_image(self, fingerprint: str, image: Image.Image, about: dict[str, Any]) -> dict[str, Any]:
        """Publish one image as a file.

        Returns:
            what its text chunk holds.
        """
        path = self.image_path(fingerprint)
        data, about = as_file(fingerprint, image, about)
        with whole(path) as partial:
            partial.write_bytes(data)
        return about

    def about_image(self, fingerprint: str) -> dict[str, Any]:
        """The metadata that was published with an image, whose pixels are verified.

        Raises:
            GenaugError: if the file is damaged; it names the file.
        """
        return about_picture(self.image(fingerprint))


@functools.cache
def _catalogue(pools: Path) -> Catalogue:
    return Catalogue(lambda: [Path(entry.path) for entry in os.scandir(pools)] if pools.is_dir() else [])


def as_file(fingerprint: str, image: Image.Image, about: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an image's file, and the JSON of its text chunk ``genaug``: ``about``, the fingerprint, the pixels' hash."""
    about = {**about, "fingerprint": fingerprint, HASH: pixel_hash(image)}
    return encode(image, {"genaug": as_json(about, f"image {fingerprint}")}), about


def owner_now() -> dict[str, Any]:
    """Who this process is, for others that wait for it."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def held_by(owner: Path) -> str:
    """The words for who holds a lock."""
    about = read_json(owner, {"host": str, "pid": int, "since": str})
    return f"process {about['pid']} on {about['host']}, since {about['since']}" if about else "it is just starting"


def artefact(folder: Path) -> Any:
    """What ``Store.folder`` wrote of an artefact; None where there is none, or its ``artefact.json`` is damaged."""
    about = read_json(folder / ABOUT, {"fingerprint": str, "files": dict})
    if about is not None and has_changed(about):
        say_damaged(folder / ABOUT, "its content has changed")
        return None
    return about


def is_whole(folder: Path) -> bool:
    """Whether an artefact is there and as it was made; its content is hashed once per process and state of its files."""
    about = artefact(folder)
    if about is None:
        return False
    try:
        stats = [(folder / name).stat() for name in sorted(about["files"])]
    except OSError:
        stats = []
    state = tuple(value for stat in stats for value in (stat.st_size, stat.st_mtime_ns))
    if not stats or _verified.get(folder) != state:
        if (why := damage_of(folder, about)) is not None:
            say_damaged(folder, why)
            return False
        _verified[folder] = state
    return True


def damage_of(folder: Path, about: dict[str, Any]) -> str | None:
    """What is wrong with the files of an artefact; None if nothing is. Artefacts of earlier versions have sizes alone."""
    hashes = about.get(HASH)
    for name, size in about["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if isinstance(hashes, dict) and file_hash(path) != hashes.get(name):
            return f"the content of {name} has changed"
    return None


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_hash(image: Image.Image) -> str:
    """sha256 of an image's mode, size and pixels."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def about_picture(file: Path | Packed) -> dict[str, Any]:
    """The metadata inside an image of the store, or a copy of one, whose pixels are compared with their hash.

    Raises:
        GenaugError: if the file is absent or damaged; it names the file.
    """
    with (
        boundary(f"{file} is damaged", "Run the same command again: this image is made again."),
        Image.open(io.BytesIO(file.read()) if isinstance(file, Packed) else file) as image,
    ):
        image.load()
        about = json.loads(image.text["genaug"])  # type: ignore[attr-defined]
        if about.get(HASH, pixel_hash(image)) != pixel_hash(image):
            raise ValueError("its pixels have changed")
        if about.get("fingerprint", file.stem) != file.stem:
            raise ValueError(f"it is the image {about['fingerprint']}")
    return about


def check_writable(folder: Path) -> None:
    """Raise now, not after hours of work, if ``folder`` cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{socket.gethostname()}.{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise GenaugError(
            f"Cannot write to the outputs folder {folder} ({error.strerror}). "
            "Choose another with paths.outputs_dir=FOLDER, or mend its permissions."
        ) from error
