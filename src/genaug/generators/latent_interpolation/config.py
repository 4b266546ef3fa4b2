"""Latent interpolation with an adversarial autoencoder (Liu et al., ICPR 2018), online and as a pool.

Two images are encoded, their codes mixed, and the mixture decoded; the image carries both labels. ``space`` and
``training.lambda_adv`` give the baselines under the same distributions: mixup (``pixel``), blur without a latent path
(``decoded``), the diffusion prior's own autoencoder (``prior_vae``), the plain autoencoder (``lambda_adv: 0``) and ACAI
(``training.critic: acai``).

The paper publishes neither network sizes nor schedule, prior range, loss weights, distribution of lambda or the treatment of
real images: every such default is ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core import seeding
from genaug.core.cost import LEARNING, ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import choice, count
from genaug.core.identity import DRAWN, FIT, NOT_IDENTITY, canonical, fingerprint
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Generator, Variant
from genaug.generators.latent_interpolation.samples import extra_samples, fitted_samples
from genaug.generators.latent_interpolation.sections import Mixing, Networks, Training

if TYPE_CHECKING:
    from genaug.generators.latent_interpolation.mixing import Interpolation
    from genaug.priors.model import Prior

ONLINE = {"stage": "online"}
"""Metadata of fields that no published image depends on, only a training run."""
MAX_TRIES = 64  # random partners of the wrong kind before all training images are looked through


@component("generator", "latent_interpolation")
@dataclass(kw_only=True, slots=True)
class LatentInterpolation(Generator):
    """Mixes two training images in the latent space of an autoencoder that is fitted to training images alone."""

    online: bool = field(default=False, metadata=ONLINE)  # type: ignore[assignment]
    """true: each minibatch is mixed with itself inside training (the paper's form), no pool. false: M interpolations per
    image are published, and alpha, M and filters apply to them; pairs are fixed and augmentation comes after decoding."""
    space: str = choice("latent", ("latent", "decoded", "pixel", "prior_vae"))
    """What is mixed. ``latent``: codes (paper). ``decoded``: the two reconstructions. ``pixel``: the images (mixup; nothing
    is fitted). ``prior_vae``: codes of the diffusion prior's VAE (nothing is fitted)."""
    interp: str = choice("linear", ("linear", "cdf"))
    """``linear`` (paper), or ``cdf``: codes mapped back to uniform marginals after mixing (ours)."""
    image_size: int = count(II("dataset.image_size"), 1, 16384, metadata=FIT)
    """Side in pixels; divisible by 2^(floor(log2 size) - 2)."""
    mixing: Mixing = field(default_factory=Mixing, metadata=DRAWN)
    """Which pairs are mixed, and with what weight."""
    networks: Networks = field(default_factory=Networks, metadata=FIT)
    """Encoder, decoder and latent discriminator."""
    training: Training = field(default_factory=Training, metadata=FIT)
    """How the autoencoder is fitted."""
    batch_size: int = count(64, metadata=NOT_IDENTITY)
    """Images decoded at once for a pool."""

    version: ClassVar[int] = 2
    smallest: ClassVar[dict[str, Any]] = {"training": {"num_steps": 24}}

    def __post_init__(self) -> None:
        depth = self.image_size.bit_length() - 3  # floor(log2 size) - 2
        if depth < 1 or self.image_size % 2**depth:
            near = round(self.image_size / 2 ** max(depth, 1)) * 2 ** max(depth, 1)
            raise GenaugError(
                f"generator.image_size={self.image_size} cannot be halved {max(depth, 1)} times. Write e.g. {max(near, 8)} "
                "(dataset.image_size)."
            )
        networks = self.networks
        if networks.decoder_channels < 2 ** (depth + 1):
            raise GenaugError(
                f"generator.networks.decoder_channels={networks.decoder_channels} cannot be halved {depth + 1} times at "
                f"{self.image_size} px: write {2 ** (depth + 1)} or more."
            )
        if self.interp == "cdf" and (networks.prior != "uniform" or self.space != "latent"):
            raise GenaugError("generator.interp=cdf is for codes under a uniform prior: write generator.interp=linear.")
        if self.training.figure and networks.z_dim != 2:
            raise GenaugError(
                f"generator.training.figure=true draws two latent dimensions, not {networks.z_dim}: "
                "write generator.networks.z_dim=2."
            )

    @property
    def makes_pool(self) -> bool:
        return not self.online

    @property
    def fits(self) -> bool:  # type: ignore[override]
        return self.space in ("latent", "decoded")

    @property
    def uses_prior(self) -> bool:  # type: ignore[override]
        return self.space == "prior_vae"

    @property
    def images_per_draw(self) -> int:
        return self.mixing.num_interp + int(self.mixing.keep_real) if self.online else 1

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        """Images through encoder and decoder; discriminator and critic are not counted."""
        if not self.fits:
            return None
        return ForwardPasses(
            network="autoencoder",
            count=self.training.num_steps * self.training.batch_size * (2 if self.training.figure else 1),
            gflop=self.networks.gflop(self.image_size),
            relative_cost=LEARNING,
        )

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ``GenaugError`` if the training images have no pairs of the wanted kind, or extra images are scored ones."""
        extra_samples(self.training.extra_dir, dataset)
        counts: dict[int, int] = {}
        for sample in dataset.train:
            counts[sample.class_index] = counts.get(sample.class_index, 0) + 1
        if len(dataset.train) < 2:
            raise GenaugError(
                f"{dataset.name} has {len(dataset.train)} training image(s): interpolation needs at least two."
            )
        if self.mixing.classes == "inter" and len(counts) < 2:
            raise GenaugError(
                f"generator.mixing.classes=inter mixes images of two classes, but the training images of {dataset.name} have a "
                "single class. Write generator.mixing.classes=any or intra, or add a class."
            )
        alone = [dataset.class_names[c] for c, count in counts.items() if count < 2]
        if self.mixing.classes == "intra" and alone:
            raise GenaugError(
                f"generator.mixing.classes=intra needs two training images of each class, but "
                f"{', '.join(sorted(alone)[:3])} has one. "
                "Write generator.mixing.classes=any or inter, or dataset.shots=2 or more."
            )

    def fit_fingerprint(self, dataset: Dataset, prior_identity: Any) -> str:
        """As every generator's; but what is learned from all training images depends on them, not on which were drawn."""
        if not self.fits or self.training.images == "drawn":
            return Generator.fit_fingerprint(self, dataset, prior_identity)
        return fingerprint(canonical(self, stage="fit"), [sample.digest for sample in self.learns_from(dataset)])

    def learns_from(self, dataset: Dataset) -> Sequence[Sample]:
        return fitted_samples(self.training, dataset)

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        from genaug.generators.latent_interpolation.fit import fit_latent_space

        return fit_latent_space(self, dataset, folder, device)

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """The partner and lambda of variant ``index``: functions of (seed, source, index) and the training set."""
        partner = self._partner(source, index, dataset)
        lam = float(self.mixing.weight(seeding.uniform(self.seed, source.digest, index, "lambda"), index))
        weights = {dataset.class_names[i]: weight for i, weight in partner.label.items()}
        return {"lam": lam, "partner_id": partner.id, "partner_digest": partner.digest, "partner_label": weights}

    def _partner(self, source: Sample, index: int, dataset: Dataset) -> Sample:
        # the interpolations of a grid lie on one line between the same two images
        place = index // self.mixing.num_interp if self.mixing.lam == "grid" else index

        def fits(other: Sample) -> bool:
            if other.id == source.id:
                return False
            return self.mixing.classes == "any" or (other.class_index == source.class_index) == (
                self.mixing.classes == "intra"
            )

        for attempt in range(MAX_TRIES):
            other = dataset.train[
                seeding.choice(len(dataset.train), self.seed, source.digest, place, "partner", attempt)
            ]
            if fits(other):
                return other
        options = [other for other in dataset.train if fits(other)]
        if not options:
            self.check_dataset(dataset)
        return options[seeding.choice(len(options), self.seed, source.digest, place, "partner")]

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.latent_interpolation.images import interpolated_images

        yield from interpolated_images(self, variants, dataset, prior, fitted, device)

    def interpolate(self, fitted: Path | None, dataset: Dataset, prior: "Prior | None", device: str) -> "Interpolation":
        from genaug.generators.latent_interpolation.images import interpolation

        return interpolation(self, fitted, prior, device)
