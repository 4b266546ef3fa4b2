"""DreamDA's images in batches: sources are inverted together, then their variants run together, whatever their source.

Every noise comes from a seed of its own, drawn on the CPU in float32: that of a source from the generator's seed and the
source's content, that of a variant from the variant's identity. So batch size, order and resumption change nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from genaug.core.seeding import derive
from genaug.generators.base import Generated, Variant
from genaug.generators.dreamda.bottleneck import hooked
from genaug.generators.dreamda.config import DreamDA
from genaug.generators.dreamda.process import (
    Guided,
    Inversion,
    Perturb,
    Perturbation,
    Step,
    invert_cycle,
    invert_ddim,
    invert_edit_friendly,
    make_steps,
    no_inversion,
    reverse,
)
from genaug.generators.sdedit.sampler import embed_distinct, to_bytes, to_tensor
from genaug.priors.model import Prior
from genaug.priors.noise import draw_noise
from genaug.priors.overlap import Moving, overlapped

ROW_PURPOSES = ("h_u", "h_c")


def perturbed_images(prior: Prior, variants: Sequence[Variant], config: DreamDA) -> Iterator[Generated]:
    """The image of every variant; those of one source follow each other."""
    by_source: dict[str, list[Variant]] = {}
    for variant in variants:
        by_source.setdefault(variant.source.digest, []).append(variant)
    size = config.batch_size
    features = embed_distinct(prior, ["", *(variant.draws["prompt"] for variant in variants)], None, size)
    stages = Stages(prior, config, make_steps(prior.alphas_cumprod, config.num_steps, config.t0, config.eta), features)
    batches = []
    digests = list(by_source)
    for first in range(0, len(digests), size):
        group = digests[first : first + size]
        members = [variant for digest in group for variant in by_source[digest]]
        firsts = [by_source[digest][0] for digest in group]
        batches += [
            Batch(members[start : start + size], firsts if start == 0 else []) for start in range(0, len(members), size)
        ]
    for launched in overlapped(batches, stages.prepare, stages.launch, prior.device):
        yield from stages.finished(*launched)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that run together."""

    variants: list[Variant]
    firsts: list[Variant]
    """One variant of each source of this batch and of those up to the next that has firsts."""


class Stages:
    """The stages of one pool's images on one prior."""

    def __init__(self, prior: Prior, config: DreamDA, steps: list[Step], features: dict[str, Tensor]):
        self.prior, self.config, self.steps, self.features = prior, config, steps, features
        self.null = features[""][None]
        self.latents: dict[str, Tensor] = {}
        """Of the sources of the batch last launched, by digest."""
        self.shared: Inversion | None = None
        """Of the same sources, in the same order, where their variants share it."""

    def prepare(self, batch: Batch) -> Tensor | None:
        """The sources [s, 3, h, w] that this batch is the first to need."""
        sources = [variant.source for variant in batch.firsts]
        size, resize = self.prior.image_size, self.config.resize
        return torch.stack([to_tensor(source.open(), size, resize) for source in sources]) if sources else None

    def launch(self, batch: Batch, images: Tensor | None) -> tuple[Batch, Moving, Moving, Moving | None]:
        """The batch, its pictures, and of each image the change of its latent and std(h)."""
        if images is not None:
            digests = [variant.source.digest for variant in batch.firsts]
            self.latents = dict(zip(digests, self.encode(digests, images), strict=True))
            self.shared = self.invert(batch.firsts) if self.config.source_codes == "shared" else None
        if self.shared is None:
            return batch, *self.sample(batch.variants, self.invert(batch.variants))
        order = list(self.latents)
        rows = [order.index(variant.source.digest) for variant in batch.variants]
        return batch, *self.sample(batch.variants, self.shared.rows(rows))

    def predict(self, z: Tensor, t: int, cond: Tensor, perturb: Perturb | None) -> Tensor:
        """One network call, its bottleneck changed by a hook that is gone afterwards."""
        if perturb is None:
            return self.prior.predict_noise(z, t, cond)
        with hooked(self.prior.unet.mid_block, perturb):
            return self.prior.predict_noise(z, t, cond)

    def guided(self, batch: Sequence[Variant], guidance: float, empty: bool) -> Guided:
        """The noise estimate under the variants' prompts; with an empty prompt both rows have the same condition."""
        prompts = [variant.draws["prompt"] for variant in batch]
        if empty or not all(prompts):
            return Guided(self.predict, self.null, guidance=guidance)
        return Guided(self.predict, self.null, torch.stack([self.features[p] for p in prompts]), guidance)

    @torch.no_grad()
    def encode(self, digests: Sequence[str], images: Tensor) -> Tensor:
        """Latents [s, 4, h, w]: the posterior's mean, or a sample with the source's own noise."""
        mean, std = self.prior.encode_moments(images)
        if self.config.encode == "mean":
            return mean
        noise = draw_noise([derive(self.config.seed, digest, "vae") for digest in digests], mean.shape[1:])
        return mean + std * noise.to(mean)

    @torch.no_grad()
    def invert(self, batch: Sequence[Variant]) -> Inversion:
        """The inversion of each variant's source, with the source's own noise or the variant's (``fresh``)."""
        config = self.config
        x0 = torch.stack([self.latents[variant.source.digest] for variant in batch])

        def draw(per_variant: bool, *purpose: object) -> Tensor:
            names = [(v.fingerprint,) if per_variant else (config.seed, v.source.digest) for v in batch]
            return draw_noise([derive(*name, *purpose) for name in names], x0.shape[1:]).to(x0)

        start = draw(config.start == "per_variant", "x_T")
        source = self.guided(batch, config.source_guidance, empty=config.source_prompt == "empty")
        posterior: Callable[[int], Tensor] = lambda k: draw(config.source_codes == "fresh", "posterior", k)
        if config.inversion == "none":
            return no_inversion(self.steps, x0, start, posterior)
        if config.inversion == "ddim":
            with self.prior.sampling(config.batch_size):
                return invert_ddim(self.steps, x0, source)
        invert = invert_cycle if config.inversion == "cycle" else invert_edit_friendly
        with self.prior.sampling(config.batch_size):
            return invert(self.steps, x0, start, posterior, source)

    @torch.no_grad()
    def sample(self, batch: Sequence[Variant], inversion: Inversion) -> tuple[Moving, Moving, Moving | None]:
        """Run the perturbed reverse process and decode."""
        config, prior = self.config, self.prior
        relative = config.sigma_mode == "relative"
        perturbation = Perturbation(
            sigma=config.sigma * (config.sigma_unit if relative else 1.0),
            noise=lambda k, row, shape: draw_noise(
                [derive(variant.fingerprint, ROW_PURPOSES[row], k) for variant in batch], shape
            ).to(prior.device),
            relative=relative,
            shared_rows=config.noise_rows == "shared",
            asymmetric=config.process == "asymmetric",
            t_edit=config.t_edit,
        )
        with prior.sampling(config.batch_size):
            z = reverse(self.steps, inversion, self.guided(batch, config.guidance, empty=False), perturbation)
        sources = torch.stack([self.latents[variant.source.digest] for variant in batch])
        changes = Moving((z - sources).abs().flatten(1).mean(dim=1))
        spread = Moving(torch.stack(perturbation.std).mean(dim=0)) if perturbation.std else None
        return Moving(to_bytes(prior.decode(z))), changes, spread

    def finished(self, batch: Batch, pictures: Moving, changes: Moving, spread: Moving | None) -> Iterator[Generated]:
        """The images of a batch that was launched."""
        config, prior = self.config, self.prior
        dtype = str(prior.unet.dtype).removeprefix("torch.")
        h_stds = [None] * len(batch.variants) if spread is None else spread.wait().tolist()
        found = zip(batch.variants, pictures.wait().numpy(), changes.wait().tolist(), h_stds, strict=True)
        for variant, values, change, h_std in found:
            about = {
                "process": config.process,
                "sigma": config.sigma,
                "sigma_mode": config.sigma_mode,
                "sigma_unit": config.sigma_unit if config.sigma_mode == "relative" else 1.0,
                "t0": config.t0,
                "seed": derive(variant.fingerprint, ROW_PURPOSES[0], 0),
                "latent_change": round(change, 6),
                "h_std": None if h_std is None else round(h_std, 6),
                "prior": prior.weights,
                "dtype": dtype,
                "batch_size": len(batch.variants),
            }
            yield Generated(variant=variant, image=Image.fromarray(values), about=about)
