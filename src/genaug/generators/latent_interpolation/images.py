"""The images of ``latent_interpolation``: what is mixed and decoded, for a pool and inside training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from genaug.data.sample import Dataset
from genaug.generators.base import Generated, Variant
from genaug.generators.latent_interpolation.config import LatentInterpolation
from genaug.generators.latent_interpolation.fit import build_autoencoder
from genaug.generators.latent_interpolation.mixing import Interpolation, mix_labels
from genaug.generators.latent_interpolation.training import load_weights, square_pixels, to_unit
from genaug.priors.model import Prior
from genaug.priors.overlap import Moving, overlapped


def interpolated_images(
    config: LatentInterpolation,
    variants: Sequence[Variant],
    dataset: Dataset,
    prior: Prior | None,
    fitted: Path | None,
    device: str,
) -> Iterator[Generated]:
    """The image of every variant, with its drawn partner and lambda."""
    pairs = interpolation(config, fitted, prior, device)
    by_id = {sample.id: sample for sample in dataset.train}

    def prepare(batch: Sequence[Variant]) -> Tensor:
        ends = [*(variant.source for variant in batch), *(by_id[variant.draws["partner_id"]] for variant in batch)]
        return to_unit(torch.stack([square_pixels(sample, config.image_size) for sample in ends]))

    def launch(batch: Sequence[Variant], pixels: Tensor) -> tuple[Sequence[Variant], Moving]:
        lam = torch.tensor([variant.draws["lam"] for variant in batch], dtype=torch.float64)
        with torch.no_grad():
            codes = pairs.encode(pixels.to(device))
            images = pairs.combine(codes[: len(batch)], codes[len(batch) :], lam.to(codes))
        return batch, Moving(images.clamp(0, 1).float())

    batches = [variants[start : start + config.batch_size] for start in range(0, len(variants), config.batch_size)]
    for batch, moving in overlapped(batches, prepare, launch, device):
        for variant, image in zip(batch, moving.wait(), strict=True):
            partner = by_id[variant.draws["partner_id"]]
            yield Generated(
                variant=variant,
                image=to_pil_image((image * 255).round().to(torch.uint8)),
                label=mix_labels(variant.source.label, partner.label, variant.draws["lam"]),
                about={"fitted": fitted.name if fitted is not None else None},
            )


def interpolation(config: LatentInterpolation, fitted: Path | None, prior: Prior | None, device: str) -> Interpolation:
    """What mixes two images on ``device``; its networks are frozen."""
    encode, decode = _space(config, fitted, prior, device)
    return Interpolation(
        encode=encode,
        decode=decode,
        mixing=config.mixing,
        seed=config.seed,
        image_size=config.image_size,
        code_range=config.networks.prior_range if config.interp == "cdf" else None,
    )


def _space(config: LatentInterpolation, fitted: Path | None, prior: Prior | None, device: str) -> tuple[Any, Any]:
    """Encoder and decoder between images in [0, 1] and what is mixed; frozen."""

    def same(x: Tensor) -> Tensor:
        return x

    if config.space == "pixel":
        return same, same
    if config.space == "prior_vae":
        assert prior is not None
        return lambda x: prior.encode(2 * x - 1), lambda z: (prior.decode(z) + 1) / 2
    assert fitted is not None
    aae = build_autoencoder(config).to(device)
    load_weights(aae, fitted)

    def encode(x: Tensor) -> Tensor:
        return aae.encoder(2 * x - 1)

    def decode(z: Tensor) -> Tensor:
        return (aae.decoder(z) + 1) / 2

    return (encode, decode) if config.space == "latent" else (lambda x: decode(encode(x)), same)
