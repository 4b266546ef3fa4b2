"""SDEdit against diffusers' image-to-image pipeline: one image per call, and in batches as large as ours.

Both sides run on the same modules, sources, levels, steps, guidance and prompts, neither with a safety checker. The
pipeline's batches are equal buckets too: images of one level together. Then the pipeline makes the same images from the same
latents, which are compared.

    python -m benchmarks sdedit [--batch-sizes 16 64] [--single 8]
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from benchmarks.measure import Different, Row, Side, compare, say, write
from benchmarks.setting import Setting, random_dataset
from genaug.core.seeding import derive
from genaug.generators.base import Generated, Variant
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.sampler import edit_images, to_tensor
from genaug.priors.model import Prior

LEVELS = (0.25, 0.5, 0.75, 1.0)
MOST_LEVELS_APART = {torch.float32: 1.0, torch.bfloat16: 12.0, torch.float16: 12.0}
"""Mean difference of the 8-bit pictures that rounding in batches of other sizes can make."""


def pipeline_of(prior: Prior) -> StableDiffusionImg2ImgPipeline:
    """The library's pipeline on the prior's own modules."""
    scheduler = DDIMScheduler(
        trained_betas=prior.betas.tolist(), clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    text_encoder = prior.text_encoder
    if text_encoder.dtype != prior.unet.dtype:  # the pipeline has one number format
        text_encoder = copy.deepcopy(text_encoder).to(prior.unet.dtype)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=prior.vae,
        text_encoder=text_encoder,
        tokenizer=prior.tokenizer,
        unet=prior.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Work:
    """``per_level`` images at each of four levels: four variants of each source."""

    def __init__(self, prior: Prior, per_level: int, num_steps: int, batch_size: int):
        self.prior, self.num_steps = prior, num_steps
        dataset = random_dataset(num_classes=8, per_class=-(-per_level // 8), size=prior.image_size)
        self.variants = [
            Variant(source=s, index=j, draws={"t0": level}, fingerprint=f"{s.digest}-{j}")
            for j, level in enumerate(LEVELS)
            for s in dataset.train[:per_level]
        ]
        self.prompts = [f"a photo of a {dataset.class_names[v.source.class_index]}" for v in self.variants]
        self.config = ImageToImage(name="benchmark", seed=0, guidance=7.5, num_steps=num_steps, batch_size=batch_size)

    def ours(self) -> dict[str, Image.Image]:
        """Picture of each variant."""
        made: Iterator[Generated] = edit_images(self.prior, self.variants, self.prompts, self.config)
        return {item.variant.fingerprint: item.image for item in made}

    def theirs(
        self, pipeline: StableDiffusionImg2ImgPipeline, chosen: Sequence[int], batch_size: int, latents: bool = False
    ) -> dict[str, Image.Image]:
        """The same by the pipeline, for the variants with these numbers; from their latents, whose draw else differs."""
        made = {}
        for start in range(0, len(chosen), batch_size):
            batch = [self.variants[i] for i in chosen[start : start + batch_size]]
            images: Any = [variant.source.open() for variant in batch]
            if latents:
                tensors = torch.stack([to_tensor(image, self.prior.image_size) for image in images])
                images = self.prior.encode(tensors).to(self.prior.unet.dtype)
            output = pipeline(
                [self.prompts[i] for i in chosen[start : start + batch_size]],
                images,
                batch[0].draws["t0"],
                self.num_steps,
                guidance_scale=7.5,
                generator=[torch.Generator().manual_seed(derive(v.fingerprint, "noise")) for v in batch],
            )
            made |= {v.fingerprint: image for v, image in zip(batch, output.images, strict=True)}
        return made

    def spread(self, number: int) -> list[int]:
        """Numbers of ``number`` variants, each level equally often."""
        per_level = len(self.variants) // len(LEVELS)
        return [level * per_level + i for level in range(len(LEVELS)) for i in range(number // len(LEVELS))]


def compare_with_pipeline(
    work: Work, single: int, target: float | None, *, theirs: Prior | None = None, batch_size: int = 1, **options: Any
) -> Row:
    """Ours in batches against the pipeline on ``theirs`` (ours, if None) with ``batch_size`` images of one level per call.

    Args:
        single: images that the pipeline makes, a multiple of four batches.
    """
    pipeline, chosen = pipeline_of(theirs or work.prior), work.spread(single)

    def same(made: dict[str, Image.Image], _: Any) -> str:
        again = work.theirs(pipeline, chosen, batch_size, latents=True)
        pairs = [(np.asarray(made[name], dtype=int), np.asarray(again[name], dtype=int)) for name in again]
        apart = [np.abs(a - b) for a, b in pairs]
        if np.mean(apart) > MOST_LEVELS_APART[work.prior.unet.dtype]:
            raise Different(f"the pictures differ by {np.mean(apart):.1f} of 255 levels in the mean")
        return f"{len(pairs)} pictures from equal latents: mean difference {np.mean(apart):.2g}, largest {np.max(apart)} of 255"

    per_level = len(work.variants) // len(LEVELS)
    return compare(
        f"SDEdit, {work.prior.image_size} px, {work.num_steps} steps with guidance, {per_level} images of each of four levels",
        Side(f"batches of {work.config.batch_size}", work.ours, len(work.variants)),
        Side(
            "diffusers' pipeline, one image per call" if batch_size == 1 else f"the pipeline's batches of {batch_size}",
            lambda: work.theirs(pipeline, chosen, batch_size),
            len(chosen),
        ),
        same,
        target=target,
        **options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--single", type=int, default=8, help="images that the pipeline makes one by one")
    parser.add_argument("--num-steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, rows = Setting().prior(), []
    for batch_size, one_by_one in zip(options.batch_sizes, (8.0, 12.0), strict=False):
        work = Work(prior, batch_size, options.num_steps, batch_size)
        work.ours()  # warm up
        rows.append(compare_with_pipeline(work, options.single, one_by_one, repeats=options.repeats))
        print(say(rows[-1]), flush=True)
        if batch_size == 16:
            every = len(work.variants)
            rows.append(compare_with_pipeline(work, every, 1.2, batch_size=batch_size, repeats=options.repeats))
            print(say(rows[-1]), flush=True)
    write("sdedit", rows)


if __name__ == "__main__":
    main()
