"""SDEdit (arXiv 2108.01073) in batches: noise the latents of real images to a level t0, then denoise under a prompt.

z_start = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t the first of the last K = floor(N t0) timesteps of an
N-step schedule (DA-Fusion, equation 6). Images of equal K share a batch, whatever their source; each source is encoded
once, each prompt embedded once. An image's noise depends on its own identity alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genaug.core.seeding import derive
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant, steps_taken
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.edit_region import (
    EditRegion,
    edit_region,
    mosaic_centre,
    squashed_boxes,
    to_square,
    with_source_boxes,
)
from genaug.priors.erasure import erased_groups
from genaug.priors.model import LearnedTokens, Prior
from genaug.priors.noise import draw_noise, make_scheduler


def region_of(source: Sample, config: ImageToImage, size: int) -> EditRegion:
    """What of a source may change under this configuration."""
    return edit_region(source, size, config.mask, config.mask_dilation, config.resize)


def edited(
    config: ImageToImage, variants: Sequence[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    """The image of every variant, those first that cannot be edited; where classes are erased, each with its own U-Net."""
    refused = {item.variant.fingerprint: item for item in refuse(prior, variants, config)}
    yield from refused.values()
    variants = [variant for variant in variants if variant.fingerprint not in refused]
    if not variants:
        return
    names = [dataset.class_names[config.prompted_class(variant, dataset)] for variant in variants]
    prompts, tokens = config.prompts(names, prior, fitted)
    for chosen in erased_groups(prior, names):
        yield from edit_images(prior, [variants[i] for i in chosen], [prompts[i] for i in chosen], config, tokens)


def refuse(prior: Prior, variants: Sequence[Variant], config: ImageToImage) -> Iterator[Generated]:
    """Those images that cannot be edited, with the reason and the source's picture."""
    for variant in variants:
        reason = region_of(variant.source, config, prior.image_size).refused
        if reason is not None:
            picture = to_square(variant.source.open(), prior.image_size, config.resize, Image.Resampling.BILINEAR)
            boxes = squashed_boxes(variant.source, prior.image_size)
            yield Generated(variant=variant, image=picture, boxes=boxes, rejected=reason)


def edit_images(
    prior: Prior,
    variants: Sequence[Variant],
    prompts: Sequence[str],
    config: ImageToImage,
    tokens: LearnedTokens | None = None,
) -> Iterator[Generated]:
    """The image of every variant, batch by batch, fewest steps first.

    Args:
        prior: the diffusion model.
        variants: wanted images; ``draws["t0"]`` is the level of each.
        prompts: one per variant.
        config: schedule, guidance and sizes.
        tokens: learned tokens that the prompts name.
    """
    features = embed_distinct(prior, prompts, tokens, config.batch_size)
    uncond = prior.embed([config.negative_prompt], tokens) if config.guidance != 1 else None
    dtype = str(prior.unet.dtype).removeprefix("torch.")
    latents: dict[str, Tensor] = {}
    factor = prior.vae_factor
    steps = [steps_taken(config.num_steps, variant.draws["t0"]) for variant in variants]
    order = sorted(range(len(variants)), key=lambda i: steps[i])
    for num_taken, bucket in itertools.groupby(order, key=lambda i: steps[i]):
        members = list(bucket)
        for start in range(0, len(members), config.batch_size):
            batch = members[start : start + config.batch_size]
            wanted = {variants[i].source.digest: variants[i].source for i in batch}
            encode_missing(prior, wanted, latents, config.resize)
            z_bchw = torch.stack([latents[variants[i].source.digest] for i in batch])
            seeds = [derive(variants[i].fingerprint, "noise") for i in batch]
            editable = None
            if config.mask != "none":
                regions = [region_of(variants[i].source, config, prior.image_size).editable for i in batch]
                # nearest neighbour, as diffusers' inpainting scales its mask
                editable = torch.stack([torch.from_numpy(r[::factor, ::factor].copy()) for r in regions]).to(
                    prior.device
                )
            noise_bchw = draw_noise(seeds, z_bchw.shape[1:])
            edited = sdedit(
                prior,
                z_bchw.to(prior.device),
                noise_bchw.to(prior.device),
                torch.stack([features[prompts[i]] for i in batch]),
                uncond,
                scheduler=config.scheduler,
                num_steps=config.num_steps,
                num_taken=num_taken,
                guidance=config.guidance,
                pad_to=config.batch_size if prior.compiled else None,
                seeds=[derive(seed, "steps") for seed in seeds],
                editable_bhw=editable,
            )
            pictures = to_pictures(prior.decode(edited))
            for i, seed, picture in zip(batch, seeds, pictures, strict=True):
                if config.resize == "tile":
                    picture = mosaic_centre(picture, variants[i].source.open().size)
                if config.save_size is not None and picture.width != config.save_size:
                    picture = picture.resize((config.save_size, config.save_size), Image.Resampling.BILINEAR)
                source = variants[i].source
                if source.boxes is not None and config.label_policy == "guarded":
                    picture = with_source_boxes(picture, source)
                about = {
                    "prompt": prompts[i],
                    "seed": seed,
                    "prior": prior.weights,
                    "dtype": dtype,
                    "batch_size": len(batch),
                }
                if config.mask != "none":
                    about["mask"] = config.mask
                yield Generated(
                    variant=variants[i], image=picture, boxes=squashed_boxes(source, picture.width), about=about
                )


@torch.no_grad()
def sdedit(
    prior: Prior,
    z_bchw: Tensor,
    noise_bchw: Tensor,
    cond_bld: Tensor,
    uncond_1ld: Tensor | None,
    *,
    scheduler: str = "ddim",
    num_steps: int,
    num_taken: int,
    guidance: float,
    pad_to: int | None = None,
    seeds: Sequence[int] | None = None,
    editable_bhw: Tensor | None = None,
) -> Tensor:
    """Latents after the last ``num_taken`` (K) of ``num_steps`` (N) steps, begun at ``z_bchw`` noised to that level.

    Where ``editable_bhw`` (bool) is false, each step ends at ``z_bchw`` noised to the next level, with the same noise, and
    the last one at ``z_bchw`` itself (diffusers' inpainting with an unconditional U-Net).
    """
    schedule = make_scheduler(scheduler, prior.betas)
    schedule.set_timesteps(num_steps)
    first = num_steps - num_taken
    if hasattr(schedule, "set_begin_index"):
        schedule.set_begin_index(first)
    timesteps = schedule.timesteps[first:]  # PNDM has N + 1 entries and so takes K + 1 steps
    z = schedule.add_noise(z_bchw, noise_bchw, timesteps[:1])
    fresh_noise: dict[str, Any] = {}
    if scheduler == "lcm":  # draws noise at each step: one generator per image, so that batches change nothing
        assert seeds is not None
        fresh_noise["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    for i, t in enumerate(timesteps):
        eps_hat = prior.predict_noise(z, t, cond_bld, uncond_1ld, guidance, pad_to)
        z = schedule.step(eps_hat, t, z, return_dict=False, **fresh_noise)[0]
        if editable_bhw is not None:
            last = i + 1 == len(timesteps)
            kept = z_bchw if last else schedule.add_noise(z_bchw, noise_bchw, timesteps[i + 1 : i + 2])
            z = torch.where(editable_bhw[:, None], z, kept)
    return z


def embed_distinct(
    prior: Prior, prompts: Sequence[str], tokens: LearnedTokens | None, batch_size: int
) -> dict[str, Tensor]:
    """Text features [77, d] of every distinct prompt."""
    distinct = list(dict.fromkeys(prompts))
    features: dict[str, Tensor] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        features.update(zip(batch, prior.embed(batch, tokens), strict=True))
    return features


def encode_missing(prior: Prior, sources: dict[str, Sample], latents: dict[str, Tensor], resize: str) -> None:
    """Add the posterior means of those sources (by digest) that are not in ``latents`` yet; they stay on the CPU."""
    missing = {digest: source for digest, source in sources.items() if digest not in latents}
    if missing:
        images = torch.stack([to_tensor(source.open(), prior.image_size, resize) for source in missing.values()])
        latents.update(zip(missing, prior.encode(images).cpu(), strict=True))


def to_tensor(
    picture: Image.Image, size: int, resize: str = "squash", resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """float32 [3, size, size] in [-1, 1] of an RGB picture: squashed to a square, or its centre square."""
    picture = to_square(picture, size, resize, resample)
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def to_pictures(images: Tensor) -> list[Image.Image]:
    """8-bit RGB pictures of [b, 3, h, w] in [-1, 1]; values beyond are clipped."""
    values = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]
