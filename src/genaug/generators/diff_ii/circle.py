"""The mathematics of Diff-II (arXiv 2408.16266): invert, interpolate on a circle, denoise in two stages.

    I = DDIM inversion of a latent under its class's prompt, without guidance
    theta = arccos(<I1, I2> / |I1| |I2|)
    z = (sin(theta + phi) I1 - sin(phi) I2) / sin(theta),    phi ~ U[0, 2 pi)
    z is denoised under a sentence for the first share s of the schedule, then under the plain prompt

phi = 0 gives the first inversion, phi = 2 pi - theta the second; where both have one norm, z has it for every phi.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMInverseScheduler
from PIL import Image
from torch import Tensor

from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant, steps_taken
from genaug.generators.diff_ii.config import DiffII
from genaug.generators.labelling.finish import Finish
from genaug.generators.sdedit.sampler import embed_distinct, to_bytes, to_tensor
from genaug.priors.model import Prior
from genaug.priors.noise import make_scheduler
from genaug.priors.overlap import Moving, overlapped

PARALLEL = 1e-6
"""Sine of the angle below which two inversions count as one."""


def interpolated(
    config: DiffII, variants: Sequence[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    """The image of every variant, one level after the other."""
    with config.adapted(prior, fitted):
        for level in sorted({variant.draws["t0"] for variant in variants}):
            members = [variant for variant in variants if variant.draws["t0"] == level]
            yield from _interpolated_at(level, config, members, dataset, prior, fitted)


def _interpolated_at(
    level: float, config: DiffII, members: Sequence[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    finish = Finish(config, dataset.class_names)
    by_digest = {sample.digest: sample for sample in dataset.train}
    ends = list(dict.fromkeys(digest for v in members for digest in (v.source.digest, v.draws["partner"])))
    inverted = inversions(config, prior, [by_digest[digest] for digest in ends], dataset, fitted, level)
    names = [dataset.class_names[variant.source.class_index] for variant in members]
    plain = [{key: value for key, value in v.draws.items() if key != "prompt"} for v in members]
    prompts, tokens = config.prompts(names, prior, fitted, plain)
    sentences, _ = config.prompts(names, prior, fitted, [variant.draws for variant in members])
    features = embed_distinct(prior, [*prompts, *sentences], tokens, config.batch_size)
    uncond = prior.embed([config.negative_prompt]) if config.guidance != 1 else None

    def prepare(rows: slice) -> Tensor:
        """Where the images of a batch begin, [b, 4, h, w]."""
        batch = members[rows]
        first = torch.stack([inverted[variant.source.digest] for variant in batch])
        second = torch.stack([inverted[variant.draws["partner"]] for variant in batch])
        return on_circle(
            first, second, torch.tensor([variant.draws["angle"] for variant in batch], dtype=torch.float64)
        )

    def launch(rows: slice, begins: Tensor) -> tuple[slice, Moving]:
        z = denoise(
            config,
            prior,
            begins.to(prior.device),
            torch.stack([features[text] for text in sentences[rows]]),
            torch.stack([features[text] for text in prompts[rows]]),
            uncond,
            level,
        )
        return rows, Moving(to_bytes(prior.decode(z)))

    for rows, moving in overlapped(_slices(len(members), config.batch_size), prepare, launch, prior.device):
        batch = members[rows]
        for variant, text, values in zip(batch, sentences[rows], moving.wait().numpy(), strict=True):
            picture = Image.fromarray(values)
            about = {
                "prompt": text,
                "partner": by_digest[variant.draws["partner"]].id,
                "prior": prior.weights,
                "dtype": str(prior.unet.dtype).removeprefix("torch."),
                "batch_size": len(batch),
            }
            yield finish.image(variant, picture, np.ones(picture.size[::-1], dtype=bool), about)


@torch.no_grad()
def inversions(
    config: DiffII, prior: Prior, samples: Sequence[Sample], dataset: Dataset, fitted: Path | None, level: float
) -> dict[str, Tensor]:
    """Of each image (by digest), the latent float32 [4, h, w] at ``level`` to which DDIM leads from it; on the CPU.

    The network sees each step's later timestep, as diffusers' ``DDIMInverseScheduler`` has it.
    """
    schedule = DDIMInverseScheduler(
        num_train_timesteps=len(prior.betas),
        trained_betas=prior.betas.tolist(),
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    schedule.set_timesteps(config.inversion_steps)
    timesteps = schedule.timesteps[: steps_taken(config.inversion_steps, level)].tolist()
    names = [dataset.class_names[sample.class_index] for sample in samples]
    prompts, tokens = config.prompts(names, prior, fitted)
    features = embed_distinct(prior, prompts, tokens, config.batch_size)

    def prepare(rows: slice) -> Tensor:
        size, filtering = prior.image_size, Image.Resampling.LANCZOS
        return torch.stack([to_tensor(sample.open(), size, config.resize, filtering) for sample in samples[rows]])

    def launch(rows: slice, pictures: Tensor) -> tuple[slice, Moving]:
        cond = torch.stack([features[text] for text in prompts[rows]])
        z = prior.encode(pictures)
        with prior.sampling(config.batch_size):
            for t in timesteps:
                z = schedule.step(prior.predict_noise(z, t, cond), t, z, return_dict=False)[0]
        return rows, Moving(z)

    found: dict[str, Tensor] = {}
    for rows, moving in overlapped(_slices(len(samples), config.batch_size), prepare, launch, prior.device):
        found.update(zip([sample.digest for sample in samples[rows]], moving.wait(), strict=True))
    return found


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def on_circle(first: Tensor, second: Tensor, angles: Tensor) -> Tensor:
    """The points at angles phi [b] from ``first`` [b, ...], away from ``second``, on the circles through both."""
    a, b = first.flatten(1).double(), second.flatten(1).double()
    cosine = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    theta = torch.arccos(cosine.clamp(-1, 1))
    sine = torch.sin(theta)
    phi = torch.where(sine < PARALLEL, torch.zeros_like(angles), angles)
    weights = torch.sin(theta + phi) / sine.clamp(min=PARALLEL), -torch.sin(phi) / sine.clamp(min=PARALLEL)
    z = torch.where((sine < PARALLEL)[:, None], a, weights[0][:, None] * a + weights[1][:, None] * b)
    return z.view_as(first).to(first)


@torch.no_grad()
def denoise(
    config: DiffII,
    prior: Prior,
    z: Tensor,
    sentences_bld: Tensor,
    prompts_bld: Tensor,
    uncond_1ld: Tensor | None,
    level: float,
) -> Tensor:
    """Clean latents: DDIM from ``level``, under ``sentences_bld`` at timesteps from 1000 (1 - s) on, then ``prompts_bld``."""
    schedule = make_scheduler("ddim", prior.betas)
    schedule.set_timesteps(config.num_steps)
    change = len(prior.betas) * (1 - config.first_stage)
    with prior.sampling(config.batch_size):
        for t in schedule.timesteps[config.num_steps - steps_taken(config.num_steps, level) :].tolist():
            cond = sentences_bld if t >= change else prompts_bld
            eps_hat = prior.predict_noise(z, t, cond, uncond_1ld, config.guidance)
            z = schedule.step(eps_hat, t, z, return_dict=False)[0]
    return z
