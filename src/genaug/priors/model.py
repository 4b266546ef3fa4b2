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

    ``num_evaluations`` counts U-Net evaluations, one per sample and prompt: a guided step of 8 images counts 16.
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
        compile: bool = False,
    ):
        layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
        self.unet = unet.to(device=device, memory_format=layout).eval().requires_grad_(False)
        self.vae = vae.to(device=device, memory_format=layout).eval().requires_grad_(False)
        self.text_encoder = text_encoder.to(device=device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.image_size = image_size
        self.weights = weights
        self.compiled = compile
        self.num_evaluations = 0
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        """Pixels per latent, along each side."""
        self.erasures: dict[str, Path] = {}
        """Folder of the change of U-Net weights that erases a concept, by concept; set by ``with_erasures``."""
        self._unet = torch.compile(self.unet) if compile else self.unet

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
        self.scaling_factor: float = vae.config.scaling_factor
        self.prompt_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)

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
        pad_to: int | None = None,
    ) -> Tensor:
        """eps_hat = eps(z, t, uncond) + w (eps(z, t, cond) - eps(z, t, uncond)), both in one U-Net call.

        Args:
            z: noisy latents [b, 4, h, w].
            t: timestep, one for all or one per sample [b].
            cond: text features [b, 77, d] or [1, 77, d].
            uncond: text features of the negative prompt [1, 77, d]; None or w = 1 predicts with ``cond`` alone.
            guidance: w.
            pad_to: fill the batch up to this size, so that a compiled U-Net sees one shape.

        Returns:
            eps_hat, float32 [b, 4, h, w], also where the U-Net predicts v.
        """
        b = len(z)
        t = torch.as_tensor(t, device=self.device).expand(b)
        cond = cond.expand(b, -1, -1)
        z_in, t_in, c_in = z, t, cond
        if pad_to is not None and b < pad_to:
            fill = [b - 1] * (pad_to - b)
            z_in, t_in, c_in = (torch.cat([x, x[fill]]) for x in (z, t, cond))
        guided = uncond is not None and guidance != 1.0
        self.num_evaluations += 2 * b if guided else b
        if guided:
            assert uncond is not None
            both = torch.cat([uncond.expand(len(z_in), -1, -1), c_in])
            out_u, out_c = self._raw(torch.cat([z_in, z_in]), torch.cat([t_in, t_in]), both).chunk(2)
            out = out_u + guidance * (out_c - out_u)
        else:
            out = self._raw(z_in, t_in, c_in)
        out = out[:b]
        if self.prediction_type == "epsilon":
            return out
        alpha_bar = self.alphas_cumprod[t.cpu()].view(-1, 1, 1, 1)
        return alpha_bar.sqrt().to(z) * out + (1 - alpha_bar).sqrt().to(z) * z

    def _raw(self, z: Tensor, t: Tensor, features: Tensor) -> Tensor:
        dtype = self.unet.dtype
        return self._unet(z.to(dtype), t, encoder_hidden_states=features.to(dtype), return_dict=False)[0].float()


class _ExtendedTable(torch.nn.Module):
    """Embedding lookup: ids inside the table as before, ids beyond it from ``rows``."""

    def __init__(self, table: Any, rows: Tensor):
        super().__init__()
        self.table, self.rows = table, rows

    def forward(self, ids: Tensor) -> Tensor:
        new = ids - self.table.num_embeddings
        known = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        return torch.where((new >= 0).unsqueeze(-1), self.rows[new.clamp(min=0)].to(known.dtype), known)
