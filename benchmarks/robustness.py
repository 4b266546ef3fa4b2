"""The README's figures on robustness: processes on one store, corruptions found, inputs fuzzed, images verified, nothing lost.

1. Processes fill one pool together, some of which are killed; every image is made, and once by those that live.
2. Files of the store are damaged at random, one at a time: ``verify`` names each, and the same command makes it whole again.
3. Images, annotation files, manifests and state files with bytes changed at random are read: data, or one sentence.

Kills of whole runs are benchmarks/soak.py's. Writes benchmarks/results/robustness.json, and the README's words for both.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from benchmarks.measure import RESULTS
from genaug.core.errors import GenaugError
from genaug.core.files import read_json, write_json
from genaug.core.identity import NOT_IDENTITY, digest_bytes, identified
from genaug.core.seeding import derive
from genaug.core.shards import Packed
from genaug.core.store import Store, is_whole, pixel_hash
from genaug.data.pool import images_of, manifest_rows
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.coco import Coco
from genaug.data.sources.image_folder import ImageFolder
from genaug.generators import forms
from genaug.generators.base import Generated, Generator
from genaug.generators.publishing import make_pool
from genaug.runs.collection import cell_states
from genaug.runs.verification import verify

M = 10


@identified("benchmarks/noise")
@dataclass(kw_only=True, slots=True)
class Noise(Generator):
    """Pictures of noise, slowly."""

    pause: float = field(default=0.0, metadata=NOT_IDENTITY)
    uses_prior: ClassVar[bool] = False

    def draw(self, source, index, dataset):
        return {}

    def generate(self, variants, dataset, prior, fitted, device):
        for variant in variants:
            pixels = np.random.default_rng(derive(variant.fingerprint)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            time.sleep(self.pause)
            yield Generated(variant=variant, image=Image.fromarray(pixels))


def sources(count: int) -> Dataset:
    def sample(i: int) -> Sample:
        pixels = np.full((16, 16, 3), i % 256, np.uint8)
        return Sample(id=f"train/{i:04d}", digest=digest_bytes(f"{i}".encode()), image=pixels, label={0: 1.0})

    train = tuple(map(sample, range(count)))
    return Dataset(name="noise", task="classification", class_names=("a",), train=train, val=(), test=())


def fill(root: Path, count: int, pause: float = 0.0, packed: bool = False) -> int:
    """Make the pool, or what is missing of it; returns the number of images made here."""
    forms._seen.clear()
    store = Store(root, packed_from=1) if packed else Store(root)
    made = make_pool(store, Noise(seed=0, pause=pause), sources(count), None, "f", lambda: None, M, lambda text: None)
    return made.counts["images_generated"]


def images(root: Path) -> dict[str, str]:
    return {path.stem: pixel_hash(Image.open(path)) for path in Store(root).images()}


def together(top: Path, processes: int, kills: int, draw: random.Random) -> dict[str, int]:
    """Processes on one store, some killed and replaced."""
    fill(top / "alone", 40)
    expected, root = images(top / "alone"), top / "together" / "store"
    start = lambda: multiprocessing.get_context("fork").Process(target=fill, args=(root, 40, 0.01))
    running = [start() for _ in range(processes)]
    for process in running:
        process.start()
    for _ in range(kills):
        time.sleep(draw.uniform(0.05, 0.3))
        victim = draw.choice(running)
        if victim.is_alive():
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            running.append(start())
            running[-1].start()
    for process in running:
        process.join()
    found = images(root)
    killed = sum(process.exitcode == -signal.SIGKILL for process in running)
    return {
        "processes on one store": len(running), "of them killed": killed, "images": len(expected),
        "images lost or different": sum(found.get(name) != value for name, value in expected.items()),
        "damaged files": len(verify(root.parent)[1]),
    }  # fmt: skip


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, draw: data[: draw.randrange(len(data))],
    "empty": lambda data, draw: b"",
    "a byte changed": lambda data, draw: _changed(data, draw, 1),
    "bytes changed": lambda data, draw: _changed(data, draw, 20),
    "zeros": lambda data, draw: bytes(len(data)),
    "something else": lambda data, draw: draw.randbytes(len(data)),
}


def _changed(data: bytes, draw: random.Random, count: int) -> bytes:
    found = bytearray(data)
    for _ in range(count):
        found[draw.randrange(len(found))] ^= draw.randrange(1, 256)
    return bytes(found)


def corruptions(top: Path, count: int, draw: random.Random, packed: bool) -> Counter[str]:
    """Damage one file at a time; is it found, and is everything as before after the same command?"""
    outputs, whole = top / f"damaged-{packed}", top / f"whole-{packed}"
    store, sums = Store(outputs / "store"), Counter[str]()
    learn = lambda work: ((work / "weights.bin").write_bytes(bytes(range(256)) * 40), {"loss": 1.0})[1]
    artefact = lambda: store.folder("fitted", "noise", "ab" * 8, learn)[0]
    fill(store.root, 4, packed=packed)
    artefact()
    subprocess.run(["cp", "-a", outputs, whole], check=True)  # with times and hard links
    files = [p for p in sorted(outputs.rglob("*")) if p.is_file() and "locks" not in p.parts]
    rows, expected = [_row(row) for row in manifest_rows(store.pools()[0])], pictures(store)
    for _ in range(count):
        path, name = draw.choice(files), draw.choice(list(DAMAGES))
        before = path.read_bytes()
        damaged = DAMAGES[name](before, draw)
        if damaged == before:
            continue
        path.write_bytes(damaged)
        sums["corruptions"] += 1
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            found = bool(verify(outputs)[1])
            same = not found and pictures(store) == expected  # e.g. the seal of an index, or the end of a tar file
            sums["found" if found else "without effect (pixels and rows as before)" if same else "missed"] += 1
            if not found and not same:
                print(f"missed: {name}, {path.relative_to(outputs)}")
            fill(store.root, 4, packed=packed)
            is_whole(artefact())
        healed = [_row(row) for row in manifest_rows(store.pools()[0])] == rows
        sums["healed by the same command"] += not verify(outputs)[1] and healed
        shutil.rmtree(outputs)
        subprocess.run(["cp", "-a", whole, outputs], check=True)
    return sums


def pictures(store: Store) -> list[str] | None:
    """What the rows of the pool and its images, and the store's image files, hold; None if one cannot be read."""
    try:
        rows = manifest_rows(store.pools()[0])
        pool = [
            image.read() if isinstance(image, Packed) else image.read_bytes()
            for image in images_of(store.pools()[0], rows)
        ]
        held = [*pool, *(path.read_bytes() for path in sorted(store.images()))]
        return [*map(str, map(_row, rows)), *(pixel_hash(Image.open(io.BytesIO(data))) for data in held)]
    except Exception:
        return None


def _row(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "seconds"}


def fuzz(top: Path, count: int, draw: random.Random) -> dict[str, int]:
    """Read files with changed bytes: data, one sentence, or (which must not be) any other error."""
    sums, folder = Counter[str](), top / "fuzz"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8))
    for name in ("train/a/0.png", "train/b/0.png", "train/b/1.png", "images/0.png", "images/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    boxes = [{"id": i, "image_id": i % 2, "category_id": 1, "bbox": [1, 1, 5 + i, 6], "iscrowd": 0} for i in range(4)]
    pictures = [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 12} for i in range(2)]
    coco = {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    for split in ("train", "val"):
        write_json(folder / "coco" / f"instances_{split}.json", coco)
        shutil.copytree(folder / "images", folder / "coco" / split)
    shutil.copytree(top / "damaged-False", folder / "outputs")
    shutil.copytree(top / "damaged-True", folder / "packed")
    state = {"state": "running", "attempt": 0, "host": "h", "pid": 1}
    write_json(folder / "outputs/runs/digits-ab12/status.json", state)
    pool = Store(folder / "outputs/store").pools()[0]
    readers: dict[Path, Callable[[], object]] = {
        folder / "train/a/0.png": lambda: [
            s.open() for s in ImageFolder(root=str(folder / "train"), seed=0).load().train
        ],
        folder / "coco/instances_train.json": lambda: Coco(root=str(folder / "coco"), seed=0).load(),
        pool / "metadata.jsonl": lambda: verify(folder / "outputs"),
        folder / "outputs/runs/digits-ab12/status.json": lambda: cell_states(folder / "outputs/runs"),
        folder / "outputs/store/fitted" / f"noise-{'ab' * 8}" / "artefact.json": lambda: verify(folder / "outputs"),
        next(Store(folder / "outputs/store").images()): lambda: verify(folder / "outputs"),
    }
    [packed] = Store(folder / "packed/store").pools()
    readers |= {path: lambda: (verify(folder / "packed"), manifest_rows(packed)) for path in packed.iterdir()}
    for i in range(count):
        path, read = list(readers.items())[i % len(readers)]
        data = path.read_bytes()
        path.write_bytes(draw.choice(list(DAMAGES.values()))(data, draw))
        sums["inputs"] += 1
        try:
            with contextlib.redirect_stderr(open(os.devnull, "w")):
                read()
            sums["read, or named and left out"] += 1
        except GenaugError:
            sums["one sentence"] += 1
        except Exception as error:
            sums["other errors"] += 1
            print(f"{path.name}: {type(error).__name__}: {error}")
        finally:
            path.write_bytes(data)
    return dict(sums)


def sentences(soak: dict[str, Any], report: dict[str, Any]) -> str:
    """The README's words for what ``soak.json`` and ``robustness.json`` hold."""
    together, damage, fuzzed = report["processes"], report["corruptions"], report["fuzz"]
    lost, others = together["images lost or different"], fuzzed.get("other errors", 0)
    found, missed = damage.get("found", 0), damage.get("missed", 0)
    return (
        f"Killed {soak['kills']} times at random moments, {soak['equal result']} of {soak['runs']} runs of "
        f"{len(soak['by kind of run'])} kinds ended with the images and metrics of runs that were never killed. "
        f"{together['processes on one store']} processes filled one store, {together['of them killed']} of them killed: "
        f"{lost} of {together['images']} images were lost. Of {damage['corruptions']} random corruptions {found} were found, "
        f"{missed} {'was' if missed == 1 else 'were'} missed, and the others changed nothing that is read; "
        f"{damage.get('healed by the same command', 0)} were healed by the same command. "
        f"{fuzzed['inputs']} damaged inputs gave data or one sentence, {others} gave another error."
    )


def write_readme() -> str:
    """Put the words for the last measurements into the README."""
    words = sentences(*(read_json(RESULTS / f"{name}.json") for name in ("soak", "robustness")))
    page = RESULTS.parents[1] / "README.md"
    lines = "\n".join(textwrap.wrap(words, 124, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False))
    text, count = re.subn(r"\* Killed \d+ times .*?error\.(?=\n)", lambda _: lines, page.read_text(), flags=re.DOTALL)
    assert count == 1, "the README has no paragraph on robustness"
    page.write_text(text)
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--corruptions", type=int, default=300)
    parser.add_argument("--inputs", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "robustness.json")
    parser.add_argument("--readme", action="store_true", help="only put the words for the last measurements there")
    options = parser.parse_args()
    if options.readme:
        return print(write_readme())
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        report = {
            "processes": together(top, options.processes, options.kills, draw),
            "corruptions": dict(
                sum((corruptions(top, options.corruptions // 2, draw, form) for form in (False, True)), Counter())
            ),
            "fuzz": fuzz(top, options.inputs, draw),
            "seed": options.seed,
        }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if options.out == RESULTS / "robustness.json":
        print(write_readme())


if __name__ == "__main__":
    main()
