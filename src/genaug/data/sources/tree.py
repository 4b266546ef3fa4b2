"""A folder with all that is below it: the one way in which readers find images, and count the files they leave out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from genaug.core.errors import GenaugError, boundary
from genaug.data.images import NEEDS_PLUGIN, UNREADABLE, is_image, looks_like_image

THUMBNAILS = {
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "@recycle",
    "__macosx",
    "lost+found",
    "system volume information",
    "thumbnail",
    "thumbnails",
    "thumbs",
}
"""Folders, in lower case, that systems put beside a user's files."""


@dataclass(slots=True)
class Folder:
    """A folder, links followed."""

    path: Path
    """As it is reached from the root, not where a link leads."""
    images: list[Path] = field(default_factory=list)
    """Directly in it, sorted."""
    folders: list["Folder"] = field(default_factory=list)
    """Folders directly in it, sorted by name; hidden ones and thumbnails left out."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Image-like files directly in it that are not used, by reason."""

    @property
    def name(self) -> str:
        return self.path.name

    def every_image(self) -> Iterator[Path]:
        """Images in it and below it."""
        yield from self.images
        for folder in self.folders:
            yield from folder.every_image()

    def every_unusable(self) -> Counter[str]:
        """Files that are not used, in it and below it."""
        total = Counter(self.unusable)
        for folder in self.folders:
            total += folder.every_unusable()
        return total

    @property
    def with_images(self) -> list["Folder"]:
        """The folders directly in it that hold an image somewhere."""
        return [folder for folder in self.folders if next(folder.every_image(), None) is not None]


def check_folder(root: Path, written: str) -> Path:
    """The folder, if it is one; ``written`` is what the user wrote.

    Raises:
        GenaugError: for an empty value and for what is not a folder.
    """
    if not written.strip():
        raise GenaugError("dataset.root= is empty: write the data set's folder, e.g. dataset.root=data/birds.")
    if not root.is_dir():
        kind = f"a file: write the folder that it lies in, {root.parent}" if root.is_file() else "not a folder"
        raise GenaugError(f"dataset.root={written} is {kind}.")
    return root


def walk(root: Path) -> Folder:
    """Everything below ``root``. Links are followed, but not into a folder that they lie in.

    Raises:
        GenaugError: for a folder that may not be listed, and for names that are not UTF-8.
    """
    return _walk(root, frozenset())


def _walk(path: Path, above: frozenset[tuple[int, int]]) -> Folder:
    folder = Folder(path)
    with boundary(f"The folder {path} cannot be read", "Change its permissions, or move it out of the data set."):
        with os.scandir(path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        stat = path.stat()
    here = above | {(stat.st_dev, stat.st_ino)}
    for entry in entries:
        name = entry.name
        child = Path(entry.path)
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise GenaugError(f"The name {name!r} in {path} is not UTF-8. Rename it, e.g. with convmv.") from error
        if entry.is_dir():
            target = entry.stat()
            if name.startswith(".") or name.lower() in THUMBNAILS:
                folder.unusable["thumbnails_and_hidden_files"] += _count(child, here)
            elif (target.st_dev, target.st_ino) in here:
                folder.unusable["links_to_a_folder_above_them"] += 1
            else:
                folder.folders.append(_walk(child, here))
            continue
        if not looks_like_image(child):
            continue
        if name.startswith("."):
            folder.unusable["thumbnails_and_hidden_files"] += 1
        elif not entry.is_file():
            folder.unusable["broken_links"] += 1
        elif entry.stat().st_size == 0:
            folder.unusable["empty_files"] += 1
        elif not is_image(child):
            folder.unusable[f"{child.suffix.lower()}_files_without_a_reader"] += 1
        else:
            folder.images.append(child)
    return folder


def _count(path: Path, above: frozenset[tuple[int, int]]) -> int:
    """Image-like files in a folder that is left out as a whole."""
    return sum(looks_like_image(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def image_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to ``folder``, path) of every image file below it, sorted; hidden files and thumbnails are left out."""
    for path in sorted(walk(folder).every_image()):
        yield path.relative_to(folder).as_posix(), path


def reader_advice(suffixes: Iterator[str] | list[str]) -> str:
    """What to do about files that nothing here opens, by their endings."""
    wanted = sorted({NEEDS_PLUGIN[suffix] for suffix in suffixes if suffix in NEEDS_PLUGIN})
    converted = sorted({suffix for suffix in suffixes if suffix in UNREADABLE})
    parts = [f"pip install {' '.join(wanted)}"] if wanted else []
    parts += [f"convert {', '.join(converted)} to PNG"] if converted else []
    return " and ".join(parts)
