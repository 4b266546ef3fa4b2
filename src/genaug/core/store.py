"""The content-addressed store: whatever was computed once is found again by its fingerprint.

``fitted/<name>-<fingerprint>/``   what a generator learned: a folder with an ``artefact.json``
``images/<ff>/<fingerprint>.png``  one synthetic image each, its metadata inside the PNG's text chunk ``genaug``
``pools/<fingerprint>/``           images and ``metadata.jsonl`` of one experiment, hard-linked from ``images``
``locks/``                         one lock file per fingerprint

Publishing is atomic: written beside, flushed to disk, renamed. A process that dies leaves either nothing or the whole.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image, PngImagePlugin

from genaug.core.errors import GenaugError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


class Store:
    """Folders and images by fingerprint under one root, safe for several processes at once."""

    def __init__(self, root: Path):
        self.root = root

    @property
    def has_pools(self) -> bool:
        """Whether any pool was ever published here."""
        return any((self.root / "pools").glob("*"))

    @contextlib.contextmanager
    def lock(self, fingerprint: str, say: Callable[[str], None] = print) -> Iterator[None]:
        """Hold the lock of one fingerprint; says so when another process holds it."""
        path = self.root / "locks" / f"{fingerprint}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process is making {fingerprint}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def folder(
        self, kind: str, name: str, fingerprint: str, make: Callable[[Path], dict[str, Any]]
    ) -> tuple[Path, bool]:
        """The published folder of a fingerprint; ``make(work_dir)`` fills it if there is none yet.

        ``work_dir`` keeps its name from one attempt to the next, so that ``make`` may resume what an interrupted
        attempt left there. What ``make`` returns is written to ``artefact.json`` with the files' sizes.

        Returns:
            the folder, and whether it was made now.
        """
        final = self.root / kind / f"{name}-{fingerprint}"
        if self._complete(final):
            return final, False
        with self.lock(fingerprint):
            if self._complete(final):
                return final, False
            work = final.with_name(f".{final.name}.partial")
            work.mkdir(parents=True, exist_ok=True)
            about = make(work)
            files = {p.relative_to(work).as_posix(): p.stat().st_size for p in sorted(work.rglob("*")) if p.is_file()}
            files.pop("artefact.json", None)
            write_json(work / "artefact.json", {**about, "fingerprint": fingerprint, "files": files})
            if final.exists():  # present but incomplete: damaged from outside
                shutil.rmtree(final)
            work.rename(final)
        return final, True

    @staticmethod
    def _complete(folder: Path) -> bool:
        about = read_json(folder / "artefact.json")
        if about is None:
            return False
        sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else -1 for name in about["files"]}
        return sizes == about["files"]

    def image_path(self, fingerprint: str) -> Path:
        return self.root / "images" / fingerprint[:2] / f"{fingerprint}.png"

    def has_image(self, fingerprint: str) -> bool:
        """Whether the image is there; a PNG is renamed into place only when whole, an empty one was cut by a crash."""
        path = self.image_path(fingerprint)
        return path.exists() and path.stat().st_size > 0

    def put_image(self, fingerprint: str, image: Image.Image, about: dict[str, Any]) -> Path:
        """Publish one image with its metadata (JSON in the PNG text chunk ``genaug``)."""
        path = self.image_path(fingerprint)
        path.parent.mkdir(parents=True, exist_ok=True)
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text("genaug", json.dumps(about))
        partial = path.with_name(f".{fingerprint}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            image.save(file, format="PNG", pnginfo=chunk, compress_level=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        return path

    def about_image(self, fingerprint: str) -> dict[str, Any]:
        """The metadata that was published with an image.

        Raises:
            GenaugError: if the file is damaged; it names the file.
        """
        path = self.image_path(fingerprint)
        try:
            with Image.open(path) as image:
                image.load()
                return json.loads(image.text["genaug"])  # type: ignore[attr-defined]
        except (OSError, KeyError, SyntaxError, ValueError) as error:
            raise GenaugError(
                f"{path} is damaged ({error}). Delete it and run again: only this image is made anew."
            ) from error


def check_writable(folder: Path) -> None:
    """Raise now, not after hours of work, if ``folder`` cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise GenaugError(
            f"Cannot write to the outputs folder {folder} ({error.strerror}). "
            "Choose another with paths.outputs_dir=FOLDER, or mend its permissions."
        ) from error
