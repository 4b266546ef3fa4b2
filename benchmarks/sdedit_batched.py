"""SDEdit in batches against diffusers' image-to-image pipeline, one image per call.

Both sides run in one process on the same sources, steps, guidance and prompts; then the same images are made by both
from the same latents and noise, and compared. What is gained comes from batches over images, each source encoded once
and each prompt embedded once.

    python benchmarks/sdedit_batched.py                                  # tiny prior, CPU; target: >= 5
    python benchmarks/sdedit_batched.py --sd15-shapes --device cuda --batch-size 16 --images 64 --single-images 8
"""

import time

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from diffusion_setting import hardware, load_prior, parser, random_dataset, synchronize
from PIL import Image

from genaug.core.seeding import derive
from genaug.generators.base import Variant
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.sampler import edit_images, to_tensor
from genaug.priors.model import Prior

LEVELS = (0.25, 0.5, 0.75, 1.0)


def diffusers_pipeline(prior: Prior) -> StableDiffusionImg2ImgPipeline:
    """The library's pipeline on the prior's own modules."""
    scheduler = DDIMScheduler(
        trained_betas=prior.betas.tolist(), clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=prior.vae,
        text_encoder=prior.text_encoder,
        tokenizer=prior.tokenizer,
        unet=prior.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=256, help="images made in batches")
    arguments.add_argument("--single-images", type=int, default=16, help="images made one by one")
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--num-steps", type=int, default=25)
    options = arguments.parse_args()
    prior = load_prior(options)
    dataset = random_dataset(num_classes=8, per_class=max(1, options.images // 32), size=prior.image_size)
    variants = [
        Variant(source=s, index=j, draws={"t0": LEVELS[(i + j) % 4]}, fingerprint=f"{s.digest}-{j}")
        for j in range(options.images // len(dataset.train) + 1)
        for i, s in enumerate(dataset.train)
    ][: options.images]
    prompts = [f"a photo of a {dataset.class_names[v.source.class_index]}" for v in variants]
    config = ImageToImage(
        name="benchmark", seed=0, guidance=7.5, num_steps=options.num_steps, batch_size=options.batch_size
    )
    print(
        f"{hardware(options.device)}; U-Net {prior.unet.dtype}, {prior.image_size} px, {options.num_steps} steps, CFG"
    )

    warm = [variant for variant in variants if variant.draws["t0"] == LEVELS[0]][: options.batch_size]
    list(edit_images(prior, warm, ["a photo"] * len(warm), config))
    synchronize(options.device)
    started = time.perf_counter()
    made = {item.variant.fingerprint: item.image for item in edit_images(prior, variants, prompts, config)}
    synchronize(options.device)
    batched = len(variants) / (time.perf_counter() - started)
    print(f"batched, {options.batch_size} images per call: {batched:.2f} images/s ({len(variants)} images)")

    pipeline = diffusers_pipeline(prior)

    def call(variant: Variant, prompt: str, image: Image.Image | torch.Tensor) -> Image.Image:
        generator = torch.Generator().manual_seed(derive(variant.fingerprint, "noise"))
        strength = variant.draws["t0"]
        output = pipeline(prompt, image, strength, options.num_steps, guidance_scale=7.5, generator=generator)
        return output.images[0]

    chosen = list(zip(variants, prompts, strict=True))[: options.single_images]  # all four levels equally often
    call(*chosen[0], chosen[0][0].source.open())
    synchronize(options.device)
    started = time.perf_counter()
    for variant, prompt in chosen:
        call(variant, prompt, variant.source.open())
    synchronize(options.device)
    single = len(chosen) / (time.perf_counter() - started)
    print(f"diffusers pipeline, one image per call: {single:.2f} images/s ({len(chosen)} images)")

    differences = []
    for variant, prompt in chosen[:8]:  # from the same latents; the pipeline itself would draw from the posterior
        latents = prior.encode(to_tensor(variant.source.open(), prior.image_size).unsqueeze(0))
        image = call(variant, prompt, latents.to(prior.unet.dtype))
        ours = np.asarray(made[variant.fingerprint], dtype=int)
        differences.append(np.abs(ours - np.asarray(image, dtype=int)))
    print(f"difference of the images in 8-bit levels: mean {np.mean(differences):.3f}, maximum {np.max(differences)}")
    print(f"ratio: {batched / single:.2f}")


if __name__ == "__main__":
    main()
