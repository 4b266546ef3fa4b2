"""The sections of ``generator=latent_interpolation``: the very objects that mixing, networks and training use."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genaug.core import fields
from genaug.core.errors import GenaugError, check_choice
from genaug.core.fields import bounded, choice, count, positive, probability
from genaug.core.identity import CONTENT, NOT_IDENTITY
from genaug.core.registry import section

DISTRIBUTIONS = ("uniform", "beta", "grid")


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
    code: str = choice("linear", ("linear", "tanh"))
    """Last layer of the encoder: ``linear`` (ours), or CAAE's ``tanh``, times the prior's range. Saturated tanh units pass no
    gradient, so an encoder that once saturates seldom comes back; a linear code is held in range by the discriminator alone."""
    output: str = choice("leaky_tanh", ("leaky_tanh", "tanh"))
    """Last layer of the decoder: CAAE's ``tanh``, which once saturated stays at black where most pixels of most images are, or
    ``leaky_tanh``, tanh(h) + h / 20 (ours), cut off at black and white once it is fitted."""
    leak: float = probability(0.2)
    """Slope of the hidden units of encoder and decoder below zero (ours); 0 is CAAE's ReLU, whose units can all die, so that
    every image is decoded to the same grey."""
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
    recon: str = choice("mse", ("mse", "relative", "l1"))
    """``mse`` (paper: L2); ``relative``, the same over the variance of the images, so that the adversarial term weighs as much
    where contrast is low (ours); or CAAE's ``l1``. Mean over pixels."""
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
    images: str = choice("drawn", ("drawn", "all"))
    """What the autoencoder is fitted to: the ``drawn`` training images alone, or ``all`` training images of the data set, also
    those that ``dataset.shots`` or ``dataset.fraction`` did not take. No label is read, no validation or test image."""
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
