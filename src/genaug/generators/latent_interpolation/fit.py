"""Fitting the latent space of ``latent_interpolation``: networks from its configuration, training, diagnostics, picture."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genaug.core.console import console
from genaug.core.files import write_json
from genaug.core.seeding import derive
from genaug.data.sample import Dataset, Sample
from genaug.generators.latent_interpolation.config import LatentInterpolation
from genaug.generators.latent_interpolation.diagnostics import describe_codes, describe_midpoints, draw_codes, has_holes
from genaug.generators.latent_interpolation.networks import (
    AdversarialAutoencoder,
    Critic,
    Decoder,
    Encoder,
    LatentDiscriminator,
)
from genaug.generators.latent_interpolation.training import (
    Batches,
    fit_autoencoder,
    load_weights,
    square_pixels,
    to_unit,
)

HISTOGRAM_BINS = 20
MAX_DIAGNOSED = 1_000  # fitted, and as many validation images for the diagnostics
FIRST_STEPS = 200


def build_autoencoder(config: LatentInterpolation) -> AdversarialAutoencoder:
    """Networks initialised from ``training.seed``, and their losses."""
    networks, training, size = config.networks, config.training, config.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(training.seed, "init"))
        code_range = networks.prior_range if networks.code == "tanh" else None
        encoder = Encoder(size, networks.z_dim, networks.channels, code_range, networks.leak)
        decoder = Decoder(size, networks.z_dim, networks.decoder_channels, networks.leak, networks.output)
        discriminator = LatentDiscriminator(networks.z_dim, networks.disc_widths, networks.disc_norm)
        critic = Critic(size, networks.z_dim, networks.channels) if training.critic == "acai" else None
        if networks.init == "kaiming":
            for network in (encoder, decoder, critic):
                if network is not None:
                    network.apply(_kaiming)
    return AdversarialAutoencoder(
        encoder=encoder,
        decoder=decoder,
        discriminator=discriminator,
        critic=critic,
        networks=networks,
        training=training,
        log_every=max(training.num_steps // 200, 1),
    )


def _kaiming(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def fit_latent_space(config: LatentInterpolation, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
    """Train on ``config.learns_from(dataset)``, write weights and diagnostics; returns the record's facts."""
    samples = config.learns_from(dataset)
    batches = Batches(
        samples,
        config.image_size,
        config.training.batch_size,
        config.training.seed,
        config.training.max_shift,
        config.training.flip_prob,
    )
    aae = _fitted(config, batches, folder, device)
    diagnostics, z, classes = diagnose(config, aae, samples, dataset.val, device)
    holes = has_holes(diagnostics)
    write_json(folder / "hole.json", {**diagnostics, "holes": holes, "histogram": _histogram(z)})
    write_json(folder / "losses.json", aae.history)
    if config.networks.z_dim == 2:
        panels = [(f"with discriminator ($\\lambda$ = {config.training.lambda_adv:g})", z, classes)]
        if config.training.figure:
            twin_folder = folder / "twin"
            twin_folder.mkdir(exist_ok=True)
            plain = replace(config, training=replace(config.training, lambda_adv=0.0))
            twin = _fitted(plain, batches, twin_folder, device)
            panels.insert(
                0, ("without discriminator", diagnose(config, twin, samples, dataset.val, device)[1], classes)
            )
            shutil.rmtree(twin_folder)
        draw_codes(panels, folder / "codes.png")
    console.print(report(diagnostics, holes), markup=False)
    return {
        "num_steps": config.training.num_steps,
        "num_images": len(samples),
        "losses": aae.history[-1],
        "holes": holes,
        "diagnostics": {f"hole/{key}": round(value, 6) for key, value in diagnostics.items()}
        | {"hole/holes": int(holes)},
    }


def _fitted(config: LatentInterpolation, batches: Batches, folder: Path, device: str) -> AdversarialAutoencoder:
    aae = build_autoencoder(config)
    epoch = math.ceil(len(batches.samples) / config.training.batch_size)
    # codes that saturate early on often come back, so neither the first steps nor a very short run tell
    aae.check_collapse_after = max(epoch, config.training.num_steps // 2, FIRST_STEPS)
    # networks of either memory layout compute the same; this one is faster for few channels and on tensor cores
    aae = aae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit_autoencoder(
        aae,
        batches,
        config.training.num_steps,
        folder,
        checkpoint_every=config.training.checkpoint_every,
        device=device,
        num_workers=config.training.num_workers,
        say=lambda text: console.print(text, markup=False),
    )
    load_weights(aae, folder)
    return aae


def diagnose(
    config: LatentInterpolation,
    aae: AdversarialAutoencoder,
    samples: Sequence[Sample],
    unseen: Sequence[Sample],
    device: str,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Diagnostics on fitted and unseen images, and their codes [n, z] in units of the prior; classes (-1: no label) colour the
    figure alone."""
    aae.to(device)
    train, val = (part[:: -(-len(part) // MAX_DIAGNOSED)] if part else part for part in (samples, unseen))
    if len(val) < 2:  # no validation split: every other fitted image is asked about
        train, val = train[::2], train[1::2] if len(train) > 3 else train
    queries, references = (
        2 * to_unit(torch.stack([square_pixels(s, config.image_size) for s in samples])) - 1 for samples in (val, train)
    )

    @torch.no_grad()
    def through(network: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([network(part.to(device)).cpu() for part in x.split(config.batch_size)])

    z = torch.cat([through(aae.encoder, references), through(aae.encoder, queries)]) / config.networks.prior_range
    if config.networks.prior == "gaussian":
        z = torch.erf(z / math.sqrt(2))  # 2 Phi(z) - 1: uniform on [-1, 1] if the codes are normal
    classes = np.array([sample.class_index if sample.label else -1 for sample in (*train, *val)])
    midpoints = describe_midpoints(
        lambda x: through(aae.encoder, x), lambda code: through(aae.decoder, code), queries, references
    )
    return describe_codes(z.double().numpy()) | midpoints, z.numpy(), classes


def _histogram(z: np.ndarray) -> list[float]:
    counts, _ = np.histogram(z.clip(-1, 1), bins=HISTOGRAM_BINS, range=(-1, 1))
    return [round(float(count / z.size), 5) for count in counts]


def report(diagnostics: dict[str, float], holes: bool) -> str:
    """The diagnostics in two lines."""
    d = diagnostics
    return (
        f"latent space {'with' if holes else 'without'} holes: KS max {d['ks_max']:.3f} (chance {d['ks_bound']:.3f}), "
        f"std {d['std']:.3f} (.577), correlation {d['correlation_max']:.2f}, "
        f"empty cells {d['empty_cells']:.3f} (expected {d['empty_cells_expected']:.3f})\n"
        f"reconstruction PSNR {d['psnr']:.1f} dB, of fitted images {d['psnr_fitted']:.1f}, midpoint gap {d['gap']:.3f} "
        f"(pixel midpoints {d['gap_pixel']:.3f}), midpoints inside the shell {d['midpoint_shell']:.0%}"
    )
