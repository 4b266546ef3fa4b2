"""Latent interpolation with an adversarial autoencoder (Liu et al., ICPR 2018), online and as a pool.

Two images are encoded, their codes mixed, and the mixture decoded; the image carries both labels. ``space`` and
``lambda_adv`` give the baselines under the same laws: mixup (``pixel``), blur without a latent path (``decoded``), the
diffusion prior's own autoencoder (``prior_vae``), the plain autoencoder (``lambda_adv: 0``) and ACAI (``critic: acai``).

The paper publishes neither network sizes nor schedule, prior range, loss weights, law of lambda or the treatment of real
images: every such default is ours and says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.cost import LEARNING, ForwardPasses
from genaug.core.errors import GenaugError, check_choice
from genaug.core.identity import CONTENT, DRAWN, FIT, NOT_IDENTITY, content_digest
from genaug.core.registry import component
from genaug.core.seeding import choice, uniform
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.tree import image_files
from genaug.downstream.trainer import TrainerConfig
from genaug.generators.base import Generated, Generator, Variant

if TYPE_CHECKING:
    import torch

    from genaug.generators.latent_interpolation.mixing import Interpolation, WeightLaw
    from genaug.generators.latent_interpolation.networks import AdversarialAutoencoder
    from genaug.priors.model import Prior

ONLINE = {"stage": "online"}
"""Metadata of fields that no published image depends on, only a training run."""

CHOICES = {
    "prior": ("uniform", "gaussian"),
    "code": ("tanh", "linear"),
    "init": ("caae", "kaiming"),
    "adv_loss": ("nonsaturating", "minimax"),
    "recon": ("mse", "l1"),
    "disc_norm": ("none", "joint_bn", "layer", "separate_bn"),
    "critic": ("none", "acai"),
    "space": ("latent", "decoded", "pixel", "prior_vae"),
    "interp": ("linear", "cdf"),
    "lam_per": ("batch", "sample"),
    "pairing": ("permutation", "derangement"),
    "classes": ("any", "inter", "intra"),
    "label": ("weighted", "two_hot"),
}
LAWS = ("uniform", "beta", "grid")
MAX_TRIES = 64  # random partners of the wrong kind before all training images are looked through
MAX_DIAGNOSED = 10_000  # images for the diagnostics


@component("generator", "latent_interpolation")
@dataclass(kw_only=True, slots=True)
class LatentInterpolation(Generator):
    """Mixes two training images in the latent space of an autoencoder that is fitted to the training images alone."""

    online: bool = field(default=False, metadata=ONLINE)  # type: ignore[assignment]
    """true: each minibatch is mixed with itself inside training (the paper's form), no pool. false: M interpolations per
    image are published, and alpha, M and filters apply to them; pairs are fixed and augmentation comes after decoding."""

    space: str = "latent"
    """What is mixed. ``latent``: codes (paper). ``decoded``: the two reconstructions. ``pixel``: the images (mixup; nothing
    is fitted). ``prior_vae``: codes of the diffusion prior's VAE (nothing is fitted)."""
    interp: str = "linear"
    """``linear`` (paper), or ``cdf``: codes mapped back to uniform marginals after mixing (ours)."""
    lam: Any = field(default=0.5, metadata=DRAWN)
    """Share of the first image: a number in [0, 1]; ``uniform``; ``beta``; or ``grid``, k/(num_interp + 1). .5 is the
    one-sample case of the paper's "uniform interpolations" (ours; the law of its tables is unpublished). 1 is the control
    of plain reconstructions."""
    beta: float = field(default=1.0, metadata=DRAWN)
    """Both parameters of ``lam: beta``."""
    num_interp: int = field(default=1, metadata=DRAWN)
    """Interpolations per pair: n of ``grid``; online, each row of the batch is decoded n times (Fig. 6)."""
    classes: str = field(default="inter", metadata=DRAWN)
    """Pairs across classes (``inter``, the paper's word), within a class (``intra``), or ``any``."""
    pairing: str = field(default="permutation", metadata=ONLINE)
    """Online: a random ``permutation`` of the minibatch (paper), or a ``derangement``, without fixed points. A pool never
    pairs an image with itself."""
    lam_per: str = field(default="batch", metadata=ONLINE)
    """Online: one lambda per ``batch`` (as in mixup) or per ``sample``. A pool draws one per image."""
    keep_real: bool = field(default=True, metadata=ONLINE)
    """Online: the un-decoded batch is trained on beside its mixture, mean of both losses (ours; unpublished). Doubles the
    images of a step, not the steps. In a pool the mix decides."""
    label: str = field(default="weighted", metadata=DRAWN)
    """``weighted`` by lambda, or ``two_hot``, (.5, .5), which is the same at lambda .5 and refused elsewhere."""

    image_size: int = field(default=II("dataset.image_size"), metadata=FIT)
    """Side in pixels; divisible by 2^(floor(log2 size) - 2)."""
    z_dim: int = field(default=50, metadata=FIT)
    """Latent dimensions (CAAE's 50; unpublished)."""
    channels: int = field(default=64, metadata=FIT)
    """Channels of the encoder's first convolution, doubled by each further one (CAAE)."""
    decoder_channels: int = field(default=512, metadata=FIT)
    """Channels of the decoder's first map, halved by each layer (CAAE: 1024)."""
    disc_widths: list[int] = field(default_factory=lambda: [64, 32, 16], metadata=FIT)
    """Hidden layers of the latent discriminator (CAAE)."""
    disc_norm: str = field(default="none", metadata=FIT)
    """``none``, ``layer``, ``joint_bn``, or CAAE's ``separate_bn``, which blinds it to shift and scale of the codes."""
    prior: str = field(default="uniform", metadata=FIT)
    """``uniform`` (paper), or ``gaussian``, for ablation, with ``code: linear``."""
    prior_range: float = field(default=1.0, metadata=FIT)
    """Uniform on [-range, range]; standard deviation of the Gaussian (CAAE's 1; unpublished)."""
    code: str = field(default="tanh", metadata=FIT)
    """Last layer of the encoder: ``tanh``, times the prior's range, or ``linear``."""
    init: str = field(default="caae", metadata=FIT)
    """``caae``: N(0, .02^2); ``kaiming``: for few channels, whose signal that would make vanish (ours)."""
    lambda_adv: float = field(default=0.1, metadata=FIT)
    """Weight of the adversarial term against the mean squared error per pixel (ours). 0 is the plain autoencoder."""
    adv_loss: str = field(default="nonsaturating", metadata=FIT)
    """``nonsaturating``, or ``minimax`` as the paper writes it."""
    warmup: float = field(default=0.05, metadata=FIT)
    """Share of the steps over which the adversarial weight rises from 0, in [0, 1)."""
    recon: str = field(default="mse", metadata=FIT)
    """``mse`` (paper: L2), or CAAE's ``l1``; mean over pixels."""
    critic: str = field(default="none", metadata=FIT)
    """Critic of images: ``none`` (the paper drops it for speed), or ``acai``, which guesses the mixing weight."""
    lambda_critic: float = field(default=0.5, metadata=FIT)
    """Weight of fooling the critic (ACAI)."""
    critic_gamma: float = field(default=0.2, metadata=FIT)
    """Share of the image in ACAI's blend of image and reconstruction, which the critic should score 0."""
    lr: float = field(default=2.0e-4, metadata=FIT)
    """Adam, all players (CAAE)."""
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999], metadata=FIT)
    """Adam (CAAE)."""
    batch_size: int = field(default=128, metadata=FIT)
    """Images per step, at least 2."""
    num_steps: int = field(default=20_000, metadata=FIT)
    """Steps of every player (ours: max(20,000, 100 epochs))."""
    max_shift: int = field(default=0, metadata=FIT)
    """Weak augmentation: pad by so many pixels and crop at random."""
    flip_prob: float = field(default=0.0, metadata=FIT)
    """Weak augmentation: probability of a left-right flip."""
    fit_seed: int = field(default=II("seed"), metadata=FIT)
    """Initialisation, batches and prior draws. Follows the trial's seed; fix it to share one autoencoder among trials."""
    extra_dir: str | None = field(default=None, metadata=FIT | CONTENT)
    """Folder of unlabelled images that the autoencoder is fitted to besides the training images."""
    figure: bool = field(default=False, metadata=FIT)
    """Also fit a twin without discriminator and draw the codes of both (the paper's Fig. 2); needs ``z_dim: 2``."""
    allow_reference_traps: bool = field(default=False, metadata=NOT_IDENTITY)
    """Allow ``disc_norm: separate_bn``."""

    generation_batch_size: int = field(default=64, metadata=NOT_IDENTITY)
    """Images decoded at once for a pool."""
    accelerator: str = field(default=II("trainer.accelerator"), metadata=NOT_IDENTITY)
    """Follows the trainer's."""
    num_workers: int = field(default=II("trainer.num_workers"), metadata=NOT_IDENTITY)
    """Follows the trainer's."""
    checkpoint_every: int = field(default=500, metadata=NOT_IDENTITY)
    """Steps between checkpoints from which an interrupted fit resumes."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for key, options in CHOICES.items():
            check_choice(f"generator.{key}", getattr(self, key), options)
        self._check_weight()
        self._check_networks()
        for key in ("num_interp", "num_steps", "generation_batch_size", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must be at least 1.")
        if self.batch_size < 2:
            raise GenaugError(f"generator.batch_size={self.batch_size}: a batch of one has no pair. Write 2 or more.")
        for key in ("lambda_adv", "lambda_critic", "critic_gamma", "max_shift"):
            if getattr(self, key) < 0:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must not be negative.")
        for key in ("lr", "prior_range", "beta"):
            if getattr(self, key) <= 0:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must be positive.")
        if not 0 <= self.flip_prob <= 1:
            raise GenaugError(f"generator.flip_prob={self.flip_prob} is a probability: write a number from 0 to 1.")
        if not 0 <= self.warmup < 1:
            raise GenaugError(
                f"generator.warmup={self.warmup} is a share of the steps: write a number from 0 to below 1."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise GenaugError(f"generator.betas={self.betas} must be two numbers in [0, 1), e.g. [0.5,0.999].")

    def _check_weight(self) -> None:
        if isinstance(self.lam, bool) or not isinstance(self.lam, int | float | str):
            raise GenaugError(f"generator.lam={self.lam}: write a number from 0 to 1, or one of {', '.join(LAWS)}.")
        if isinstance(self.lam, str):
            check_choice("generator.lam", self.lam, LAWS)
        elif not 0 <= self.lam <= 1:
            raise GenaugError(f"generator.lam={self.lam} would be extrapolation: write a number from 0 to 1.")
        if self.label == "two_hot" and self.lam != 0.5:
            raise GenaugError(
                f"generator.label=two_hot means lambda .5, but generator.lam={self.lam}. Write label=weighted."
            )

    def _check_networks(self) -> None:
        for key in ("z_dim", "channels"):
            if getattr(self, key) < 1:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must be at least 1.")
        depth = self.image_size.bit_length() - 3  # floor(log2 size) - 2
        if depth < 1 or self.image_size % 2**depth:
            near = round(self.image_size / 2 ** max(depth, 1)) * 2 ** max(depth, 1)
            raise GenaugError(
                f"generator.image_size={self.image_size} cannot be halved {max(depth, 1)} times. Write e.g. {max(near, 8)} "
                "(dataset.image_size)."
            )
        if self.decoder_channels < 2 ** (depth + 1):
            raise GenaugError(
                f"generator.decoder_channels={self.decoder_channels} cannot be halved {depth + 1} times at "
                f"{self.image_size} px: write {2 ** (depth + 1)} or more."
            )
        if not self.disc_widths or min(self.disc_widths) < 1:
            raise GenaugError(f"generator.disc_widths={self.disc_widths} must list widths of layers, e.g. [64,32,16].")
        if self.prior == "gaussian" and self.code == "tanh":
            raise GenaugError(
                "generator.prior=gaussian is unbounded, generator.code=tanh is not: write generator.code=linear."
            )
        if self.interp == "cdf" and (self.prior != "uniform" or self.space != "latent"):
            raise GenaugError("generator.interp=cdf is for codes under a uniform prior: write generator.interp=linear.")
        if self.disc_norm == "separate_bn" and not self.allow_reference_traps:
            raise GenaugError(
                "generator.disc_norm=separate_bn blinds the discriminator to shift and scale of the codes (CAAE's fault). "
                "Write none or joint_bn, or generator.allow_reference_traps=true to reproduce it."
            )
        if self.figure and self.z_dim != 2:
            raise GenaugError(
                f"generator.figure=true draws two latent dimensions, not {self.z_dim}: write generator.z_dim=2."
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
        return self.num_interp + int(self.keep_real) if self.online else 1

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        """Images through encoder and decoder; discriminator and critic are not counted."""
        if not self.fits:
            return None
        return ForwardPasses(
            network="autoencoder",
            count=self.num_steps * self.batch_size * (2 if self.figure else 1),
            gflop=self.autoencoder_gflop(),
            relative_cost=LEARNING,
        )

    def autoencoder_gflop(self) -> float:
        """One image through the convolutions and linear layers of encoder and decoder, in closed form."""
        depth, side = self.image_size.bit_length() - 3, self.image_size
        last, taps = self.decoder_channels >> depth, 25  # 5x5 kernels
        widths = [3, *(self.channels * 2**i for i in range(depth))]
        macs = taps * side**2 * (last * (last // 2) + (last // 2) * 3)
        for i in range(depth):
            macs += taps * widths[i] * widths[i + 1] * (side >> (i + 1)) ** 2
            macs += (
                taps
                * (self.decoder_channels >> (depth - 1 - i))
                * (self.decoder_channels >> (depth - i))
                * (side >> (i + 1)) ** 2
            )
        smallest = (side >> depth) ** 2
        macs += self.z_dim * smallest * (widths[-1] + self.decoder_channels)
        return 2 * macs / 1e9

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ``GenaugError`` if the training images have no pairs of the wanted kind, or extra images are scored ones."""
        self._extra_samples(dataset)
        counts: dict[int, int] = {}
        for sample in dataset.train:
            counts[sample.class_index] = counts.get(sample.class_index, 0) + 1
        if len(dataset.train) < 2:
            raise GenaugError(
                f"{dataset.name} has {len(dataset.train)} training image(s): interpolation needs at least two."
            )
        if self.classes == "inter" and len(counts) < 2:
            raise GenaugError(
                f"generator.classes=inter mixes images of two classes, but the training images of {dataset.name} have a single "
                "class. Write generator.classes=any or intra, or add a class."
            )
        alone = [dataset.class_names[c] for c, count in counts.items() if count < 2]
        if self.classes == "intra" and alone:
            raise GenaugError(
                f"generator.classes=intra needs two training images of each class, but {', '.join(sorted(alone)[:3])} has one. "
                "Write generator.classes=any or inter, or dataset.shots=2 or more."
            )

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path) -> dict[str, Any]:
        from genaug.generators.latent_interpolation.fit import fit_latent_space

        return fit_latent_space(self, dataset, self._extra_samples(dataset), folder)

    def autoencoder(self, lambda_adv: float | None = None) -> "AdversarialAutoencoder":
        """Freshly initialised networks with their losses; ``lambda_adv`` in place of this configuration's."""
        from genaug.generators.latent_interpolation.fit import build_autoencoder

        return build_autoencoder(self, self.lambda_adv if lambda_adv is None else lambda_adv)

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """The partner and lambda of variant ``index``: functions of (seed, source, index) and the training set."""
        partner = self._partner(source, index, dataset)
        lam = float(self.law.quantile(uniform(self.seed, source.digest, index, "lambda"), index))
        weights = {dataset.class_names[i]: weight for i, weight in partner.label.items()}
        return {"lam": lam, "partner_id": partner.id, "partner_digest": partner.digest, "partner_label": weights}

    @property
    def law(self) -> "WeightLaw":
        """Law of lambda."""
        from genaug.generators.latent_interpolation.mixing import WeightLaw

        return WeightLaw(law=self.lam, beta=self.beta, num_interp=self.num_interp)

    def _partner(self, source: Sample, index: int, dataset: Dataset) -> Sample:
        # the interpolations of a grid lie on one line between the same two images
        place = index // self.num_interp if self.lam == "grid" else index

        def fits(other: Sample) -> bool:
            if other.id == source.id:
                return False
            return self.classes == "any" or (other.class_index == source.class_index) == (self.classes == "intra")

        for attempt in range(MAX_TRIES):
            other = dataset.train[choice(len(dataset.train), self.seed, source.digest, place, "partner", attempt)]
            if fits(other):
                return other
        options = [other for other in dataset.train if fits(other)]
        if not options:
            self.check_dataset(dataset)
        return options[choice(len(options), self.seed, source.digest, place, "partner")]

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None
    ) -> Iterator[Generated]:
        import torch
        from torchvision.transforms.functional import to_pil_image

        from genaug.generators.latent_interpolation.mixing import mix_labels
        from genaug.generators.latent_interpolation.training import square_pixels, to_unit

        device = TrainerConfig(accelerator=self.accelerator).device()
        interpolation = self.interpolate(fitted, dataset, prior, device)
        by_id = {sample.id: sample for sample in dataset.train}
        for start in range(0, len(variants), self.generation_batch_size):
            batch = variants[start : start + self.generation_batch_size]
            partners = [by_id[variant.draws["partner_id"]] for variant in batch]
            pixels = [square_pixels(sample, self.image_size) for sample in (*(v.source for v in batch), *partners)]
            lam = torch.tensor([variant.draws["lam"] for variant in batch], dtype=torch.float64)
            with torch.no_grad():
                codes = interpolation.encode(to_unit(torch.stack(pixels)).to(device))
                images = interpolation.combine(codes[: len(batch)], codes[len(batch) :], lam.to(codes))
            for variant, partner, image in zip(batch, partners, images.clamp(0, 1).float().cpu(), strict=True):
                yield Generated(
                    variant=variant,
                    image=to_pil_image((image * 255).round().to(torch.uint8)),
                    label=mix_labels(variant.source.label, partner.label, variant.draws["lam"]),
                    about={"fitted": fitted.name if fitted is not None else None},
                )

    def interpolate(self, fitted: Path | None, dataset: Dataset, prior: "Prior | None", device: str) -> "Interpolation":
        from genaug.generators.latent_interpolation.mixing import Interpolation

        encode, decode = self._space(fitted, prior, device)
        return Interpolation(
            encode=encode,
            decode=decode,
            law=self.law,
            seed=self.seed,
            image_size=self.image_size,
            lam_per=self.lam_per,
            pairing=self.pairing,
            classes=self.classes,
            code_range=self.prior_range if self.interp == "cdf" else None,
            num_interp=self.num_interp,
            keep_real=self.keep_real,
        )

    def _space(self, fitted: Path | None, prior: "Prior | None", device: str) -> tuple[Any, Any]:
        """Encoder and decoder between images in [0, 1] and what is mixed; frozen."""

        def same(x: "torch.Tensor") -> "torch.Tensor":
            return x

        if self.space == "pixel":
            return same, same
        if self.space == "prior_vae":
            assert prior is not None
            return lambda x: prior.encode(2 * x - 1), lambda z: (prior.decode(z) + 1) / 2
        from genaug.generators.latent_interpolation.training import load_weights

        assert fitted is not None
        aae = self.autoencoder().to(device)
        load_weights(aae, fitted)

        def encode(x: "torch.Tensor") -> "torch.Tensor":
            return aae.encoder(2 * x - 1)

        def decode(z: "torch.Tensor") -> "torch.Tensor":
            return (aae.decoder(z) + 1) / 2

        return (encode, decode) if self.space == "latent" else (lambda x: decode(encode(x)), same)

    def _extra_samples(self, dataset: Dataset | None = None) -> Sequence[Sample]:
        """The unlabelled images; refuses any that is also scored."""
        if self.extra_dir is None:
            return ()
        root = Path(self.extra_dir).expanduser()
        if not root.is_dir() or not (paths := [path for _, path in image_files(root)]):
            raise GenaugError(f"generator.extra_dir={self.extra_dir} holds no images.")
        samples = [
            Sample(id=f"extra/{path.relative_to(root).as_posix()}", digest=content_digest(path), image=path)
            for path in paths
        ]
        if dataset is not None:
            scored = {sample.digest for sample in (*dataset.val, *dataset.test)}
            shared = [sample.id for sample in samples if sample.digest in scored]
            if shared:
                raise GenaugError(
                    f"{len(shared)} image(s) of generator.extra_dir are also in the validation or test split, "
                    f"e.g. {shared[0]}. Remove them: results on them would not count."
                )
        return samples
