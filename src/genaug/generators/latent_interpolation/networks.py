"""Adversarial autoencoder with a uniform latent prior: networks, losses, and the three players' training step.

Liu et al., "Data Augmentation via Latent Space Interpolation for Image Classification", ICPR 2018. Its network sizes are
unpublished; those here follow the face autoencoder CAAE (Zhang et al., CVPR 2017), without two of its faults: the
encoder is trained against the prior, and the discriminator's batch statistics cannot hide a shift or a scale of the codes
from it.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.core.errors import GenaugError
from genaug.core.seeding import derive
from genaug.generators.latent_interpolation.sections import Networks, Training

INIT_STD = 0.02  # CAAE, ops.py
LEAK = 0.2  # of the discriminator, and of an encoder or decoder that is not told another
SATURATED = 0.95  # |z| / range above which a code counts as saturated
BAD_STEPS = 10  # in a row are a collapse
LEAST_SPREAD = 0.05  # standard deviation / range over the images of a step, below which codes count as collapsed


def num_halvings(image_size: int) -> int:
    """Stride-2 layers for square images: floor(log2 size) - 2, so 32, 64, 128 and 224 px end in maps of 4, 4, 4 and 7."""
    return int(math.log2(image_size)) - 2


class Encoder(nn.Module):
    """[b, 3, s, s] in [-1, 1] to codes [b, z]: 5x5 stride-2 convolutions with doubling channels, no normalisation."""

    def __init__(self, image_size: int, z_dim: int, channels: int, code_range: float | None, leak: float = LEAK):
        """``code_range``: codes are ``code_range * tanh``; None leaves them unbounded. ``leak``: as the decoder's."""
        super().__init__()
        depth = num_halvings(image_size)
        widths = [3, *(channels * 2**i for i in range(depth))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.LeakyReLU(leak)]
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1] * (image_size // 2**depth) ** 2, z_dim)
        self.code_range = code_range
        self.apply(initialise)

    def forward(self, x_bchw: Tensor) -> Tensor:
        h = self.linear(self.convolutions(x_bchw).flatten(1))
        return h if self.code_range is None else self.code_range * torch.tanh(h)


class LeakyTanh(nn.Module):
    """tanh(h) + h / 20: its slope is nowhere below 1/20, and what goes beyond black or white is pulled back by its error."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(h) + h / 20


class Decoder(nn.Module):
    """Codes [b, z] to [b, 3, s, s] in [-1, 1]: 5x5 transposed convolutions with halving channels, then two at stride 1."""

    def __init__(self, image_size: int, z_dim: int, channels: int, leak: float = LEAK, output: str = "leaky_tanh"):
        """``leak``: slope of hidden units below 0. ``output``: ``tanh``, or ``leaky_tanh``, cut off at ±1 after training."""
        super().__init__()
        depth = num_halvings(image_size)
        self.map_size, self.channels = image_size // 2**depth, channels
        self.linear = nn.Linear(z_dim, channels * self.map_size**2)
        layers: list[nn.Module] = [nn.LeakyReLU(leak)]
        for i in range(depth):
            layers += [
                nn.ConvTranspose2d(channels >> i, channels >> (i + 1), 5, 2, padding=2, output_padding=1),
                nn.LeakyReLU(leak),
            ]
        last = channels >> depth
        layers += [
            nn.Conv2d(last, last // 2, 5, padding=2),
            nn.LeakyReLU(leak),
            nn.Conv2d(last // 2, 3, 5, padding=2),
            nn.Tanh() if output == "tanh" else LeakyTanh(),
        ]
        self.convolutions = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z_bz: Tensor) -> Tensor:
        x = self.convolutions(self.linear(z_bz).unflatten(1, (self.channels, self.map_size, self.map_size)))
        return x if self.training else x.clamp(-1, 1)


class BatchStatistics(nn.Module):
    """Batch normalisation without scale and without running averages, as CAAE's discriminator has it."""

    def __init__(self, width: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True) + self.shift


class LatentDiscriminator(nn.Module):
    """Codes to logits of "drawn from the prior".

    ``norm``: ``none``; ``layer``; ``joint_bn``, batch statistics over prior draws and codes in one batch; ``separate_bn``,
    each in its own batch as in CAAE, which makes D(a z + b) = D(z): blind to a shift and to a common scale.
    """

    def __init__(self, z_dim: int, widths: Iterable[int], norm: str = "none"):
        super().__init__()
        self.norm = norm
        layers: list[nn.Module] = []
        before = z_dim
        for width in widths:
            layers.append(nn.Linear(before, width))
            if norm == "layer":
                layers.append(nn.LayerNorm(width))
            elif norm != "none":
                layers.append(BatchStatistics(width))
            layers.append(nn.LeakyReLU(LEAK))
            before = width
        self.layers = nn.Sequential(*layers, nn.Linear(before, 1))

    def forward(self, z_bz: Tensor) -> Tensor:
        return self.layers(z_bz).squeeze(1)

    def logits(self, u_bz: Tensor, z_bz: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of prior draws and of codes, in one batch unless ``separate_bn``."""
        if self.norm == "separate_bn":
            return self(u_bz), self(z_bz)
        together = self(torch.cat([u_bz, z_bz]))
        return together[: len(u_bz)], together[len(u_bz) :]


class Critic(nn.Module):
    """ACAI's critic of images: the mean over the outputs of an encoder-shaped network estimates the mixing weight."""

    def __init__(self, image_size: int, z_dim: int, channels: int):
        super().__init__()
        self.encoder = Encoder(image_size, z_dim, channels, code_range=None)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.encoder(x_bchw).mean(dim=1)


def initialise(layer: nn.Module) -> None:
    """N(0, .02^2), truncated at two standard deviations for convolutions; biases 0 (CAAE)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.trunc_normal_(layer.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=INIT_STD)
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def discriminator_loss(logits_prior: Tensor, logits_code: Tensor) -> Tensor:
    """BCE(D(u), 1) + BCE(D(z), 0); 2 ln 2 at zero logits."""
    return F.softplus(-logits_prior).mean() + F.softplus(logits_code).mean()


def adversarial_loss(logits_code: Tensor, kind: str = "nonsaturating") -> Tensor:
    """What the encoder minimises: BCE(D(z), 1), or E log(1 - D(z)) for ``minimax`` (the paper's formula)."""
    return F.softplus(-logits_code).mean() if kind == "nonsaturating" else -F.softplus(logits_code).mean()


def reconstruction_loss(x: Tensor, reconstruction: Tensor, kind: str = "mse") -> Tensor:
    """Mean over pixels; ``relative`` to the variance of the images about their mean. The paper's sum of squares is the mean
    with the adversarial weight multiplied by 3 H W."""
    if kind == "l1":
        return F.l1_loss(reconstruction, x)
    error = F.mse_loss(reconstruction, x)
    return error / variance(x) if kind == "relative" else error


def variance(x: Tensor) -> Tensor:
    """Of the pixels of a batch about the batch's mean image."""
    return (x - x.mean(dim=0)).square().mean().clamp(min=1e-6)


def collapsed(networks: Networks, losses: Mapping[str, Tensor]) -> bool:
    """Whether the codes of a step say nothing of their images: all nearly the same, behind a tanh at its ends, or decoded to
    something further from the images than their mean is."""
    at_ends = networks.code == "tanh" and losses["saturated"] > 0.5
    return bool(at_ends or losses["spread"] < LEAST_SPREAD or losses["explained"] < 0)


def critic_loss(score_mixed: Tensor, weight: Tensor, score_blend: Tensor) -> Tensor:
    """ACAI: (d(G(z_a)) - a)^2 + d(x' + gamma (x - x'))^2."""
    return F.mse_loss(score_mixed, weight) + score_blend.square().mean()


def draw_prior(networks: Networks, num_draws: int, z_dim: int, seed: int) -> Tensor:
    """Draws [n, z]: uniform on [-range, range], or normal with that standard deviation. Made on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    if networks.prior == "gaussian":
        return networks.prior_range * torch.randn(num_draws, z_dim, generator=generator)
    return networks.prior_range * (2 * torch.rand(num_draws, z_dim, generator=generator) - 1)


class AdversarialAutoencoder(pl.LightningModule):
    """Encoder and decoder against reconstruction, encoder against discriminator; each player has its own optimiser.

    Any modules will do: ``encoder`` maps a batch to codes [b, z], ``decoder`` codes to a batch. A batch of the training
    data is a pair (step, images): every random number is a function of the step, so a resumed run repeats an
    uninterrupted one.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: LatentDiscriminator,
        critic: nn.Module | None = None,
        networks: Networks,
        training: Training,
        log_every: int = 100,
        check_collapse_after: int | None = None,
    ):
        """``check_collapse_after``: step at which collapsed codes stop the run; None never does."""
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder, self.discriminator, self.critic = encoder, decoder, discriminator, critic
        self.networks, self.training_config = networks, training
        self.log_every, self.check_collapse_after = log_every, check_collapse_after
        self.history: list[dict[str, float]] = []
        self.bad_steps = 0

    def players(self) -> list[nn.Module]:
        """One optimiser each, in this order."""
        return [self.encoder, self.decoder, self.discriminator, *([self.critic] if self.critic is not None else [])]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        config = self.training_config
        betas = (config.betas[0], config.betas[1])
        return [torch.optim.Adam(player.parameters(), lr=config.lr, betas=betas) for player in self.players()]

    def training_step(self, batch: tuple[int, Tensor], batch_index: int) -> None:
        step, x = batch
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        losses = self.play(step, x, optimizers, self.manual_backward)
        if step % self.log_every == 0:
            self.history.append({"step": step, **{name: float(value) for name, value in losses.items()}})
        left = -1 if self.check_collapse_after is None else self.check_collapse_after - step
        if 0 <= left < BAD_STEPS:  # a single step may be bad: images of low contrast change their brightness
            self.bad_steps = self.bad_steps + 1 if collapsed(self.networks, losses) else 0
        if left == 0 and self.bad_steps >= min(BAD_STEPS, step + 1):
            instead = "" if self.networks.code == "linear" else ", or write generator.networks.code=linear"
            raise GenaugError(
                f"The autoencoder has collapsed after {step} steps: {losses['saturated']:.0%} of the latent codes lie beyond "
                f"{SATURATED} of the prior's range, codes of different images differ by {losses['spread']:.3f} of it, and what "
                f"is decoded explains {losses['explained']:.0%} of the images' variance. Lower generator.training.lr{instead}."
            )

    def play(self, step: int, x: Tensor, optimizers: list, backward: Callable[[Tensor], None]) -> dict[str, Tensor]:
        """One step of every player; each optimiser changes only its own player's parameters."""
        config = self.training_config
        weight = config.adversarial_weight(step)
        z = self.encoder(x)
        in_range = z.detach() / self.networks.prior_range
        losses = {"saturated": (in_range.abs() > SATURATED).float().mean(), "spread": in_range.std(dim=0).mean()}
        u = None
        if weight:
            u = draw_prior(self.networks, *z.shape, seed=derive(config.seed, "prior", step)).to(z)
            loss = discriminator_loss(*self.discriminator.logits(u, z.detach()))
            self._descend([optimizers[2]], loss, backward)
            losses["discriminator"] = loss.detach()

        reconstruction = self.decoder(z)
        loss = losses["reconstruction"] = reconstruction_loss(x, reconstruction, config.recon)
        losses["explained"] = 1 - reconstruction_loss(x, reconstruction.detach(), "relative")
        opponents = self.players()[2:]
        for opponent in opponents:
            opponent.requires_grad_(False)
        if u is not None:
            losses["adversarial"] = adversarial_loss(self.discriminator.logits(u, z)[1], config.adv_loss)
            loss = loss + weight * losses["adversarial"]
        mixed = alpha = None
        if self.critic is not None:
            alpha = 0.5 * torch.rand(len(x), generator=torch.Generator().manual_seed(derive(config.seed, "acai", step)))
            alpha = alpha.to(z)
            mixed = self.decoder(torch.lerp(z.flip(0), z, alpha[:, None]))
            losses["fooled"] = self.critic(mixed).square().mean()
            loss = loss + config.lambda_critic * losses["fooled"]
        self._descend(optimizers[:2], loss, backward)
        for opponent in opponents:
            opponent.requires_grad_(True)

        if self.critic is not None and mixed is not None and alpha is not None:
            blend = torch.lerp(reconstruction.detach(), x, config.critic_gamma)
            loss = losses["critic"] = critic_loss(self.critic(mixed.detach()), alpha, self.critic(blend))
            self._descend([optimizers[3]], loss, backward)
        return {name: value.detach() for name, value in losses.items()}

    @staticmethod
    def _descend(optimizers: list, loss: Tensor, backward: Callable[[Tensor], None]) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.history = checkpoint["history"]
