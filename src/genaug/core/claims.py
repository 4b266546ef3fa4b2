"""Who makes which images: several processes fill one pool, or pools that overlap, and make each image once.

A claim is a file in ``locks/claims/`` with the fingerprints that one process makes now. The process holds a lock on it, which
the operating system releases when the process ends, however it ends: its images are then free for others.
"""

import contextlib
import math
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from genaug.core.files import read_json, write_json
from genaug.core.store import Store, held_by, owner_now

GARBAGE = "garbage"
"""The lock of whoever removes what no run needs; a run that starts waits for it."""
REMOVES = "removes what no run needs"
LEAST, MOST = 32, 1024
"""Images of one claim: as few as still fill batches, as many as another process may have to wait for."""


@contextlib.contextmanager
def claim(store: Store, wanted: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """A share of ``wanted`` that nobody else makes, for as long as the block lasts.

    Half of what is left is shared out among those that work on it, so that all of them end together.

    Yields:
        fingerprints of images that are not in the store and are this process's to make; and who makes others of them.
    """
    folder = store.root / "locks" / "claims"
    mine = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    share: list[str] = []
    with store.lock("claims", say=lambda text: None):
        taken, owners = set[str](), list[str]()
        for path, images in _claims(folder):
            taken |= images
            if not images.isdisjoint(wanted):
                owners.append(held_by(path))
        size = min(MOST, max(LEAST, math.ceil(len(wanted) / (2 * (len(owners) + 1)))))
        free = [fingerprint for fingerprint in wanted if fingerprint not in taken]
        for start in range(0, len(free), size):  # as far as needed: a million may be wanted
            part = free[start : start + size]
            known = store.known(part)  # they are looked for after the claims: whoever published one has let it go
            share += [fingerprint for fingerprint in part if fingerprint not in known][: size - len(share)]
            if len(share) == size:
                break
        lock = FileLock(mine.with_suffix(".lock"))
        if share:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            write_json(mine, {**owner_now(), "images": share})
    try:
        yield share, owners
    finally:
        mine.unlink(missing_ok=True)
        mine.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def _claims(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Claims of processes that are alive; those of others are removed. The caller holds the lock ``claims``."""
    for path in sorted(folder.glob("*.json")):
        if is_free(path.with_suffix(".lock")):
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
        elif (about := read_json(path, {"images": list})) is not None:
            yield path, set(about["images"])


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of this file."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def workers(store: Store) -> list[str]:
    """Who holds a lock of the store or claims images, in words; the marks of processes that have ended are removed."""
    found = []
    for owner in sorted((store.root / "locks").glob("*.owner")):
        if owner.stem == GARBAGE:
            continue
        if is_free(owner.with_suffix(".lock")):
            owner.unlink(missing_ok=True)
        else:
            found.append(f"{owner.stem}: {held_by(owner)}")
    with store.lock("claims", say=lambda text: None):
        found += [f"images: {held_by(path)}" for path, _ in _claims(store.root / "locks" / "claims")]
    return found
