"""Tar shards in the WebDataset convention, local or http: files of one sample share their name up to the first dot."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from genaug.core.errors import GenaugError, boundary
from genaug.core.identity import NOT_IDENTITY, content_by
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.data.sources.published import samples_of_files
from genaug.data.sources.records import Export, Record, RecordSource, export

WEB = re.compile(r"https?://[\w.~:/?#@!&+,;=%-]+", re.ASCII)
"""Web addresses without quotes, blanks and what else means something to a shell."""
SCHEME = re.compile(r"\s*(?:[\w.+-]{2,}:|\||-)")
"""``pipe:``, ``s3://`` and the like; a single letter is a Windows drive."""
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm")


@component("dataset", "webdataset")
@dataclass(kw_only=True, slots=True)
class WebDatasetShards(RecordSource):
    """Classification from shards (extra ``webdataset``): an image file and a label file per sample. The images are
    written once below ``cache_dir``; shards behind http are read by ``curl``."""

    train: str = field(default=MISSING, metadata=content_by("content"))
    """Shards of the training images with braces for ranges: ``/data/train-{000..146}.tar`` or ``https://…``."""
    val: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Shards of the validation images; null carves them from train."""
    test: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Shards of the test images; null takes them from train."""
    label: str = "cls"
    """Ending of the label file: ``cls`` holds an integer or a name; ``json:KEY`` takes a key of the ``json`` file."""
    class_names: list[str] = field(default_factory=list)
    """Names of integer labels, in order; empty takes the labels themselves."""

    def read(self) -> Dataset:
        export = self.exported()
        rows = {split: list(export.rows(split, "image")) for split in self._shards()}
        values = sorted({str(row["label"]) for items in rows.values() for _, row in items}, key=_number_or_text)
        if self.class_names:
            unknown = [value for value in values if not value.isdigit() or int(value) >= len(self.class_names)]
            if unknown:
                raise GenaugError(
                    f"dataset.class_names has {len(self.class_names)} names, but a label is {unknown[0]!r}: labels must "
                    "be integers from 0."
                )
            names, index = list(self.class_names), {str(i): i for i in range(len(self.class_names))}
        else:
            names, index = values, {value: i for i, value in enumerate(values)}
        parts = {
            split: samples_of_files(export.folder, [(path, index[str(row["label"])]) for path, row in items])
            for split, items in rows.items()
        }
        return self.assemble("webdataset", names, parts)

    def _shards(self) -> dict[str, str]:
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {split: shards for split, shards in named.items() if shards is not None}

    def exported(self) -> Export:
        try:
            from webdataset.shardlists import expand_urls  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise GenaugError(
                'Tar shards are read by the package webdataset: pip install "genaug[webdataset]".'
            ) from error
        with boundary("dataset.train, val or test cannot be read", "Write shards as /data/train-{000..146}.tar."):
            urls = {split: expand_urls(shards) for split, shards in self._shards().items()}
        for split, found in urls.items():
            for url in found:
                check_shard(url, f"dataset.{split}")
        listing = {split: [_shard_identity(url, split) for url in found] for split, found in urls.items()}
        records = {split: self._records(found) for split, found in urls.items()}
        return export(Path(self.cache_dir).expanduser(), "webdataset", [listing, self.label], records, {})

    def _records(self, urls: list[str]) -> Iterator[Record]:
        from webdataset import WebDataset, handlers  # pyright: ignore

        ending, _, key = self.label.partition(":")
        for sample in WebDataset(urls, shardshuffle=False, handler=handlers.reraise_exception):
            image = next((sample[name] for name in IMAGES if name in sample), None)
            if image is None or ending not in sample:
                raise GenaugError(
                    f"{sample['__url__']}: sample {sample['__key__']} has "
                    f"{', '.join(k for k in sample if k[0] != '_')}, but an image ({', '.join(IMAGES)}) and a file "
                    f".{ending} are needed. Set dataset.label."
                )
            where = f"{sample['__url__']}: the label of sample {sample['__key__']} cannot be read"
            with boundary(where, "Set dataset.label=cls, or json:KEY for a key of a JSON file."):
                value = json.loads(sample[ending])[key] if key else sample[ending].decode().strip()
            yield {"image": image}, {"key": sample["__key__"], "label": value}


def check_shard(url: str, key: str) -> None:
    """Raise ``GenaugError`` unless a shard is a local file or a plain web address.

    webdataset runs what stands behind ``pipe:`` in a shell, and programs for ``s3:``, ``gs:``, ``hf:`` and others; a
    configuration that somebody else wrote must never do that.
    """
    if not WEB.fullmatch(url) and SCHEME.match(url):
        raise GenaugError(
            f"{key}={url}: only local shards and http(s) addresses are read. pipe: and other schemes run programs, which "
            "reading a data set never does: copy the shards to a folder and name them there."
        )


def _shard_identity(url: str, split: str) -> str:
    """A local shard by name, size and time; one behind http by its address, since asking costs a request per shard."""
    if WEB.fullmatch(url):
        return url
    path = Path(url).expanduser()
    if not path.is_file():
        raise GenaugError(f"dataset.{split}: there is no shard {url}.")
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _number_or_text(value: str) -> tuple[int, int, str]:
    return (0, int(value), "") if value.isdigit() else (1, 0, value)
