"""From variants to inpainted pictures: frames, masks, the prior's networks as callables, and batches for the solver."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from genaug.core.seeding import derive
from genaug.data.geometry import Letterbox, bucket
from genaug.data.sample import Boxes, Sample
from genaug.generators.base import Variant
from genaug.generators.psld import masks
from genaug.generators.psld.operators import Inpainting, Operator, SuperResolution, gaussian_blur, motion_blur
from genaug.generators.psld.solver import Noise, Row, solve
from genaug.priors.model import Prior

if TYPE_CHECKING:
    from genaug.generators.psld.config import Psld


@dataclass(slots=True, eq=False)
class Frame:
    """One variant, ready to be sampled."""

    variant: Variant
    geometry: Letterbox
    source: np.ndarray
    """uint8 [h, w, 3]: the scaled source without padding."""
    boxes: Boxes | None
    """In pixels of ``source``."""
    inside: np.ndarray
    """K, bool [h, w]."""
    kept: np.ndarray
    """The boxes themselves, bool [h, w]."""
    mask: np.ndarray
    """M, float32 [h, w], 1 = known."""
    mask_type: str
    mask_seed: int
    rejected: str | None
    """Why there is nothing to sample."""


def make_frame(config: "Psld", variant: Variant, size: int, multiple: int) -> Frame:
    """Scale the source into its frame and draw its mask.

    Args:
        size: the prior's image size in pixels.
        multiple: what frame sides must be multiples of.
    """
    picture = variant.source.open()
    if config.resize == "square":
        picture = picture.resize((size, size), Image.Resampling.NEAREST)
        scale = np.asarray([size / n for n in variant.source.open().size] * 2)
    else:
        scale = np.ones(4)
    frame_size = bucket(*picture.size, size, multiple) if config.resize == "bucket" else (size, size)
    geometry = Letterbox(*picture.size, *frame_size)
    source = np.asarray(geometry.scale_image(picture))
    if config.minmax_stretch:
        low, high = int(source.min()), int(source.max())
        source = ((source.astype(np.float64) - low) / max(high - low, 1) * 255).round().astype(np.uint8)
    boxes = _scaled_boxes(variant.source, geometry, scale)
    height, width = source.shape[:2]
    of_source = variant.fingerprint if config.mask_per_copy else f"{variant.source.digest} {config.seed}"
    seed = derive(of_source, "mask")
    pixel_boxes = (
        []
        if boxes is None
        else [masks.grow(box, width, height, config.margin, config.reference_edge) for box in boxes.xyxy]
    )
    kept = masks.union(
        [] if boxes is None else [masks.grow(box, width, height, 0) for box in boxes.xyxy], width, height
    )
    inside = masks.union(pixel_boxes, width, height)
    mask_type = config.mask
    rejected = None
    if (
        mask_type in masks.BOX_AWARE
        and not inside.any()
        and not (mask_type == "keep_object" and variant.source.mask is not None)
    ):
        if config.without_boxes == "reject":
            rejected = "no_boxes"
        mask_type = "center_box" if config.without_boxes == "reject" else config.without_boxes
    mask = draw_mask(config, mask_type, variant.source, inside, pixel_boxes, geometry, np.random.default_rng(seed))
    if mask_type == "keep_object":
        inside = inside | (mask > 0.5)
    if rejected is None and float((mask < 0.5).mean()) < config.min_editable:
        rejected = "no_editable_area"
    return Frame(variant, geometry, source, boxes, inside, kept, mask, mask_type, seed, rejected)


def _scaled_boxes(sample: Sample, geometry: Letterbox, scale: np.ndarray) -> Boxes | None:
    if sample.boxes is None:
        return None
    xyxy = geometry.scale_boxes(sample.boxes.xyxy * scale).astype(np.float32)
    return Boxes(xyxy=xyxy, labels=sample.boxes.labels, crowd=sample.boxes.crowd)


def draw_mask(
    config: "Psld",
    mask_type: str,
    sample: Sample,
    inside: np.ndarray,
    boxes: Sequence[masks.PixelBox],
    geometry: Letterbox,
    rng: np.random.Generator,
) -> np.ndarray:
    """M of one image: float32 [h, w]."""
    height, width = inside.shape
    if mask_type == "outpainting":
        return masks.outpainting(inside)
    if mask_type == "random_outpainting":
        return masks.random_outpainting(inside, rng, config.mu, config.sigma)
    if mask_type == "random_entirepainting":
        return masks.random_entirepainting(inside, rng, config.mu, config.sigma)
    if mask_type == "random_erasing_ore":
        return masks.random_erasing_ore(boxes, width, height, rng, (config.erase_range[0], config.erase_range[1]))
    if mask_type == "keep_object":
        return masks.outpainting(_object(sample, geometry, config.margin) if sample.mask is not None else inside)
    if mask_type == "box":
        return masks.box(width, height, rng, config.hole_share)
    if mask_type == "extreme":
        return masks.extreme(width, height, rng, config.hole_share)
    if mask_type == "center_box":
        return masks.center_box(width, height, config.hole_share)
    if mask_type == "random":
        return masks.random(width, height, rng, config.random_range[0], config.random_range[1])
    return masks.free_form(width, height, rng)


def _object(sample: Sample, geometry: Letterbox, margin: int) -> np.ndarray:
    """The object's pixels and ``margin`` around them in the scaled image: bool [h, w]."""
    pixels = sample.read_mask()
    assert pixels is not None
    picture = Image.fromarray(pixels.astype(np.uint8))
    small = np.asarray(picture.resize(geometry.inner, Image.Resampling.NEAREST)) > 0
    away = distance_transform_edt(~small)
    assert isinstance(away, np.ndarray)
    return away <= margin if small.any() else small


class Networks:
    """The prior as the solver's callables, with gradients, and its noise per image."""

    def __init__(self, prior: Prior, prompt: str, guidance: float):
        self.prior = prior
        self.cond = prior.embed([prompt])
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


def noise_of(fingerprints: Sequence[str]) -> Noise:
    """Standard normal noise of each image from its own identity, drawn on the CPU."""

    def draw(purpose: str, step: int, shape: Sequence[int]) -> Tensor:
        parts = []
        for identity in fingerprints:
            generator = torch.Generator().manual_seed(derive(identity, purpose, step))
            parts.append(torch.randn(tuple(shape), generator=generator))
        return torch.stack(parts)

    return draw


def make_operator(config: "Psld", mask: Tensor) -> Operator:
    """A of the task; ``mask`` is M [b, 1, h, w]."""
    height, width = mask.shape[-2:]
    if config.operator == "super_resolution":
        return SuperResolution(height, width, config.factor, dtype=mask.dtype, device=mask.device)
    if config.operator == "gaussian_blur":
        return gaussian_blur(config.blur_sigma, heuristic_gluing=config.heuristic_gluing)
    if config.operator == "motion_blur":
        return motion_blur(config.blur_length, config.blur_angle, config.heuristic_gluing)
    return Inpainting(mask)


def sample_frames(
    config: "Psld", frames: Sequence[Frame], prior: Prior, progress: Callable[[Row], None] | None = None
) -> Iterator[tuple[Frame, np.ndarray, dict[str, Any]]]:
    """The picture of each frame before pasting: uint8 [h, w, 3] without padding, and columns for the manifest."""
    networks = Networks(prior, config.prompt, config.guidance)
    rows = config.rows(prior.alphas_cumprod.tolist())
    groups: dict[tuple[int, int], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.geometry.frame_width, frame.geometry.frame_height), []).append(frame)
    size = 1 if config.norm_over_batch else config.batch_size
    if config.checkpointing:
        prior.unet.enable_gradient_checkpointing()
        prior.vae.enable_gradient_checkpointing()
    try:
        for members in groups.values():
            for start in range(0, len(members), size):
                yield from _sample_batch(config, members[start : start + size], rows, networks)
    finally:
        if config.checkpointing:
            prior.unet.disable_gradient_checkpointing()
            prior.vae.disable_gradient_checkpointing()


def _sample_batch(
    config: "Psld", frames: Sequence[Frame], rows: Sequence[Row], networks: Networks
) -> Iterator[tuple[Frame, np.ndarray, dict[str, Any]]]:
    prior = networks.prior
    device = prior.device
    identities = [frame.variant.fingerprint for frame in frames]
    copies = config.joint_copies if config.norm_over_batch else 1
    companions = [f"{identity} companion {i}" for i in range(1, copies) for identity in identities]
    noise = noise_of([*identities, *companions])
    images = torch.stack([_to_frame(frame.source, frame.geometry) for frame in frames]).repeat(copies, 1, 1, 1)
    known = torch.stack([_mask_frame(frame) for frame in frames]).repeat(copies, 1, 1, 1)
    operator = make_operator(config, known.to(device))
    y = operator.apply(images.to(device))
    if config.sigma_y > 0:
        y = y + config.sigma_y * noise("measurement", 0, y.shape[1:]).to(device)
        if not config.noise_everywhere and isinstance(operator, Inpainting):
            y = operator.apply(y)
    factor = 2 ** (len(prior.vae.config.block_out_channels) - 1)
    latent = (prior.unet.config.in_channels, images.shape[2] // factor, images.shape[3] // factor)
    z = noise("start", 0, latent).to(device)
    if config.init == "warm":
        filled = torch.stack([_fill(image, mask, config.init_fill) for image, mask in zip(images, known, strict=True)])
        with torch.no_grad():
            clean = networks.encode(filled.to(device), None)
        z = rows[0].a ** 0.5 * clean + (1 - rows[0].a) ** 0.5 * z
    names = [frame.variant.source.id for frame in frames] * copies
    solution = solve(z, rows, y, operator, config.rule(), networks.eps, networks.decode, networks.encode, noise, names)
    with torch.no_grad():
        decoded = networks.decode(solution.z).clamp(-1, 1).cpu()
    pictures = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    error = (decoded - images).square().mean(1)
    for i, frame in enumerate(frames):
        region = torch.from_numpy(frame.geometry.into_frame(frame.mask)) > 0.5
        squared = float(error[i][region].mean()) if region.any() else float("nan")
        about = {
            "psnr_known": round(10 * math.log10(4 / max(squared, 1e-10)), 3) if region.any() else None,
            "clamped_steps": int(solution.clamped_steps[i]),
            "prior": prior.weights,
            "dtype": str(prior.unet.dtype).removeprefix("torch."),
            "batch_size": len(frames),
        }
        pixels = frame.geometry.crop(pictures[i])
        if config.color == "grey":
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
        yield frame, pixels, about


def _to_frame(pixels: np.ndarray, geometry: Letterbox) -> Tensor:
    """float32 [3, H, W] in [-1, 1]; padding is mid-grey."""
    values = pixels.astype(np.float32) / 127.5 - 1
    return torch.from_numpy(geometry.into_frame(values)).permute(2, 0, 1)


def _mask_frame(frame: Frame) -> Tensor:
    """float32 [1, H, W]; padding counts as known."""
    return torch.from_numpy(frame.geometry.into_frame(frame.mask, fill=1.0))[None]


def _fill(image: Tensor, mask: Tensor, how: str) -> Tensor:
    """The hole filled with the mean of the known pixels, or with the nearest one."""
    known = mask[0] > 0.5
    if not known.any():
        return torch.zeros_like(image)
    if how == "mean":
        return torch.where(known, image, image[:, known].mean(1)[:, None, None])
    _, places = distance_transform_edt(~known.numpy(), return_indices=True)  # type: ignore[misc]
    return image[:, torch.from_numpy(places[0]).long(), torch.from_numpy(places[1]).long()]
