"""SDEdit (arXiv 2108.01073) in batches: noise the latents of real images to a level t0, then denoise under a prompt.

z_start = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t the first of the last K = floor(N t0) timesteps of an
N-step schedule (DA-Fusion, equation 6). Images of equal K share a batch, whatever their source; each source is encoded
once, each prompt embedded once. An image's noise depends on its own identity alone.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genaug.core.seeding import derive
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant, steps_taken
from genaug.generators.labelling.finish import Finish
from genaug.generators.labelling.pixel_boxes import scaled_boxes
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.edit_region import Layout, lay_out, mosaic_centre, to_square
from genaug.priors.erasure import erased_groups
from genaug.priors.model import LearnedTokens, Prior
from genaug.priors.noise import draw_noise, make_scheduler
from genaug.priors.overlap import Moving, overlapped

Wanted = tuple[Variant, str, Layout]
"""An image to make: its variant, its prompt, and its source as the prior sees it."""


def edited(
    config: ImageToImage, variants: Sequence[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    """The image of every variant, those first that cannot be edited; where classes are erased, each with its own U-Net."""
    layouts = lay_out_sources(config, variants, prior)
    yield from refused(variants, layouts)
    variants = [variant for variant in variants if layouts[variant.source.digest].refused is None]
    if not variants:
        return
    look = None
    if config.audits and dataset.task == "detection":
        assert fitted is not None
        look = config.auditor.eye(len(dataset.class_names), fitted, prior.device)
    names = [dataset.class_names[config.prompted_class(variant, dataset)] for variant in variants]
    prompts, tokens = config.prompts(names, prior, fitted, [variant.draws for variant in variants])
    finish = Finish(config, dataset.class_names, look)
    with config.adapted(prior, fitted):
        for chosen in erased_groups(prior, names):
            images, texts = [variants[i] for i in chosen], [prompts[i] for i in chosen]
            yield from edit_images(prior, images, texts, config, tokens, layouts, finish)


def lay_out_sources(config: ImageToImage, variants: Sequence[Variant], prior: Prior) -> dict[str, Layout]:
    """How each source (by digest) is given to the prior."""
    sources = {variant.source.digest: variant.source for variant in variants}
    return {
        digest: lay_out(
            source, prior.image_size, prior.frame_multiple, config.mask, config.mask_dilation, config.resize
        )
        for digest, source in sources.items()
    }


def refused(variants: Sequence[Variant], layouts: Mapping[str, Layout]) -> Iterator[Generated]:
    """Those images that cannot be edited, with the reason and the source's picture."""
    for variant in variants:
        layout = layouts[variant.source.digest]
        if layout.refused is not None:
            width, height = layout.size if layout.geometry is None else layout.geometry.inner
            picture = variant.source.open().resize((width, height), Image.Resampling.BILINEAR)
            boxes = scaled_boxes(variant.source, width, height)
            yield Generated(variant=variant, image=picture, boxes=boxes, rejected=layout.refused)


def edit_images(
    prior: Prior,
    variants: Sequence[Variant],
    prompts: Sequence[str],
    config: ImageToImage,
    tokens: LearnedTokens | None = None,
    layouts: Mapping[str, Layout] | None = None,
    finish: Finish | None = None,
) -> Iterator[Generated]:
    """The image of every variant, batch by batch, fewest steps first.

    Args:
        prior: the diffusion model.
        variants: wanted images; ``draws["t0"]`` is the level of each.
        prompts: one per variant.
        config: schedule, guidance and sizes.
        tokens: learned tokens that the prompts name.
        layouts: ``lay_out_sources`` of these variants, where it is known.
        finish: what becomes of an edited picture; without, no detector looks at it.
    """
    layouts = layouts or lay_out_sources(config, variants, prior)
    finish = finish or Finish(config, ())
    wanted = [(v, prompt, layouts[v.source.digest]) for v, prompt in zip(variants, prompts, strict=True)]
    features = embed_distinct(prior, prompts, tokens, config.batch_size)
    uncond = prior.embed([config.negative_prompt], tokens) if config.guidance != 1 else None
    latents: dict[str, tuple[Moving, int]] = {}
    """By digest: latents of the batch in which the source first came, and its row. They stay on the CPU."""

    def prepare(batch: Batch) -> tuple[Tensor | None, Tensor]:
        images = [source_tensor(source, layout, config.resize) for source, layout in batch.new.values()]
        height, width = batch.items[0][2].editable.shape
        shape = (prior.vae.config.latent_channels, height // prior.vae_factor, width // prior.vae_factor)
        return torch.stack(images) if images else None, draw_noise(batch.seeds, shape)

    def launch(batch: Batch, ready: tuple[Tensor | None, Tensor]) -> tuple[Batch, Moving]:
        images, noise = ready
        new = {} if images is None else dict(zip(batch.new, prior.encode(images), strict=True))
        if new:
            moving = Moving(torch.stack(list(new.values())))
            latents.update((digest, (moving, row)) for row, digest in enumerate(new))
        digests = [variant.source.digest for variant, _, _ in batch.items]
        known = {digest: latents[digest][0].wait()[latents[digest][1]] for digest in digests if digest not in new}
        z_bchw = torch.stack([new[d] if d in new else known[d].to(prior.device, non_blocking=True) for d in digests])
        z = sdedit(
            prior,
            z_bchw,
            noise.to(prior.device),
            torch.stack([features[prompt] for _, prompt, _ in batch.items]),
            uncond,
            scheduler=config.scheduler,
            num_steps=config.num_steps,
            num_taken=batch.num_taken,
            guidance=config.guidance,
            batch_size=config.batch_size,
            cache_interval=config.cache_interval,
            seeds=[derive(seed, "steps") for seed in batch.seeds],
            editable_bhw=None if config.mask == "none" else editable_latents(prior, batch.items),
        )
        z = config.refined(prior, z, [variant for variant, _, _ in batch.items], finish.class_names)
        return batch, Moving(to_bytes(prior.decode(z)))

    batches = list(in_batches(config, wanted))
    for batch, moving in overlapped(batches, prepare, launch, prior.device):
        for item, seed, values in zip(batch.items, batch.seeds, moving.wait().numpy(), strict=True):
            yield _finished(prior, config, finish, item, Image.fromarray(values), seed, len(batch.items))


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size that take the same number of steps."""

    items: list[Wanted]
    num_taken: int
    seeds: list[int]
    new: dict[str, tuple[Sample, Layout]]
    """Sources, by digest, that no earlier batch has encoded."""


def in_batches(config: ImageToImage, wanted: Sequence[Wanted]) -> Iterator[Batch]:
    """All wanted images, fewest steps first."""
    seen: set[str] = set()

    def shape(item: Wanted) -> tuple[int, tuple[int, int]]:
        return steps_taken(config.num_steps, item[0].draws["t0"]), item[2].size

    for (num_taken, _), bucket in itertools.groupby(sorted(wanted, key=shape), key=shape):
        members = list(bucket)
        for start in range(0, len(members), config.batch_size):
            items = members[start : start + config.batch_size]
            new = {v.source.digest: (v.source, layout) for v, _, layout in items if v.source.digest not in seen}
            seen |= new.keys()
            yield Batch(items, num_taken, [derive(v.fingerprint, "noise") for v, _, _ in items], new)


def editable_latents(prior: Prior, batch: Sequence[Wanted]) -> Tensor:
    """bool [b, h, w]: where latents may change; nearest neighbour, as diffusers' inpainting scales its mask."""
    factor = prior.vae_factor
    regions = [torch.from_numpy(layout.editable[::factor, ::factor].copy()) for _, _, layout in batch]
    return torch.stack(regions).to(prior.device)


def _finished(
    prior: Prior, config: ImageToImage, finish: Finish, item: Wanted, picture: Image.Image, seed: int, batch_size: int
) -> Generated:
    variant, prompt, layout = item
    editable = layout.editable
    if layout.geometry is not None:
        picture = Image.fromarray(layout.geometry.crop(np.asarray(picture)))
        editable = layout.geometry.crop(editable)
    if config.resize == "tile":
        picture = mosaic_centre(picture, variant.source.open().size)
    about = {
        "prompt": prompt,
        "seed": seed,
        "prior": prior.weights,
        "dtype": str(prior.unet.dtype).removeprefix("torch."),
        "batch_size": batch_size,
    }
    if config.mask != "none":
        about["mask"] = config.mask
    return finish.image(variant, picture, editable, about)


def reconstruct(prior: Prior, variants: Sequence[Variant], batch_size: int) -> Iterator[Generated]:
    """The sources as the VAE gives them back, each in the frame of an edit."""
    items = [(v, "", lay_out(v.source, prior.image_size, prior.frame_multiple, "none", 0)) for v in variants]
    batches: list[list[Wanted]] = []
    for _, group in itertools.groupby(sorted(items, key=lambda item: item[2].size), key=lambda item: item[2].size):
        members = list(group)
        batches += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]

    def prepare(batch: list[Wanted]) -> dict[str, Tensor]:
        layouts = {variant.source.digest: (variant.source, layout) for variant, _, layout in batch}
        return {digest: source_tensor(source, layout, "squash") for digest, (source, layout) in layouts.items()}

    def launch(batch: list[Wanted], images: dict[str, Tensor]) -> tuple[list[Wanted], Moving]:
        latents = dict(zip(images, prior.encode(torch.stack(list(images.values()))), strict=True))
        z_bchw = torch.stack([latents[variant.source.digest] for variant, _, _ in batch])
        return batch, Moving(to_bytes(prior.decode(z_bchw)))

    for batch, moving in overlapped(batches, prepare, launch, prior.device):
        for (variant, _, layout), values in zip(batch, moving.wait().numpy(), strict=True):
            picture = Image.fromarray(values if layout.geometry is None else layout.geometry.crop(values))
            yield Generated(
                variant=variant,
                image=picture,
                boxes=scaled_boxes(variant.source, *picture.size),
                about={"prior": prior.weights, "frame": list(layout.size), "batch_size": len(batch)},
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
    batch_size: int | None = None,
    cache_interval: int | None = None,
    seeds: Sequence[int] | None = None,
    editable_bhw: Tensor | None = None,
) -> Tensor:
    """Latents after the last ``num_taken`` (K) of ``num_steps`` (N) steps, begun at ``z_bchw`` noised to that level.

    Where ``editable_bhw`` (bool) is false, each step ends at ``z_bchw`` noised to the next level, with the same noise, and
    the last one at ``z_bchw`` itself (diffusers' inpainting with an unconditional U-Net). ``batch_size``: that of a full
    batch, to which a compiled U-Net's batches are filled up. ``cache_interval``: see ``ImageToImage``.
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
    with prior.sampling(batch_size or len(z), cache_interval):
        # the scheduler counts on the CPU; the U-Net's copies cross to a GPU once
        for i, (t, t_unet) in enumerate(zip(timesteps, timesteps.to(prior.device), strict=True)):
            eps_hat = prior.predict_noise(z, t_unet, cond_bld, uncond_1ld, guidance)
            z = schedule.step(eps_hat, t, z, return_dict=False, **fresh_noise)[0]
            if editable_bhw is not None:
                last = i + 1 == len(timesteps)
                kept = z_bchw if last else schedule.add_noise(z_bchw, noise_bchw, timesteps[i + 1 : i + 2])
                z = torch.where(editable_bhw[:, None], z, kept)
    return z


def embed_distinct(
    prior: Prior, prompts: Sequence[str], tokens: LearnedTokens | None, batch_size: int
) -> dict[str, Tensor]:
    """Text features [77, d] of every distinct prompt; of one with several lines, the mean of theirs."""
    distinct = list(dict.fromkeys(line for prompt in prompts for line in prompt.split("\n")))
    features: dict[str, Tensor] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        features.update(zip(batch, prior.embed(batch, tokens), strict=True))
    for prompt in prompts:
        if prompt not in features:
            features[prompt] = torch.stack([features[line] for line in prompt.split("\n")]).mean(dim=0)
    return features


def source_tensor(source: Sample, layout: Layout, resize: str) -> Tensor:
    """float32 [3, h, w] in [-1, 1]: a square, or the source in its frame, whose padding is mid-grey."""
    if layout.geometry is None:
        return to_tensor(source.open(), layout.size[0], resize)
    scaled = np.asarray(layout.geometry.scale_image(source.open(), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(layout.geometry.into_frame(scaled / 127.5 - 1)).permute(2, 0, 1)


def to_tensor(
    picture: Image.Image, size: int, resize: str = "squash", resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """float32 [3, size, size] in [-1, 1] of an RGB picture: squashed to a square, or its centre square."""
    picture = to_square(picture, size, resize, resample)
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """uint8 [b, h, w, 3] of [b, 3, h, w] in [-1, 1]; values beyond are clipped."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_pictures(images: Tensor) -> list[Image.Image]:
    """8-bit RGB pictures of [b, 3, h, w] in [-1, 1]; values beyond are clipped."""
    return [Image.fromarray(values) for values in to_bytes(images).cpu().numpy()]
