"""A loaded diffusion model, as every generator sees it: latents, prompt embeddings, noise predictions.

Stable Diffusion's shape is assumed: a VAE, a U-Net with cross-attention and one CLIP text encoder. All weights are
frozen. Prompts may hold learned tokens, written ``<name>``; they change neither the tokenizer nor the text encoder.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from genaug.core.errors import GenaugError
from genaug.priors.deltas import DELTA, applied, load_delta
from genaug.priors.kept import Depths, kept_depths, kept_projections
from genaug.priors.quick_gelu import fuse_quick_gelu

PLACEHOLDER = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True, slots=True, eq=False)
class LearnedTokens:
    """Embeddings that prompts may name besides the tokenizer's own words."""

    rows: Tensor
    """float32 [R, d]: all learned vectors."""
    places: Mapping[str, tuple[int, ...]]
    """Token name with its angle brackets, to its rows in order; they need not be adjacent."""

    @classmethod
    def of(cls, vectors: Mapping[str, Tensor]) -> "LearnedTokens":
        """From ``{"<name>": [v, d]}``."""
        places, start = {}, 0
        for name, vector in vectors.items():
            places[name] = tuple(range(start, start + len(vector)))
            start += len(vector)
        return cls(torch.cat(list(vectors.values())).float(), places)


class Prior:
    """A frozen diffusion model on one device.

    ``num_evaluations`` counts evaluations of the whole U-Net, one per sample and prompt: a guided step of 8 images counts 16.
    ``weights`` names the weights in manifests: a hash of the folder's files, or the Hub id.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler_config: Mapping[str, Any],
        image_size: int,
        weights: str = "",
        device: str = "cpu",
    ):
        layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
        self.unet = unet.to(device=device, memory_format=layout).eval().requires_grad_(False)
        self.vae = vae.to(device=device, memory_format=layout).eval().requires_grad_(False)
        self.text_encoder = text_encoder.to(device=device).eval().requires_grad_(False)
        fuse_quick_gelu(self.text_encoder)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.image_size = image_size
        self.weights = weights
        self.compiled: str | None = None
        """How the networks are compiled; see ``compile``."""
        self.num_evaluations = 0
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        """Pixels per latent, along each side."""
        self.frame_multiple = self.vae_factor * 2 ** (len(unet.config.block_out_channels) - 1)
        """What the sides of an image must be multiples of."""
        self.erasures: dict[str, Path] = {}
        """Folder of the change of U-Net weights that erases a concept, by concept; set by ``with_erasures``."""

        schedule: Any = DDPMScheduler.from_config(dict(scheduler_config))
        self.prediction_type: str = schedule.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise GenaugError(
                f"The prior's scheduler says prediction_type={self.prediction_type}: epsilon and v_prediction work."
            )
        if unet.config.in_channels != vae.config.latent_channels or unet.config.addition_embed_type is not None:
            raise GenaugError(
                f"The prior's U-Net takes {unet.config.in_channels} channels and addition_embed_type="
                f"{unet.config.addition_embed_type}: choose a text-to-image model of Stable Diffusion 1 or 2, "
                "not an inpainting or SDXL one."
            )
        self.betas = schedule.betas
        """float32 [num_train_timesteps]."""
        self.alphas_cumprod = torch.cumprod(1 - schedule.betas.double(), dim=0)
        """alpha_bar, float64 [num_train_timesteps], on the CPU (some devices have no float64)."""
        # where v is converted at every step: on the device, which else would wait for the CPU
        table = self.alphas_cumprod if device == "cpu" else self.alphas_cumprod.float().to(device)
        self._signal, self._noise = table.sqrt(), (1 - table).sqrt()
        self._batch_size: int | None = None
        self._depths: Depths | None = None
        self._text: tuple[Tensor, Tensor | None, int, Tensor] | None = None
        """While sampling: text features of the last call, the number of its samples, and what the U-Net was given."""
        self.scaling_factor: float = vae.config.scaling_factor
        self.prompt_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)

    def compile(self, mode: str = "default", fuse_qkv: bool = False) -> None:
        """Compile the networks in place; their next calls do the work.

        Args:
            mode: ``repeated_blocks`` compiles the U-Net's transformer blocks, each kind once; any other mode of
                ``torch.compile`` the whole U-Net and both halves of the VAE.
            fuse_qkv: query, key and value of each attention by one product. The U-Net's weights cannot be changed then.
        """
        self.compiled = mode
        if fuse_qkv:
            self.unet.fuse_qkv_projections()
            if hasattr(self.vae, "fuse_qkv_projections"):  # not TAESD, which has no attention
                self.vae.fuse_qkv_projections()
        if mode == "repeated_blocks":
            self.unet.compile_repeated_blocks()
        else:
            for network in (self.unet, self.vae.encoder, self.vae.decoder):
                network.compile(mode=mode)

    def with_erasures(self, folders: Mapping[str, Path]) -> "Prior":
        """The same networks, which know how to leave out concepts (folders by concept), with a count of its own."""
        other = copy.copy(self)
        other.erasures, other.num_evaluations = dict(folders), 0
        return other

    @contextlib.contextmanager
    def erased(self, concept: str | None) -> Iterator[None]:
        """The U-Net without ``concept``, restored exactly afterwards; as it is where nothing is erased."""
        if concept is None or not self.erasures:
            yield
            return
        delta, _ = load_delta(self.erasures[concept] / DELTA)
        with applied(self.unet, delta):
            yield

    # images and latents

    @torch.no_grad()
    def encode_moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's posterior, scaled.

        Args:
            images: [b, 3, h, w] in [-1, 1].

        Returns:
            two float32 tensors [b, 4, h/8, w/8] in units of the U-Net's latents (``scaling_factor`` applied).
        """
        encoded = self.vae.encode(images.to(self.device, self.vae.dtype))
        if hasattr(encoded, "latents"):  # TAESD has no posterior
            mean = encoded.latents.float() * self.scaling_factor
            return mean, torch.zeros_like(mean)
        posterior = encoded.latent_dist
        return posterior.mean.float() * self.scaling_factor, posterior.std.float() * self.scaling_factor

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents [b, 4, h/8, w/8] of images [b, 3, h, w] in [-1, 1]: a posterior draw with ``noise``, or its mean."""
        mean, std = self.encode_moments(images)
        return mean if noise is None else mean + std * noise.to(mean)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images [b, 3, h, w], about [-1, 1], of latents [b, 4, h/8, w/8]."""
        return self.vae.decode((z / self.scaling_factor).to(self.vae.dtype)).sample.float()

    # prompts

    def word_ids(self, text: str) -> list[int]:
        """Ids of a plain text without start, end or padding."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def token_ids(self, prompts: Sequence[str], tokens: LearnedTokens | None = None) -> Tensor:
        """Ids [b, 77] of prompts; a learned token ``<name>`` gives exactly its own ids, beyond the tokenizer's table.

        Raises:
            GenaugError: if a prompt names a token that was not learned, or is longer than the text encoder allows.
        """
        first_new = self.text_encoder.get_input_embeddings().num_embeddings
        tokenizer = self.tokenizer
        rows = []
        for prompt in prompts:
            ids = [tokenizer.bos_token_id]
            end = 0
            for match in PLACEHOLDER.finditer(prompt):
                if tokens is None or match.group() not in tokens.places:
                    known = ", ".join(sorted(tokens.places)) if tokens is not None else "none"
                    raise GenaugError(
                        f"The prompt '{prompt}' names {match.group()}, which was not learned (learned: {known})."
                    )
                ids += self.word_ids(prompt[end : match.start()])
                ids += [first_new + row for row in tokens.places[match.group()]]
                end = match.end()
            ids += [*self.word_ids(prompt[end:]), tokenizer.eos_token_id]
            if len(ids) > self.prompt_length:
                raise GenaugError(
                    f"The prompt '{prompt}' has {len(ids)} tokens, the text encoder takes {self.prompt_length}: "
                    "shorten it, or learn fewer vectors per token."
                )
            rows.append(ids + [tokenizer.pad_token_id] * (self.prompt_length - len(ids)))
        return torch.tensor(rows, device=self.device)

    def embed_ids(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Text features float32 [b, 77, d] of ids [b, 77]; ids beyond the table take ``rows`` [R, d], with gradient."""
        if rows is None:
            return self.text_encoder(input_ids=ids).last_hidden_state
        with self._table_with(rows.to(self.device)):
            return self.text_encoder(input_ids=ids).last_hidden_state

    @torch.no_grad()
    def embed(self, prompts: Sequence[str], tokens: LearnedTokens | None = None) -> Tensor:
        """Text features float32 [b, 77, d] of prompts."""
        return self.embed_ids(self.token_ids(prompts, tokens), None if tokens is None else tokens.rows)

    @contextlib.contextmanager
    def _table_with(self, rows: Tensor) -> Iterator[None]:
        table = self.text_encoder.get_input_embeddings()
        self.text_encoder.set_input_embeddings(_ExtendedTable(table, rows))
        try:
            yield
        finally:
            self.text_encoder.set_input_embeddings(table)

    # noise

    def predict_noise(
        self,
        z: Tensor,
        t: Tensor | int,
        cond: Tensor,
        uncond: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """eps_hat = eps(z, t, uncond) + w (eps(z, t, cond) - eps(z, t, uncond)), both in one U-Net call.

        Args:
            z: noisy latents [b, 4, h, w].
            t: timestep, one for all or one per sample [b].
            cond: text features [b, 77, d] or [1, 77, d].
            uncond: text features of the negative prompt [1, 77, d]; None or w = 1 predicts with ``cond`` alone.
            guidance: w.

        Returns:
            eps_hat, float32 [b, 4, h, w], also where the U-Net predicts v.
        """
        b = len(z)
        # a number is filled in by the device; a copy of it would wait for the CPU
        t = torch.full((b,), t, device=self.device) if isinstance(t, int) else t.to(self.device).expand(b)
        guided = uncond is not None and guidance != 1.0
        size = -(-b // self._batch_size) * self._batch_size if self.compiled and self._batch_size else b
        text = self._text_rows(cond, uncond if guided else None, b, size)
        if self._depths is not None:
            self._depths.next(text)
        if self._depths is None or not self._depths.used_again:
            self.num_evaluations += 2 * b if guided else b
        z_in, t_in = _filled(z, size), _filled(t, size)
        if guided:
            z_in, t_in = torch.cat([z_in, z_in]), torch.cat([t_in, t_in])
        out = self.unet(z_in.to(text.dtype), t_in, encoder_hidden_states=text, return_dict=False)[0].float()
        if guided:
            out_u, out_c = out.chunk(2)
            out = out_u + guidance * (out_c - out_u)
        out = out[:b]
        if self.prediction_type == "epsilon":
            return out
        return self._signal[t].view(-1, 1, 1, 1).to(z) * out + self._noise[t].view(-1, 1, 1, 1).to(z) * z

    def _text_rows(self, cond: Tensor, uncond: Tensor | None, b: int, size: int) -> Tensor:
        """What the U-Net is given [size or 2 size, 77, d]; while sampling the same tensor for the same text."""
        if self._text is not None and self._text[0] is cond and self._text[1] is uncond and self._text[2] == size:
            return self._text[3]
        rows = _filled(cond.expand(b, -1, -1), size)
        if uncond is not None:
            rows = torch.cat([uncond.expand(size, -1, -1), rows])
        rows = rows.to(self.unet.dtype)
        if self._batch_size is not None and not rows.requires_grad:
            self._text = cond, uncond, size, rows
        return rows

    @contextlib.contextmanager
    def sampling(self, batch_size: int, cache_interval: int | None = None) -> Iterator[None]:
        """Inside, weights stay as they are: what the U-Net makes of a text is kept from step to step, and a compiled U-Net
        sees multiples of ``batch_size`` alone, other batches filled up with their last sample. With ``cache_interval``, calls
        for one text compute the U-Net's deep features at the first of every so many alone (``kept_depths``); latents must
        keep their shape."""
        former = self._batch_size, self._depths
        self._batch_size = batch_size
        try:
            with contextlib.ExitStack() as inside:
                if not self.compiled:
                    inside.enter_context(kept_projections(self.unet))
                if cache_interval is not None:
                    self._depths = inside.enter_context(kept_depths(self.unet, cache_interval))
                yield
        finally:
            (self._batch_size, self._depths), self._text = former, None


def _filled(rows: Tensor, size: int) -> Tensor:
    """[size, ...]: the rows, and the last one again and again."""
    b = len(rows)
    return rows if b == size else torch.cat([rows, rows[-1:].expand(size - b, *rows.shape[1:])])


class _ExtendedTable(torch.nn.Module):
    """Embedding lookup: ids inside the table as before, ids beyond it from ``rows``."""

    def __init__(self, table: Any, rows: Tensor):
        super().__init__()
        self.table, self.rows = table, rows

    def forward(self, ids: Tensor) -> Tensor:
        new = ids - self.table.num_embeddings
        known = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        return torch.where((new >= 0).unsqueeze(-1), self.rows[new.clamp(min=0)].to(known.dtype), known)
