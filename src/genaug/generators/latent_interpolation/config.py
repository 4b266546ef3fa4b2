"""Latent interpolation with an adversarial autoencoder (Liu et al., ICPR 2018), online and as a pool.

Two images are encoded, their codes mixed, and the mixture decoded; the image carries both labels. ``space`` and
``training.lambda_adv`` give the baselines under the same distributions: mixup (``pixel``), blur without a latent path
(``decoded``), the diffusion prior's own autoencoder (``prior_vae``), the plain autoencoder (``lambda_adv: 0``) and ACAI
(``training.critic: acai``).

The paper publishes neither network sizes nor schedule, prior range, loss weights, distribution of lambda or the treatment of
real images: every such default is ours. The sections are the very objects that mixing, networks and training use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from omegaconf import II

from genaug.core import fields, seeding
from genaug.core.cost import LEARNING, ForwardPasses
from genaug.core.errors import GenaugError, check_choice
from genaug.core.fields import bounded, choice, count, positive, probability
from genaug.core.identity import CONTENT, DRAWN, FIT, NOT_IDENTITY
from genaug.core.registry import component, section
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Generator, Variant
from genaug.generators.latent_interpolation.extra import extra_samples

if TYPE_CHECKING:
    from genaug.generators.latent_interpolation.mixing import Interpolation
    from genaug.priors.model import Prior

ONLINE = {"stage": "online"}
"""Metadata of fields that no published image depends on, only a training run."""
DISTRIBUTIONS = ("uniform", "beta", "grid")
MAX_TRIES = 64  # random partners of the wrong kind before all training images are looked through


@section("generator.mixing", "generator/latent_interpolation/mixing")
@dataclass(kw_only=True, slots=True)
class Mixing:
    """Which pairs are mixed, and with what weight."""

    lam: Any = 0.5
    """Share of the first image: a number in [0, 1]; ``uniform``; ``beta``; or ``grid``, k/(num_interp + 1). .5 is the
    one-sample case of the paper's "uniform interpolations" (ours; the distribution behind its tables is unpublished). 1 is the
    control of plain reconstructions."""
    beta: float = bounded(1.0, 0, 1e4, above=True)
    """Both parameters of ``lam: beta``."""
    num_interp: int = count(1, 1, 1000)
    """Interpolations per pair: n of ``grid``; online, each row of the batch is decoded n times (Fig. 6)."""
    classes: str = choice("inter", ("any", "inter", "intra"))
    """Pairs across classes (``inter``, the paper's word), within a class (``intra``), or ``any``."""
    label: str = choice("weighted", ("weighted", "two_hot"))
    """``weighted`` by lambda, or ``two_hot``, (.5, .5), which is the same at lambda .5 and refused elsewhere."""
    pairing: str = choice("permutation", ("permutation", "derangement"))
    """Online: a random ``permutation`` of the minibatch (paper), or a ``derangement``, without fixed points. A pool never
    pairs an image with itself."""
    lam_per: str = choice("batch", ("batch", "sample"))
    """Online: one lambda per ``batch`` (as in mixup) or per ``sample``. A pool draws one per image."""
    keep_real: bool = True
    """Online: the un-decoded batch is trained on beside its mixture, mean of both losses (ours; unpublished). Doubles the
    images of a step, not the steps. In a pool the mix decides."""

    def __post_init__(self) -> None:
        if isinstance(self.lam, str):
            check_choice("generator.mixing.lam", self.lam, DISTRIBUTIONS)
        elif isinstance(self.lam, bool) or not isinstance(self.lam, int | float):
            raise GenaugError(
                f"generator.mixing.lam={self.lam}: write a number from 0 to 1, or one of {', '.join(DISTRIBUTIONS)}."
            )
        elif not 0 <= self.lam <= 1:
            raise GenaugError(f"generator.mixing.lam={self.lam} would be extrapolation: write a number from 0 to 1.")
        if self.label == "two_hot" and self.lam != 0.5:
            raise GenaugError(
                f"generator.mixing.label=two_hot means lambda .5, but generator.mixing.lam={self.lam}. "
                "Write generator.mixing.label=weighted."
            )

    def weight(self, u: float | np.ndarray, k: int) -> np.ndarray:
        """lambda at quantile ``u`` in [0, 1) for the ``k``-th interpolation (0, 1, …); ``grid`` depends on k alone."""
        u = np.asarray(u, dtype=np.float64)
        if self.lam == "uniform":
            return u
        if self.lam == "beta":
            from scipy.stats import beta

            return beta.ppf(u, self.beta, self.beta)
        if self.lam == "grid":
            return np.full_like(u, (k % self.num_interp + 1) / (self.num_interp + 1))
        return np.full_like(u, float(self.lam))


@section("generator.networks", "generator/latent_interpolation/networks")
@dataclass(kw_only=True, slots=True)
class Networks:
    """Encoder, decoder and latent discriminator, and the prior that the codes are to follow."""

    z_dim: int = count(50, 1, 65536)
    """Latent dimensions (CAAE's 50; unpublished)."""
    channels: int = count(64, 1, 65536)
    """Channels of the encoder's first convolution, doubled by each further one (CAAE)."""
    decoder_channels: int = count(512, 1, 65536)
    """Channels of the decoder's first map, halved by each layer (CAAE: 1024)."""
    disc_widths: list[int] = count([64, 32, 16], 1, 65536)
    """Hidden layers of the latent discriminator (CAAE)."""
    disc_norm: str = choice("none", ("none", "joint_bn", "layer", "separate_bn"))
    """``none``, ``layer``, ``joint_bn``, or CAAE's ``separate_bn``, which blinds it to shift and scale of the codes."""
    prior: str = choice("uniform", ("uniform", "gaussian"))
    """``uniform`` (paper), or ``gaussian``, for ablation, with ``code: linear``."""
    prior_range: float = positive(1.0)
    """Uniform on [-range, range]; standard deviation of the Gaussian (CAAE's 1; unpublished)."""
    code: str = choice("tanh", ("tanh", "linear"))
    """Last layer of the encoder: ``tanh``, times the prior's range, or ``linear``."""
    init: str = choice("caae", ("caae", "kaiming"))
    """``caae``: N(0, .02^2); ``kaiming``: for few channels, whose signal that would make vanish (ours)."""
    allow_reference_traps: bool = field(default=False, metadata=NOT_IDENTITY)
    """Allow ``disc_norm: separate_bn``."""

    def __post_init__(self) -> None:
        if not self.disc_widths:
            raise GenaugError("generator.networks.disc_widths=[] must list widths of layers, e.g. [64,32,16].")
        if self.prior == "gaussian" and self.code == "tanh":
            raise GenaugError(
                "generator.networks.prior=gaussian is unbounded, generator.networks.code=tanh is not: "
                "write generator.networks.code=linear."
            )
        if self.disc_norm == "separate_bn" and not self.allow_reference_traps:
            raise GenaugError(
                "generator.networks.disc_norm=separate_bn blinds the discriminator to shift and scale of the codes (CAAE's "
                "fault). Write none or joint_bn, or generator.networks.allow_reference_traps=true to reproduce it."
            )

    def gflop(self, image_size: int) -> float:
        """One image through the convolutions and linear layers of encoder and decoder, in closed form."""
        depth, side = image_size.bit_length() - 3, image_size
        last, taps = self.decoder_channels >> depth, 25  # 5x5 kernels
        widths = [3, *(self.channels * 2**i for i in range(depth))]
        macs = taps * side**2 * (last * (last // 2) + (last // 2) * 3)
        for i in range(depth):
            up = (self.decoder_channels >> (depth - 1 - i)) * (self.decoder_channels >> (depth - i))
            macs += taps * (widths[i] * widths[i + 1] + up) * (side >> (i + 1)) ** 2
        macs += self.z_dim * (side >> depth) ** 2 * (widths[-1] + self.decoder_channels)
        return 2 * macs / 1e9


@section("generator.training", "generator/latent_interpolation/training")
@dataclass(kw_only=True, slots=True)
class Training:
    """How the autoencoder is fitted to the training images."""

    lambda_adv: float = bounded(0.1, 0, 1e6)
    """Weight of the adversarial term against the mean squared error per pixel (ours). 0 is the plain autoencoder."""
    adv_loss: str = choice("nonsaturating", ("nonsaturating", "minimax"))
    """``nonsaturating``, or ``minimax`` as the paper writes it."""
    warmup: float = bounded(0.05, 0, 1, below=True)
    """Share of the steps over which the adversarial weight rises from 0."""
    recon: str = choice("mse", ("mse", "l1"))
    """``mse`` (paper: L2), or CAAE's ``l1``; mean over pixels."""
    critic: str = choice("none", ("none", "acai"))
    """Critic of images: ``none`` (the paper drops it for speed), or ``acai``, which guesses the mixing weight."""
    lambda_critic: float = bounded(0.5, 0, 1e6)
    """Weight of fooling the critic (ACAI)."""
    critic_gamma: float = probability(0.2)
    """Share of the image in ACAI's blend of image and reconstruction, which the critic should score 0."""
    lr: float = bounded(2.0e-4, 0, 1, above=True)
    """Adam, all players (CAAE)."""
    betas: list[float] = bounded([0.5, 0.999], 0, 1, below=True)
    """Adam (CAAE)."""
    batch_size: int = count(128, 2)
    """Images per step; a batch of one has no pair."""
    num_steps: int = count(20_000)
    """Steps of every player (ours: max(20,000, 100 epochs))."""
    max_shift: int = count(0, 0, 4096)
    """Weak augmentation: pad by so many pixels and crop at random."""
    flip_prob: float = probability(0.0)
    """Weak augmentation: probability of a left-right flip."""
    seed: int = fields.seed()
    """Initialisation, batches and prior draws. Follows the trial's seed; fix it to share one autoencoder among trials."""
    extra_dir: str | None = field(default=None, metadata=CONTENT)
    """Folder of unlabelled images that the autoencoder is fitted to besides the training images."""
    figure: bool = False
    """Also fit a twin without discriminator and draw the codes of both (the paper's Fig. 2); needs ``networks.z_dim: 2``."""
    num_workers: int = count(0, 0, 256, metadata=NOT_IDENTITY)
    """Processes that decode and augment; 0 does it in the main one."""
    checkpoint_every: int = count(500, metadata=NOT_IDENTITY)
    """Steps between checkpoints from which an interrupted fit resumes."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise GenaugError(f"generator.training.betas={self.betas} must be two numbers in [0, 1), e.g. [0.5,0.999].")

    def adversarial_weight(self, step: int) -> float:
        """The weight of the adversarial term at a step: ``lambda_adv`` after the warm-up."""
        return self.lambda_adv * min(1.0, (step + 1) / max(round(self.warmup * self.num_steps), 1))


@component("generator", "latent_interpolation")
@dataclass(kw_only=True, slots=True)
class LatentInterpolation(Generator):
    """Mixes two training images in the latent space of an autoencoder that is fitted to the training images alone."""

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
    accelerator: str = choice("auto", ("auto", "cpu", "gpu", "cuda", "mps"), metadata=NOT_IDENTITY)
    """Where the autoencoder is fitted and images are decoded for a pool; ``auto`` takes a GPU where torch sees one."""

    version: ClassVar[int] = 1

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

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path) -> dict[str, Any]:
        from genaug.generators.latent_interpolation.fit import fit_latent_space

        return fit_latent_space(self, dataset, extra_samples(self.training.extra_dir, dataset), folder)

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
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None
    ) -> Iterator[Generated]:
        from genaug.generators.latent_interpolation.images import interpolated_images

        yield from interpolated_images(self, variants, dataset, prior, fitted)

    def interpolate(self, fitted: Path | None, dataset: Dataset, prior: "Prior | None", device: str) -> "Interpolation":
        from genaug.generators.latent_interpolation.images import interpolation

        return interpolation(self, fitted, prior, device)
