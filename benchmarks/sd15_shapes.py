"""Runs each generator once, end to end, on random weights in the exact shapes of Stable Diffusion 1.5.

    python -m benchmarks sd15_shapes --output benchmarks/results/sd15_shapes.json     # CPU: 2 steps at 64 px
    python -m benchmarks sd15_shapes --device cuda --size 512 --steps 50 --batch 8 --dtype bfloat16

The images are noise; shapes, number formats, tokenizer and text lengths, speed and memory are those of the real model.
Each generator runs in a process of its own, so that its peak memory is its own. Prints one row per generator: seconds to fit
and per image, network evaluations, peak memory.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes
from genaug.data.sample import Boxes, Dataset, Sample

PARTS = ("unet", "vae", "text_encoder")
# what keeps fitting as short as generating; everything else is the preset's
SHORT = {
    "real_guidance": ["generator.t0=1.0"],
    "da_fusion": ["generator.t0=1.0", "generator.tokens.num_steps={steps}", "generator.tokens.batch_size=1"],
    "diff_mix": [
        "generator.t0=1.0",
        "generator.tokens.num_steps={steps}",
        "generator.tokens.batch_size=1",
        "generator.lora.num_steps={steps}",
        "generator.lora.batch_size=1",
    ],
    "psld": ["generator.teacher.num_steps=2", "generator.teacher.warmup_steps=0"],
    "psld_fast": ["generator.teacher.num_steps=2", "generator.teacher.warmup_steps=0"],
    "psld_projection": ["generator.teacher.num_steps=2", "generator.teacher.warmup_steps=0"],
    "dreamda": ["generator.t0=1.0", "leakage=none"],
}
CLASSES = ("dining table", "potted plant")


def random_dataset(task: str, size: int, num_images: int) -> Dataset:
    """Noise with one class, and for detection one box in the middle, per image."""
    random = np.random.default_rng(0)
    samples = []
    for i in range(num_images):
        pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        fields: dict[str, Any] = {"id": str(i), "digest": digest_bytes(pixels.tobytes()), "image": pixels}
        if task == "classification":
            fields["label"] = {i % 2: 1.0}
        else:
            box = np.array([[size // 4, size // 4, 3 * size // 4, 3 * size // 4]], dtype=np.float32)
            fields["boxes"] = Boxes(xyxy=box, labels=np.array([i % 2]), crowd=np.array([False]))
        samples.append(Sample(**fields))
    return Dataset(name="noise", task=task, class_names=CLASSES, train=tuple(samples), val=(), test=())


def measure(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit and generate with the preset ``name``."""
    import torch

    overrides = [
        f"generator={name}",
        f"generator.num_steps={arguments.steps}",
        f"generator.batch_size={arguments.batch}",
        f"prior.path={folder}",
        f"prior.dtype={arguments.dtype}",
        f"prior.vae_dtype={arguments.dtype}",
        f"dataset.image_size={arguments.size}",
        *(override.format(steps=arguments.steps) for override in SHORT.get(name, [])),
    ]
    config = compose_typed(overrides)
    generator = config.generator
    cuda = arguments.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    prior = config.prior.load(arguments.device)
    prior.num_evaluations = 0
    dataset = random_dataset(generator.tasks[-1], arguments.size, arguments.batch)
    row: dict[str, Any] = {"generator": name}
    with tempfile.TemporaryDirectory() as work:
        fitted = None
        if generator.fits:
            start = time.perf_counter()
            fitted = Path(work)
            generator.fit(dataset, prior, fitted, prior.device.type)
            row["fit_s"] = round(time.perf_counter() - start, 2)
            row["fit_evaluations"] = prior.num_evaluations
            prior.num_evaluations = 0
        variants = [generator.variant_of(source, 0, dataset, "benchmark") for source in dataset.train]
        start = time.perf_counter()
        images = list(generator.generate(variants, dataset, prior, fitted))
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    assert len(images) == len(variants) and prior.num_evaluations > 0
    assert not any(image.rejected for image in images)
    row["image_s"] = round(seconds / len(images), 3)
    row["evaluations_per_image"] = prior.num_evaluations / len(images)
    row["size"] = "x".join(map(str, images[0].image.size))
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row["peak_GB"] = round(peak / 1e9, 2)
    return row


def write_weights(folder: Path) -> dict[str, int]:
    """Random weights in ``folder``, unless they are there; returns the bytes of each part in float32."""
    from genaug.priors.random_weights import save_random_prior

    if not (folder / "model_index.json").exists():
        save_random_prior(folder, "sd15")
    return {part: sum(file.stat().st_size for file in (folder / part).glob("*.safetensors")) for part in PARTS}


def hardware() -> dict[str, object]:
    """Machine, versions and threads of the measuring processes."""
    import torch

    from genaug.runs.environment import describe_environment

    return {**describe_environment(), "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels, a multiple of 64")
    parser.add_argument("--steps", type=int, default=2, help="of the whole schedule, and of token learning")
    parser.add_argument("--batch", type=int, default=2, help="images, all in one batch")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument(
        "--folder", type=Path, help="where the random weights (4.3 GB) are kept; a temporary folder if absent"
    )
    parser.add_argument("--output", type=Path, help="write the rows here too, as JSON")
    parser.add_argument("generators", nargs="*", default=list(SHORT))
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes,
    ):
        folder = arguments.folder or Path(temporary)
        weights = processes.submit(write_weights, folder).result()
        rows = []
        for name in arguments.generators:
            try:
                rows.append(processes.submit(measure, name, folder, arguments).result())
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            except GenaugError as error:
                raise SystemExit(f"{name}: {error}") from error
        if arguments.output:
            setting = {key: getattr(arguments, key) for key in ("device", "size", "steps", "batch", "dtype")}
            report = {**setting, "hardware": processes.submit(hardware).result(), "weight_bytes": weights, "rows": rows}
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
