"""PSLD from variants to finished images: sample each frame's hole, paste back, let a detector look, decide."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genaug.core.seeding import derive
from genaug.data.sample import Dataset
from genaug.generators.base import Generated, Variant
from genaug.generators.labelling.decisions import Verdict, audit_rows, decide, paste, paste_weights
from genaug.generators.psld.config import Psld
from genaug.generators.psld.frames import Frame, fill_hole, image_tensor, make_frame, mask_tensor
from genaug.generators.psld.ladder import Row
from genaug.generators.psld.masks import SPECKLED
from genaug.generators.psld.operators import Inpainting, make_operator
from genaug.generators.psld.solver import solve
from genaug.generators.sdedit.sampler import embed_distinct, to_bytes
from genaug.priors.model import Prior
from genaug.priors.noise import draw_noise
from genaug.priors.overlap import Moving, overlapped


def inpaint(
    config: Psld, variants: list[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    """The image of every variant; those that must not be trained on say why."""
    look = None
    if config.audits and fitted is not None and dataset.task == "detection":
        look = config.auditor.eye(len(dataset.class_names), fitted, prior.device)
    labels = config.labels if config.label_policy == "guarded" else None
    wanted = []
    for variant in variants:
        frame = make_frame(config, variant, prior.image_size, prior.frame_multiple)
        if frame.rejected is None:
            wanted.append(frame)
        else:
            verdict = Verdict(frame.source, frame.boxes, frame.rejected)
            yield _generated(frame, verdict, {})
    for frame, pixels, about in sample_frames(config, wanted, prior):
        inside, paste_back = pasted_region(config, frame)
        weights = paste_weights(frame.mask, inside, paste_back, frame.kept, config.masking.margin)
        found = None
        if look is not None and frame.boxes is not None:
            found = look(frame.variant.fingerprint, paste(pixels, frame.source, weights))
            about["audit"] = audit_rows(found, dataset.class_names)
        verdict = decide(
            pixels, frame.source, frame.mask, weights, frame.boxes, found, labels, config.audit, config.masking.margin
        )
        yield _generated(frame, verdict, about)


def pasted_region(config: Psld, frame: Frame) -> tuple[np.ndarray, str]:
    """Where known pixels may be put back (bool [h, w]), and how.

    A solid mask's known part goes back as it is. Scattered known pixels in a slightly different surround would be speckle:
    of those, only the boxes go back, which ``random_entirepainting`` and ``random`` do not keep.
    """
    everywhere = np.ones_like(frame.inside)
    if frame.mask_type not in SPECKLED or config.labels.paste_region == "known":
        return everywhere, config.labels.paste_back
    if frame.mask_type == "random_outpainting":
        return frame.inside, config.labels.paste_back
    return everywhere, "none"


def _generated(frame: Frame, verdict: Verdict, about: dict[str, Any]) -> Generated:
    return Generated(
        variant=frame.variant,
        image=Image.fromarray(verdict.pixels),
        boxes=verdict.boxes,
        about={
            "mask": frame.mask_type,
            "mask_seed": frame.mask_seed,
            "known": round(float(frame.mask.mean()), 4),
            **about,
            **verdict.about,
        },
        rejected=verdict.rejected,
    )


Given = tuple[Tensor, Tensor, Tensor | None]
"""Of a batch, on the CPU: images [b, 3, h, w] in [-1, 1], what is known of them [b, 1, h, w], and the images with their
holes filled; None where sampling starts from noise alone."""

Sampled = tuple[Sequence[Frame], Tensor, Moving, Moving]
"""A batch, its images, the new ones [b, 3, h, w] in [-1, 1], and of each the number of steps that the clamp acted at."""


class Networks:
    """The prior as the solver's callables, with gradients, and its noise per image."""

    def __init__(self, prior: Prior, cond_bld: Tensor, guidance: float):
        self.prior = prior
        self.cond = cond_bld
        self.uncond = prior.embed([""]) if guidance != 1 else None
        self.guidance = guidance

    def eps(self, z: Tensor, t: int) -> Tensor:
        return self.prior.predict_noise(z, t, self.cond, self.uncond, self.guidance)

    def decode(self, z: Tensor) -> Tensor:
        vae = self.prior.vae
        return vae.decode((z / self.prior.scaling_factor).to(vae.dtype)).sample.float()

    def encode(self, x: Tensor, noise: Tensor | None) -> Tensor:
        posterior = self.prior.vae.encode(x.to(self.prior.vae.dtype)).latent_dist
        z = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.std)
        return z.float() * self.prior.scaling_factor


def sample_frames(
    config: Psld, frames: Sequence[Frame], prior: Prior
) -> Iterator[tuple[Frame, np.ndarray, dict[str, Any]]]:
    """The picture of each frame before pasting: uint8 [h, w, 3] without padding, and columns for the manifest."""
    prompts = {frame.variant.fingerprint: frame.variant.draws.get("prompt", config.prompt) for frame in frames}
    features = embed_distinct(prior, list(prompts.values()), None, config.batch_size)
    rows = config.rows(prior.alphas_cumprod.tolist())
    groups: dict[tuple[int, int], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.geometry.frame_width, frame.geometry.frame_height), []).append(frame)
    size = 1 if config.solver.norm_over_batch else config.batch_size
    batches = [members[start : start + size] for members in groups.values() for start in range(0, len(members), size)]
    copies = config.solver.joint_copies if config.solver.norm_over_batch else 1

    def prepare(batch: Sequence[Frame]) -> Given:
        images = torch.stack([image_tensor(frame.source, frame.geometry) for frame in batch]).repeat(copies, 1, 1, 1)
        known = torch.stack([mask_tensor(frame) for frame in batch]).repeat(copies, 1, 1, 1)
        if config.t0 == 1:
            return images, known, None
        pairs = zip(images, known, strict=True)
        return images, known, torch.stack([fill_hole(image, mask, config.solver.fill) for image, mask in pairs])

    def launch(batch: Sequence[Frame], given: Given) -> Sampled:
        cond = torch.stack([features[prompts[frame.variant.fingerprint]] for frame in batch])
        networks = Networks(prior, cond.repeat(copies, 1, 1), config.guidance)
        return _sampled(config, batch, given, rows, networks, copies)

    if config.checkpointing:
        prior.unet.enable_gradient_checkpointing()
        prior.vae.enable_gradient_checkpointing()
    try:
        for sampled in overlapped(batches, prepare, launch, prior.device):
            yield from _finished(config, prior, *sampled)
    finally:
        if config.checkpointing:
            prior.unet.disable_gradient_checkpointing()
            prior.vae.disable_gradient_checkpointing()


def _sampled(
    config: Psld, frames: Sequence[Frame], given: Given, rows: Sequence[Row], networks: Networks, copies: int
) -> Sampled:
    images, known, filled = given
    prior = networks.prior
    device = prior.device
    identities = [frame.variant.fingerprint for frame in frames]
    companions = [f"{identity} companion {i}" for i in range(1, copies) for identity in identities]

    def noise(purpose: str, step: int, shape: Sequence[int]) -> Tensor:
        return draw_noise([derive(identity, purpose, step) for identity in (*identities, *companions)], shape)

    operator = make_operator(config.measurement, known.to(device))
    y = operator.apply(images.to(device))
    if config.measurement.sigma_y > 0:
        y = y + config.measurement.sigma_y * noise("measurement", 0, y.shape[1:]).to(device)
        if not config.measurement.noise_everywhere and isinstance(operator, Inpainting):
            y = operator.apply(y)
    latent = (prior.unet.config.in_channels, *(side // prior.vae_factor for side in images.shape[2:]))
    z = noise("start", 0, latent).to(device)
    if filled is not None:
        with torch.no_grad():
            clean = networks.encode(filled.to(device), None)
        z = rows[0].a ** 0.5 * clean + (1 - rows[0].a) ** 0.5 * z
    names = [frame.variant.source.id for frame in frames] * copies
    with prior.sampling(copies if config.solver.norm_over_batch else config.batch_size):
        solution = solve(
            z, rows, y, operator, config.solver, networks.eps, networks.decode, networks.encode, noise, names
        )
    with torch.no_grad():
        return frames, images, Moving(networks.decode(solution.z).clamp(-1, 1)), Moving(solution.clamped_steps)


def _finished(
    config: Psld, prior: Prior, frames: Sequence[Frame], images: Tensor, moving: Moving, clamped_steps: Moving
) -> Iterator[tuple[Frame, np.ndarray, dict[str, Any]]]:
    decoded, clamped = moving.wait(), clamped_steps.wait()
    pictures = to_bytes(decoded).numpy()
    error = (decoded - images).square().mean(1)
    for i, frame in enumerate(frames):
        region = torch.from_numpy(frame.geometry.into_frame(frame.mask)) > 0.5
        squared = float(error[i][region].mean()) if region.any() else float("nan")
        about = {
            "psnr_known": round(10 * math.log10(4 / max(squared, 1e-10)), 3) if region.any() else None,
            "clamped_steps": int(clamped[i]),
            "prior": prior.weights,
            "dtype": str(prior.unet.dtype).removeprefix("torch."),
            "batch_size": len(frames),
        }
        pixels = frame.geometry.crop(pictures[i])
        if config.frame.color == "grey":
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
        yield frame, pixels, about
