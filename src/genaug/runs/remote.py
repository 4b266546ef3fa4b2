"""Results, artefacts and pools in a place that several machines share, by fsspec: ``s3://``, ``gs://``, ``sftp://``, ``file://``.

``objects/<ff>/<sha256>``               the content of a file, once, whatever it belongs to
``items/<kind>/<name>/<sha256>.json``   one version of a run, an artefact or a pool: its files with sizes and hashes

Nothing there is ever changed or overwritten, and the file of an item is written after all its objects. So pushes may be
repeated, cut off and made by several machines at once; an identity that two of them have made is there in two versions.
"""

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from genaug.core.errors import GenaugError, boundary, first_line
from genaug.core.files import PARTIAL, read_json, whole
from genaug.core.shards import is_written, restore_seal
from genaug.core.store import ABOUT, Store, file_hash, is_whole
from genaug.data.packed import SHARDED, TABLE, shards_of
from genaug.data.pool import ACCEPTED, REJECTED_ROWS
from genaug.runs.collection import RESULT, read_result
from genaug.runs.items import POOLS, RUNS, Files, Item, folder_of, items, matches
from genaug.runs.verification import look

T = TypeVar("T")

AGAIN = (1.0, 4.0)
"""Seconds before each further try of a request that failed."""
CHECKED = {"s3", "s3a", "gs", "gcs", "az", "abfs"}
"""Protocols whose servers compare what arrives with a checksum, and show an object whole or not at all."""
ONE_BY_ONE = {"sftp", "ssh"}
"""Protocols whose client waits for ever where two threads ask at the same time (paramiko's)."""
NUM_REQUESTS = 8  # at the same time

BEING_WRITTEN = "being written: push it again when its run has ended"


class Changing(Exception):
    """A file is no longer what it was when it was hashed: a run is writing it."""


class NoAnswer(GenaugError):
    """The place does not answer, so that nothing more can be copied."""


class Remote:
    """The place at a URL.

    Raises:
        GenaugError: if the URL cannot be read, or what it needs is not installed.
    """

    def __init__(self, url: str):
        import fsspec

        self.shown = re.sub(r"//[^/@]*@", "//", url)  # without a password
        with boundary(f"{self.shown} cannot be used", "For s3://, gs:// and sftp://: pip install 'genaug[remote]'."):
            self.files, self.root = fsspec.core.url_to_fs(url)
        protocol = self.files.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        if "memory" in protocols:
            raise GenaugError(
                f"{self.shown} ends with this process: write a folder, or the URL of a server that keeps files."
            )
        self.checked = bool(CHECKED & protocols)
        self.num_requests = 1 if ONE_BY_ONE & protocols else NUM_REQUESTS
        self.known: set[str] = set()

    def _try(self, ask: Callable[[], T]) -> T:
        """What ``ask`` returns, at the first, second or third try; the failure of the last is said as one of the place."""
        for pause in AGAIN:
            try:
                return ask()
            except FileNotFoundError:
                raise
            except Exception:
                time.sleep(pause)
        try:
            return ask()
        except (FileNotFoundError, GenaugError):
            raise
        except Exception as error:
            raise NoAnswer(
                f"{self.shown} does not answer ({first_line(error)}). Run the same command again: it goes on where it stopped."
            ) from error

    def object(self, sha256: str) -> str:
        return f"{self.root}/objects/{sha256[:2]}/{sha256}"

    def versions(self) -> dict[tuple[str, str], list[str]]:
        """Every item there by kind and name, and the paths of its versions."""
        with contextlib.suppress(FileNotFoundError):
            self.files.invalidate_cache()
            found: dict[tuple[str, str], list[str]] = {}
            for path in sorted(self._try(lambda: self.files.find(f"{self.root}/items"))):
                kind, name, last = path.split("/")[-3:]
                if last.endswith(".json"):
                    found.setdefault((kind, name), []).append(path)
            return found
        return {}

    def read(self, path: str) -> Files:
        """The files of a version.

        Raises:
            GenaugError: if it is damaged, or names what is no file inside its folder.
        """
        data = self._try(lambda: self.files.cat_file(path))
        with boundary(f"{path} is damaged", "Remove it there and push the item again."):
            if hashlib.sha256(data).hexdigest() != PurePosixPath(path).stem:
                raise ValueError("its content has changed")
            found = json.loads(data)
            for name, about in found.items():
                parts = name.split("/")
                if {"", ".", ".."} & set(parts) or "\\" in name or ":" in name:
                    raise ValueError(f"{name!r} is no name of a file in its folder")
                if not (re.fullmatch("[0-9a-f]{64}", about["sha256"]) and isinstance(about["size"], int)):
                    raise ValueError(f"{name} has no hash")
            return found

    def put(self, path: Path, about: dict[str, Any]) -> bool:
        """Upload a file unless its content is there; it is looked at on arrival. Returns whether it was sent.

        Raises:
            Changing: if the file is not what ``about`` says.
            GenaugError: if the place does not answer, or holds something else afterwards.
        """
        target = self.object(about["sha256"])
        if target in self.known or self._try(lambda: self._size(target)) == about["size"]:
            return False
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise Changing(path)
        self._try(lambda: self._send(data, target, about["sha256"]))
        self.known.add(target)
        return True

    def _size(self, path: str) -> int | None:
        try:
            return self.files.info(path)["size"]
        except FileNotFoundError:
            return None

    def _send(self, data: bytes, target: str, sha256: str) -> None:
        """Write beside the place, compare, and rename; where the server does all this itself, write."""
        self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        arriving = target if self.checked else f"{target}.{secrets.token_hex(4)}{PARTIAL}"
        self.files.pipe_file(arriving, data)
        if self.checked:
            if self._size(target) != len(data):
                raise OSError(f"{len(data)} bytes were sent, {self._size(target)} have arrived")
            return
        if hashlib.sha256(self.files.cat_file(arriving)).hexdigest() != sha256:
            raise OSError("what has arrived is not what was sent")
        self.files.mv(arriving, target)

    def publish(self, item: Item, files: Files) -> None:
        """Name a version of an item, all of whose objects are there."""
        data = text_of(files).encode()
        target = f"{self.root}/items/{item.kind}/{item.name}/{version_of(files)}.json"
        self._try(lambda: self._send(data, target, hashlib.sha256(data).hexdigest()))

    def get(self, about: dict[str, Any], target: Path) -> bool:
        """Download a file unless it is there; its content is compared before it gets its name. Returns whether it came."""
        if target.is_file() and target.stat().st_size == about["size"] and file_hash(target) == about["sha256"]:
            return False

        def fetch() -> None:
            with whole(target) as partial:
                partial.write_bytes(self.files.cat_file(self.object(about["sha256"])))
                if file_hash(partial) != about["sha256"]:
                    raise GenaugError(f"What has arrived of {target.name} is not what was pushed. Push it again.")

        with boundary(f"{target.name} is missing at {self.shown}", "Push it again from the machine that has it."):
            self._try(fetch)
        return True


def text_of(files: Files) -> str:
    return json.dumps(files, sort_keys=True, separators=(",", ":"))


def version_of(files: Files) -> str:
    """Name of a version: the hash of what it consists of."""
    return hashlib.sha256(text_of(files).encode()).hexdigest()


def push(outputs: Path, remote: Remote, patterns: Sequence[str] = ()) -> Iterator[tuple[Item, str]]:
    """Copy every finished item to the remote place.

    Yields:
        each item and what became of it: ``there already``, ``pushed: <n> files``, or ``damaged: <why>`` and ``being written``,
        which are left out.
    """
    there = remote.versions()
    for item in items(outputs, patterns):
        kind = {RUNS: "result", POOLS: "pool"}.get(item.kind, "artefact")
        _, why = look((kind, item.folder / "result.json" if item.kind == RUNS else item.folder))
        if why is not None:
            yield item, f"damaged: {why}"
            continue
        if any(map(is_written, shards_of(item.folder))):
            yield item, BEING_WRITTEN
            continue
        files = item.files()
        if any(path.endswith(f"/{version_of(files)}.json") for path in there.get((item.kind, item.name), ())):
            yield item, "there already"
            continue
        try:
            with ThreadPoolExecutor(remote.num_requests) as requests:
                sent = sum(requests.map(remote.put, (item.folder / name for name in files), files.values()))
        except (Changing, FileNotFoundError):
            yield item, BEING_WRITTEN
            continue
        remote.publish(item, files)
        yield item, f"pushed: {sent} files"


def pull(outputs: Path, remote: Remote, patterns: Sequence[str] = ()) -> Iterator[tuple[Item, str]]:
    """Copy every item that is missing here from the remote place, and the rows and images that a pool lacks.

    Yields:
        each item and what became of it: ``here already``, ``pulled: <n> files``, or ``damaged: <why>``, which is left out.
    """
    store = Store(outputs / "store")
    for (kind, name), paths in remote.versions().items():
        if not matches(name, patterns):
            continue
        item = Item(kind=kind, folder=folder_of(outputs, kind, name))
        try:
            if not re.fullmatch(r"[a-z][a-z_]*", kind) or not re.fullmatch(r"\w[\w.=+-]*", name):
                raise GenaugError(f"{kind}/{name} is no name of an item")
            if kind != POOLS and (read_result(item.folder) if kind == RUNS else is_whole(item.folder)):
                yield item, "here already"
                continue
            with store.lock(name.rpartition("-")[2]):
                take = _take_pool if kind == POOLS else _take_folder
                count = sum(
                    take(store, item, remote, remote.read(path)) for path in paths[: None if kind == POOLS else 1]
                )
            yield item, f"pulled: {count} files" if count else "here already"
        except NoAnswer:
            raise
        except GenaugError as error:
            yield item, f"damaged: {error}"


def _take_folder(store: Store, item: Item, remote: Remote, files: Files) -> int:
    """A run or an artefact, whole or not at all; what an interrupted pull has fetched is used."""
    work = item.folder.with_name(f".{item.name}.pulled{PARTIAL}")
    with ThreadPoolExecutor(remote.num_requests) as requests:
        fetched = sum(requests.map(lambda entry: remote.get(entry[1], work / entry[0]), files.items()))
    about = read_json(work / "result.json", RESULT) if item.kind == RUNS else read_json(work / ABOUT, {"files": dict})
    if about is None or about.get("fingerprint") != item.name.rpartition("-")[2]:
        raise GenaugError(f"{item.name} at {remote.shown} is not what its name says.")
    if item.folder.exists():  # an unfinished run, or a damaged artefact
        item.folder.rename(item.folder.with_name(f".{item.name}.{secrets.token_hex(4)}{PARTIAL}"))
    work.rename(item.folder)
    return fetched


def _take_pool(store: Store, item: Item, remote: Remote, files: Files) -> int:
    """The rows of a pool that this machine lacks, with their images; manifests are written last."""
    from genaug.generators.forms import adopt

    if SHARDED in files:
        return _take_packed(item, remote, files)
    count = 0
    others = {name: about for name, about in files.items() if name not in (ACCEPTED, REJECTED_ROWS)}
    images = {name: about for name, about in others.items() if name.endswith(".png")}
    known = store.known([PurePosixPath(name).stem for name in images])
    missing = {name: about for name, about in images.items() if PurePosixPath(name).stem not in known}
    with ThreadPoolExecutor(remote.num_requests) as requests:
        count += sum(requests.map(lambda entry: remote.get(entry[1], item.folder / entry[0]), missing.items()))
    for name, about in others.items():
        if name not in images and not (item.folder / name).exists():
            count += remote.get(about, item.folder / name)
    rows: list[dict[str, Any]] = []
    for name in (ACCEPTED, REJECTED_ROWS):
        if name in files:
            held = item.folder / f".{name}.pulled{PARTIAL}"
            remote.get(files[name], held)
            rows += [json.loads(line) for line in held.read_text(encoding="utf-8").splitlines()]
            held.unlink()
    return count + adopt(store, item.folder, rows)


def _take_packed(item: Item, remote: Remote, files: Files) -> int:
    """The shards of a packed pool that this machine lacks, and then its manifest, unless the one here has as many variants."""
    shards = {n: about for n, about in files.items() if n not in (TABLE, SHARDED) and not (item.folder / n).exists()}
    with ThreadPoolExecutor(remote.num_requests) as requests:
        count = sum(requests.map(lambda entry: remote.get(entry[1], item.folder / entry[0]), shards.items()))
    for tar in shards_of(item.folder):
        if tar.name in shards:
            restore_seal(tar)
    arrived = item.folder / f".{SHARDED}.pulled{PARTIAL}"
    remote.get(files[SHARDED], arrived)
    ours, theirs = (read_json(path, {"m": int}) for path in (item.folder / SHARDED, arrived))
    arrived.unlink()
    if theirs is not None and (ours is None or ours["m"] < theirs["m"]):
        count += sum(remote.get(files[name], item.folder / name) for name in (TABLE, SHARDED))
    return count


def differences(outputs: Path, remote: Remote, patterns: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    """Kind and name of each item, here or there, and ``same``, ``only here``, ``only there`` or ``differs``."""
    there = {key: paths for key, paths in remote.versions().items() if matches(key[1], patterns)}
    for item in items(outputs, patterns):
        paths = there.pop((item.kind, item.name), [])
        files = item.files()
        same = any(path.endswith(f"/{version_of(files)}.json") for path in paths)
        if not same and item.kind == POOLS and paths:  # several versions may hold it together
            known: Files = {}
            for path in paths:
                known |= remote.read(path)
            ours, theirs = ({name for name in names if name.endswith((".png", ".tar"))} for names in (files, known))
            same = ours == theirs
        yield item.kind, item.name, "same" if same else "differs" if paths else "only here"
    for kind, name in there:
        yield kind, name, "only there"
