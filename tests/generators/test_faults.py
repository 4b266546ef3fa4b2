"""Faults while a pool is made: damage on disk, several writers, kills, too little memory."""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from genaug.core import claims
from genaug.core.claims import claim, workers
from genaug.core.errors import GenaugError
from genaug.core.files import SEAL
from genaug.core.identity import NOT_IDENTITY, identified
from genaug.core.store import Store
from genaug.data.pool import ACCEPTED, manifest_rows
from genaug.generators import forms, publishing
from tests.generators.test_publishing import Noise, build, contents, dataset
from tests.leftovers import Leftover


@pytest.fixture(autouse=True)
def fresh_process():
    """As in a process that has looked at no image yet."""
    forms._seen.clear()


def pixels_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "emptied": lambda path: path.write_bytes(b""),
    "changed in one bit": pixels_changed,
    "not an image": lambda path: path.write_text("{}"),
    "removed": lambda path: path.unlink(),
    "another image": lambda path: shutil.copyfile(next(p for p in path.parents[1].rglob("*.png") if p.name != path.name), path),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("place", ["images", "pools"])
def test_a_damaged_image_is_made_again_in_the_run(tmp_path, name, place):
    store = Store(tmp_path)
    before = build(store, Noise(seed=0), dataset(), 2)
    expected = contents(before)
    if place == "pools":  # a copy: a hard link is one file with its image
        for path in before.folder.rglob("*.png"):
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
    DAMAGE[name](sorted((tmp_path / place).rglob("*.png"))[0])
    forms._seen.clear()
    after = build(store, Noise(seed=0), dataset(), 2)
    assert contents(after) == expected
    assert after.counts["images_generated"] == (place == "images")


@pytest.mark.parametrize("edit", ["label", "twice", "cut", "binary", "dropped", "source"])
def test_a_manifest_that_was_changed_is_written_as_its_images_are(tmp_path, edit):
    store, said = Store(tmp_path), []
    pool = build(store, Noise(seed=0), dataset(), 2)
    path = pool.folder / ACCEPTED
    good = path.read_text()
    lines = good.splitlines(keepends=True)
    row = json.loads(lines[2])
    changed = {
        "label": [*lines[:2], json.dumps({**row, "label": {"b": 1.0}}) + "\n", *lines[3:]],
        "twice": [*lines[:3], *lines[2:]],
        "cut": [*lines[:2], lines[2][:20] + "\n", *lines[3:]],
        "binary": [*lines[:2], "\x00\x01\n", *lines[3:]],
        "dropped": [*lines[:2], *lines[3:]],
        "source": [*lines[:2], json.dumps({**row, "source_id": "train/nobody"}) + "\n", *lines[3:]],
    }
    path.write_text("".join(changed[edit]))
    forms._seen.clear()
    publishing.make_pool(store, Noise(seed=0), dataset(), None, "fitted", lambda: None, 2, said.append)
    assert path.read_text() == good
    assert any("1 line(s) were not those of its images" in text for text in said) == (edit != "dropped")


def test_a_line_that_was_changed_beyond_m_is_left_out_and_not_sealed_again(tmp_path):
    store = Store(tmp_path)
    path = build(store, Noise(seed=0), dataset(), 3).folder / ACCEPTED
    *lines, last = path.read_text().splitlines(keepends=True)
    renamed = json.dumps({**json.loads(last), "source_id": "train/nobody"}) + "\n"
    path.write_text("".join([*lines, renamed]))
    assert len(manifest_rows(path.parent)) == len(lines)
    build(store, Noise(seed=0), dataset(), 2)
    assert path.read_text() == "".join(lines)
    assert len(list(path.parent.glob("*/*.png"))) == len(
        lines
    )  # datasets opens no folder with an image that has no line
    assert build(store, Noise(seed=0), dataset(), 3).counts["images_generated"] == 0


def test_the_manifest_of_an_earlier_version_is_sealed_without_a_word(tmp_path):
    store, said = Store(tmp_path), []
    path = build(store, Noise(seed=0), dataset(), 2).folder / ACCEPTED
    sealed = path.read_text()
    rows = [json.loads(line) for line in sealed.splitlines()]
    path.write_text("".join(json.dumps({k: row[k] for k in row if k != SEAL}) + "\n" for row in rows))
    assert len(manifest_rows(path.parent)) == len(rows)
    publishing.make_pool(store, Noise(seed=0), dataset(), None, "fitted", lambda: None, 2, said.append)
    assert path.read_text() == sealed and not any("not those" in text for text in said)


def test_a_kill_inside_a_copy_leaves_no_truncated_image_that_is_listed(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(18, os.strerror(18))

    def killed(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:40])
        raise KeyboardInterrupt

    store = Store(tmp_path)
    monkeypatch.setattr(forms.os, "link", no_links)
    monkeypatch.setattr(forms.shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        build(store, Noise(seed=0), dataset(), 2)
    monkeypatch.setattr(forms.shutil, "copyfile", lambda a, b: Path(b).write_bytes(Path(a).read_bytes()))
    pool = build(store, Noise(seed=0), dataset(), 2)
    assert all(sample.open().size == (8, 8) for sample in pool.samples)
    assert pool.counts["images_generated"] == 0 and len(list(pool.folder.rglob("*.png"))) == 8


@identified("tests/slow")
@dataclass(kw_only=True, slots=True)
class Slow(Noise):
    """Notes every image that it makes."""

    log: str = field(default="", metadata=NOT_IDENTITY)
    pause: float = field(default=0.01, metadata=NOT_IDENTITY)

    def generate(self, variants, dataset, prior, fitted, device):
        for item in Noise.generate(self, variants, dataset, prior, fitted, device):
            with open(self.log, "a") as file:
                file.write(f"{item.variant.fingerprint} {os.getpid()}\n")
            time.sleep(self.pause)
            yield item


def fill(root: Path, log: Path, count: int, m: int) -> None:
    build(Store(root), Slow(seed=0, log=str(log)), dataset(count), m)


@pytest.mark.slow
def test_processes_fill_overlapping_pools_together_and_make_each_image_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path / "store", log, n, 10)) for n in (20, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    made = [line.split() for line in log.read_text().splitlines()]
    assert len(made) == len({name for name, _ in made}) == 200
    assert len({pid for _, pid in made}) >= 2
    assert len(list((tmp_path / "store" / "pools").iterdir())) == 2
    assert not list((tmp_path / "store" / "locks" / "claims").iterdir())


def claim_and_die(root: Path) -> None:
    with claim(Store(root), ["a" * 16, "b" * 16]) as (share, _):
        assert len(share) == 2
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_images_of_a_process_that_was_killed_are_made_by_others(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert len(list((tmp_path / "locks" / "claims").glob("*.json"))) == 1
    with claim(Store(tmp_path), ["a" * 16, "c" * 16]) as (share, owners):
        assert share == ["a" * 16, "c" * 16] and owners == []
    assert workers(Store(tmp_path)) == []


def test_whoever_waits_for_images_is_told_for_whom_and_gives_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "WAIT", 0.05)
    store, said = Store(tmp_path, lock_timeout=0.2), []
    variants = Noise(seed=0).variants(dataset(), 2, "fitted")
    with (
        claim(store, [variant.fingerprint for variant in variants]),
        pytest.raises(GenaugError, match=rf"8 images have not come for 0.2 s from process {os.getpid()} on"),
    ):
        publishing.make_pool(store, Noise(seed=0), dataset(), None, "fitted", lambda: None, 2, said.append)
    assert sum("waiting for 8 images" in text for text in said) == 1


def test_nobody_is_given_images_that_another_has_published_meanwhile(tmp_path):
    store, (there, lacking) = Store(tmp_path), ("aa" * 8, "bb" * 8)
    store.put_image(there, Image.new("RGB", (2, 2)), {})
    with claim(store, [there, lacking]) as (share, _):
        assert share == [lacking]
        with claim(store, [there, lacking]) as (other, owners):
            assert other == [] and len(owners) == 1
    with claim(store, [lacking]) as (share, owners):
        assert share == [lacking] and owners == []


def test_a_share_leaves_work_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEAST", 4)
    wanted = [f"{i:016x}" for i in range(100)]
    with claim(Store(tmp_path), wanted) as (first, _), claim(Store(tmp_path), wanted) as (second, owners):
        assert len(first) == 50 and len(second) == 25 and len(owners) == 1
        assert not set(first) & set(second)


@identified("tests/hungry")
@dataclass(kw_only=True, slots=True)
class Hungry(Noise):
    """Has memory for two images at once."""

    batch_size: int = field(default=16, metadata=NOT_IDENTITY)
    fits_in_memory: ClassVar[int] = 2
    left: ClassVar[list] = []
    """What failed batches have left."""

    def generate(self, variants, dataset, prior, fitted, device):
        assert [leftover() for leftover in self.left if leftover() is not None] == []
        for start in range(0, len(variants), self.batch_size):
            batch = variants[start : start + self.batch_size]
            if (start or not self.fits_in_memory) and self.batch_size > self.fits_in_memory:
                raise torch.OutOfMemoryError(f"CUDA out of memory of {Leftover(self.left)}")
            yield from Noise.generate(self, batch, dataset, prior, fitted, device)


def test_without_memory_for_a_batch_it_is_halved_and_the_images_stay_the_same(tmp_path):
    said: list[str] = []
    hungry = Hungry(seed=0, batch_size=8)
    args = (None, "fitted", lambda: None, 6)
    gc.disable()
    try:
        pool = publishing.make_pool(Store(tmp_path / "a"), hungry, dataset(), *args, said.append)
    finally:
        gc.enable()
    assert len(Hungry.left) == 2
    Hungry.fits_in_memory = 16
    try:
        whole = publishing.make_pool(Store(tmp_path / "b"), Hungry(seed=0), dataset(), *args)
    finally:
        Hungry.fits_in_memory = 2
    assert contents(pool) == contents(whole) and pool.counts["images_generated"] == 24
    assert hungry.batch_size == 2 and sum("not enough memory" in text for text in said) == 2


@pytest.mark.slow
def test_without_memory_for_one_image_the_run_fails_clearly(tmp_path, monkeypatch):
    from genaug.explanation import message

    monkeypatch.setattr(Hungry, "fits_in_memory", 0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        build(Store(tmp_path), Hungry(seed=0), dataset(), 6)
    assert "not enough memory" in str(message(caught.value))


def test_every_generator_with_a_prior_can_halve_its_batch():
    from genaug.core.registry import COMPONENTS, load_components

    load_components()
    for kind in COMPONENTS["generator"].values():
        if kind.uses_prior and kind.identity_name.startswith("generator/"):
            names = [f for f in kind.__dataclass_fields__.values() if f.name.endswith("batch_size")]
            assert any(not f.metadata.get("identity", True) for f in names), kind


def test_rows_of_a_larger_pool_stay(tmp_path):
    store = Store(tmp_path)
    large = build(store, Noise(seed=0), dataset(), 5)
    forms._seen.clear()
    build(store, Noise(seed=0), dataset(), 2)
    assert len(manifest_rows(large.folder)) == 20


def test_a_line_that_was_changed_and_an_image_that_is_damaged_are_not_adopted(tmp_path):
    pool = build(Store(tmp_path / "there"), Noise(seed=0), dataset(), 1)
    line, *_ = map(json.loads, (pool.folder / ACCEPTED).read_text().splitlines())
    here = Store(tmp_path / "here")
    folder = here.pool(pool.fingerprint)
    shutil.copytree(pool.folder, folder, ignore=shutil.ignore_patterns("*.jsonl"))
    with pytest.raises(GenaugError, match="has changed"):
        forms.adopt(here, folder, [{**line, "label": {"b": 1.0}}])
    image = folder / line["file_name"]
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(GenaugError):
        forms.adopt(here, folder, [line])
    assert not here.image_path(line["fingerprint"]).exists()
