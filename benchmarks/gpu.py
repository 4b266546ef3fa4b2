"""Everything that a GPU should be good at, in one command that ends by itself; random weights in the shapes of SD 1.5.

    python -m benchmarks gpu                    # one H100 or H200: within eight minutes
    python -m benchmarks gpu --only sdedit erasure
    python -m benchmarks gpu --toy              # the same at toy size on any machine, as the tests do

Each part has its share of the time; a comparison repeats until five or its time are over. A part that fails leaves the others
going. Rows are written as they come. No network is needed: random weights make images without meaning, at the same speed.
"""

import argparse
import dataclasses
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import psld, sdedit, textual_inversion
from benchmarks.gpu_training import classifier_row, detector_row
from benchmarks.measure import RESULTS, Different, Row, Side, circumstances, compare, say, write
from benchmarks.setting import Setting, random_dataset
from genaug.composition import compose_typed
from genaug.downstream.trainer import TrainerConfig
from genaug.generators.base import Generated
from genaug.priors.erasure import erase
from genaug.priors.model import Prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    setting: Setting
    batch_size: int
    num_steps: int
    compile_mode: str | None
    classes: int
    """Whose tokens are learned together."""
    scenes: int
    """Images of PSLD."""
    reference_steps: int
    iterations: int
    """Of erasing."""
    matrix: int
    """Side of the matrices whose product is the rate to reach."""
    classifier: str
    classifier_size: int
    classifier_batch: int
    detector: str
    detector_size: int
    detector_batch: int
    training_steps: int
    once: bool = False
    """No comparison is repeated."""


FULL = Sizes(
    setting=Setting(weights="sd15", device="cuda", dtype="bfloat16", image_size=512),
    batch_size=16,
    num_steps=25,
    compile_mode="default",
    classes=4,
    scenes=2,
    reference_steps=4,
    iterations=4,
    matrix=8192,
    classifier="resnet50",
    classifier_size=224,
    classifier_batch=256,
    detector="faster_rcnn",
    detector_size=640,
    detector_batch=8,
    training_steps=40,
)
TOY = Sizes(
    setting=Setting(weights="tiny"),
    batch_size=2,
    num_steps=4,
    compile_mode=None,
    classes=2,
    scenes=1,
    reference_steps=1,
    iterations=1,
    matrix=128,
    classifier="test_resnet",
    classifier_size=32,
    classifier_batch=4,
    detector="tiny",
    detector_size=64,
    detector_batch=2,
    training_steps=2,
    once=True,
)


class Bench:
    """The model that the parts share, and what they measure it against."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.device = sizes, sizes.setting.device
        TrainerConfig(accelerator=self.device).device()  # TF32 and the like, as a run has them
        self.prior: Prior = sizes.setting.prior()
        self.rate = self.matrix_rate()

    def matrix_rate(self) -> float:
        """TFLOP/s of one large product in the prior's number format."""
        n = self.sizes.matrix
        a, b = torch.randn(2, n, n, device=self.device, dtype=self.prior.unet.dtype)
        seconds = []
        for _ in range(6):
            self.wait()
            started = time.perf_counter()
            torch.mm(a, b)
            self.wait()
            seconds.append(time.perf_counter() - started)
        return 2 * n**3 / min(seconds) / 1e12

    def wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def equality(self, until: float) -> Iterator[Row]:
        """The same images in batches of one and of many, and, with a GPU, on the CPU: the shipped prior in float32."""
        TrainerConfig(accelerator=self.device, tf32=False).device()
        shipped = Setting(device=self.device).prior()
        many = sdedit.Work(shipped, self.sizes.batch_size, 8, self.sizes.batch_size)
        one = sdedit.Work(shipped, self.sizes.batch_size, 8, 1)
        sides = [(f"batches of {self.sizes.batch_size}", many.ours, "batches of one", one.ours)]
        if self.device != "cpu":
            there = sdedit.Work(Setting().prior(), self.sizes.batch_size, 8, self.sizes.batch_size)
            sides.append(("on the GPU", many.ours, "on the CPU", there.ours))
        for name, ours, other, theirs in sides:
            a, b = Side(name, ours, len(many.variants)), Side(other, theirs, len(many.variants))
            yield compare("the shipped prior's images", a, b, same_pictures, device=self.device, repeats=2, until=until)
        TrainerConfig(accelerator=self.device).device()

    def sdedit(self, until: float) -> Iterator[Row]:
        """Against diffusers' pipeline, one image per call."""
        work = sdedit.Work(self.prior, self.sizes.batch_size, self.sizes.num_steps, self.sizes.batch_size)
        yield self.with_share(sdedit.compare_with_pipeline(work, 4, 4.0, device=self.device, until=until))

    def sdedit_cached(self, until: float) -> Iterator[Row]:
        """Deep features of the U-Net at every second step against at each; not the same pictures, see step_savers."""
        whole, cached = (
            sdedit.Work(self.prior, self.sizes.batch_size, self.sizes.num_steps, self.sizes.batch_size)
            for _ in range(2)
        )
        cached.config.cache_interval = 2
        yield compare(
            f"SDEdit, {self.prior.image_size} px, {self.sizes.num_steps} steps with guidance",
            Side("cache_interval=2", cached.ours, len(cached.variants)),
            Side("every step whole", whole.ours, len(whole.variants)),
            lambda ours, theirs: f"{len(ours)} and {len(theirs)} images, not the same",
            device=self.device,
            until=until,
        )

    def sdedit_compiled(self, until: float) -> Iterator[Row]:
        """Against diffusers' pipeline in batches as large, both on the same compiled networks."""
        if self.sizes.compile_mode is not None:
            self.prior.compile(self.sizes.compile_mode, fuse_qkv=True)
        work = sdedit.Work(self.prior, self.sizes.batch_size, self.sizes.num_steps, self.sizes.batch_size)
        first = sdedit.Work(self.prior, self.sizes.batch_size, 4, self.sizes.batch_size)  # every shape, few steps
        pipeline = sdedit.pipeline_of(self.prior)
        first.ours()
        first.theirs(pipeline, range(len(first.variants)), self.sizes.batch_size)
        row = sdedit.compare_with_pipeline(
            work, len(work.variants), 1.2, batch_size=self.sizes.batch_size, device=self.device, until=until
        )
        yield self.with_share(dataclasses.replace(row, what=f"{row.what}, compiled ({self.sizes.compile_mode})"))

    def with_share(self, row: Row) -> Row:
        """The row with the share of the matrix rate that an image of a mean level reaches."""
        side = self.prior.image_size // self.prior.vae_factor
        z, text = torch.zeros(1, 4, side, side, device=self.device), self.prior.embed([""])
        with FlopCounterMode(display=False) as counter, torch.no_grad(), uncompiled():
            self.prior.predict_noise(z, 500, text)
        unet = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter, uncompiled():
            self.prior.decode(z)
        passes = 2 * sum(int(level * self.sizes.num_steps) for level in sdedit.LEVELS) / len(sdedit.LEVELS)
        rate = (passes * unet + counter.get_total_flops()) / row.ours_seconds / 1e12
        share = f"{rate:.3g} TFLOP/s of {self.rate:.3g} by one large product: {rate / self.rate:.0%}"
        return dataclasses.replace(row, same=f"{row.same}; {share}")

    def textual_inversion(self, until: float) -> Iterator[Row]:
        """All classes in one run against one run per class that encodes at every step."""
        options: dict[str, Any] = {"device": self.device, "until": until}
        yield textual_inversion.compare_joint(self.prior, self.sizes.classes, 3, self.sizes.classes, 10.0, **options)

    def psld(self, until: float) -> Iterator[Row]:
        """The fast mode against the reference's 1000 steps."""
        scenes = psld.digit_scenes(self.prior.image_size, self.sizes.scenes)
        yield psld.compare_mode(
            "psld_fast", scenes, self.prior, self.sizes.reference_steps, self.sizes.scenes, None,
            device=self.device, until=until,
        )  # fmt: skip

    def dreamda(self, until: float) -> Iterator[Row]:
        """One inversion per source against the released code's one per image, four images of each source."""
        dataset = random_dataset(2, max(1, self.sizes.batch_size // 8), self.prior.image_size)

        def side(codes: str) -> Side:
            steps = [n for n in range(1, self.sizes.num_steps + 1) if 1000 % n == 0][-1]
            chosen = [f"num_steps={steps}", f"batch_size={self.sizes.batch_size}", f"source_codes={codes}"]
            words = ["leakage=none", "generator=dreamda_reference", *(f"generator.{word}" for word in chosen)]
            config = compose_typed(words).generator
            variants = config.variants(dataset, 4, "benchmark")
            return Side(
                f"{codes} codes", lambda: list(config.generate(variants, dataset, self.prior, None)), len(variants)
            )

        yield compare(
            f"DreamDA, {self.prior.image_size} px, four images per source",
            side("shared"),
            side("fresh"),
            self.same_number,
            device=self.device,
            until=until,
        )

    def same_number(self, ours: list[Generated], theirs: list[Generated]) -> str:
        """Other codes make other images: as many of the same size."""
        sizes = [[item.image.size for item in side] for side in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise Different(f"{sizes[0]} is not {sizes[1]}")
        return f"{len(ours)} images of the same sources and sizes, not of the same noise"

    def erasure(self, until: float) -> Iterator[Row]:
        """States drawn from trajectories that were walked once against a walk for each state."""
        steps = "leakage.erasure.num_steps=20"
        words = ["leakage=model_centric", "leakage/erasure=esd_tiny", steps, "leakage.erasure.trajectories=2"]
        config = compose_typed([*words, f"leakage.erasure.iterations={self.sizes.iterations}"]).leakage.erasure
        assert config is not None
        config = dataclasses.replace(config, batch_size=4, trajectories=2)
        released = dataclasses.replace(config, trajectories=None)

        def same(ours: Any, theirs: Any) -> str:
            if ours[0].keys() != theirs[0].keys():
                raise Different("they do not change the same weights")
            return f"{len(ours[0])} weights changed by {self.sizes.iterations} steps of {config.batch_size} states"

        yield compare(
            f"erasing a concept, {self.prior.image_size} px, {self.sizes.iterations} iterations",
            Side("two trajectories walked once", lambda: erase(self.prior, "class 0", config)),
            Side("a walk for each state", lambda: erase(self.prior, "class 0", released)),
            same,
            device=self.device,
            until=until,
        )

    def classifier(self, until: float) -> Iterator[Row]:
        """Training against timm's own loop."""
        s = self.sizes
        yield classifier_row(
            s.classifier, s.classifier_size, s.classifier_batch, s.training_steps, self.device, until=until
        )

    def detector(self, until: float) -> Iterator[Row]:
        """Training against a plain loop on torchvision's detector."""
        s = self.sizes
        yield detector_row(s.detector, s.detector_size, s.detector_batch, s.training_steps, self.device, until=until)


SHARES = {
    "equality": 0.03,
    "sdedit": 0.07,
    "sdedit_cached": 0.05,
    "textual_inversion": 0.03,
    "psld": 0.05,
    "dreamda": 0.05,
    "erasure": 0.05,
    "classifier": 0.1,
    "detector": 0.07,
    "sdedit_compiled": 0.38,  # last: nobody knows how long a compiler takes
}
"""Parts in their order, each with the share of the time after which it repeats nothing; the rest is for loading and first
calls."""


def same_pictures(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """How far apart two sides' 8-bit pictures are."""
    apart = [np.abs(np.asarray(ours[name], dtype=int) - np.asarray(theirs[name], dtype=int)) for name in theirs]
    if np.mean(apart) > 0.5:
        raise Different(f"the pictures differ by {np.mean(apart):.2f} of 255 levels in the mean")
    return f"{len(apart)} pictures: mean difference {np.mean(apart):.2g}, largest {np.max(apart)} of 255"


def uncompiled() -> Any:
    """Operations are counted in the networks as they are written."""
    return torch.compiler.set_stance("force_eager")


def measure(sizes: Sizes, minutes: float, parts: list[str], folder: Path, say_line: Callable[[str], None]) -> list[str]:
    """Measure ``parts`` into ``folder``/gpu.csv; returns what failed or found no time."""
    missing = list(parts)

    def end() -> None:  # a kernel or a compiler does not let itself be interrupted
        say_line(f"{minutes:g} minutes are over; not finished: {', '.join(missing)}")
        os._exit(1)

    watchdog = threading.Timer(60 * minutes, end)
    watchdog.daemon = True
    watchdog.start()
    try:
        _measure(sizes, minutes, missing, folder, say_line)
    finally:
        watchdog.cancel()
    return missing


def _measure(sizes: Sizes, minutes: float, missing: list[str], folder: Path, say_line: Callable[[str], None]) -> None:
    """The parts that are ``missing``, each taken from there when it is done."""
    started, rows, bench = time.monotonic(), list[Row](), Bench(sizes)
    say_line(f"one large product: {bench.rate:.3g} TFLOP/s in {sizes.setting.dtype}; {circumstances(bench.device)}")
    for part in list(missing):
        until = 0.0 if sizes.once else time.monotonic() + SHARES[part] * 60 * minutes
        try:
            for row in getattr(bench, part)(until):
                rows.append(row)
                write("gpu", rows, folder)
                say_line(f"{time.monotonic() - started:4.0f} s  {say(row)}")
            missing.remove(part)
        except Exception:  # the others still have something to say
            say_line(f"{part} failed:\n{traceback.format_exc()}")
        if bench.device.startswith("cuda"):
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU, written nowhere")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which it ends in any case")
    parser.add_argument("--only", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.csv")
    options = parser.parse_args()
    if not options.toy and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU: write --toy to try the command at toy size.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if options.toy else options.out
        folder.mkdir(parents=True, exist_ok=True)
        missing = measure(
            TOY if options.toy else FULL, options.minutes, options.only, folder, lambda text: print(text, flush=True)
        )
    if missing:
        raise SystemExit(f"not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
