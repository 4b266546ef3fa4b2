"""A loaded diffusion model, as every generator sees it: latents, prompt embeddings, noise predictions.

Stable Diffusion's shape is assumed: a VAE, a U-Net with cross-attention and one CLIP text encoder. All weights are
frozen. Prompts may hold learned tokens, written ``<name>``; they change neither the tokenizer nor the text encoder.
"""

import contextlib
import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from genaug.core.errors import GenaugError, boundary
from genaug.priors.config import PriorConfig
from genaug.priors.deltas import DELTA, applied, load_delta
from genaug.priors.hub import check_unet, model_folder, other_folder
from genaug.priors.layout import check_folder
from genaug.priors.lora import FILES, merge_lora

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

    @classmethod
    def load(cls, config: PriorConfig, device: str) -> "Prior":
        """Load the parts from the config's folder, or from the Hub by way of the local cache.

        Raises:
            GenaugError: if a part is absent or damaged, or the Hub cannot be reached and holds no cached copy.
        """
        config.check()
        folder = config.folder
        if folder is None:
            folder = model_folder(config.path, config.revision, config.variant)
            if config.unet_sha256 is not None and config.variant is None:
                check_unet(folder, config.unet_sha256)
        check_folder(config.path, folder)
        transformers.logging.disable_progress_bar()

        def reading(part: str) -> contextlib.AbstractContextManager[None]:
            return boundary(
                f"prior.path={config.path}: {part}/ in {folder} cannot be loaded",
                "Copy or download the model again, name its file variant (prior.variant=fp16 or null), or another folder.",
            )

        local: dict[str, Any] = {"local_files_only": True}
        weights: dict[str, Any] = {"variant": config.variant, **local}
        dtype, vae_dtype = getattr(torch, config.dtype), getattr(torch, config.vae_dtype)
        with reading("unet"):
            unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **weights)
        with reading("vae"):
            vae: Any = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=vae_dtype, **weights)
        with reading("text_encoder"):
            text: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32, **weights)
        with reading("tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", **local)
        with reading("scheduler"):
            scheduler_config: Any = DDPMScheduler.load_config(folder, subfolder="scheduler", **local)
        if config.vae_path is not None:
            vae = _other_vae(config.vae_path, vae_dtype)
        if config.lora_path is not None:
            merge_lora({"unet": unet, "text_encoder": text}, _lora_file(config.lora_path), config.lora_scale)
        with boundary(
            f"prior.path={config.path}: its parts do not work together",
            "They are parts of different models, or incomplete: copy or download the model again, or name another folder.",
        ):
            prior = cls(
                unet=unet,
                vae=vae,
                text_encoder=text,
                tokenizer=tokenizer,
                scheduler_config=scheduler_config,
                image_size=config.image_size,
                weights=config.identity()["path"],
                device=device,
                compile=config.compile,
            )
            prior.check_use()
        return prior

    @torch.no_grad()
    def check_use(self) -> None:
        """One step of everything at the smallest size, which no later work should be the first to try.

        Raises:
            GenaugError: if the tokenizer has no start or end of a prompt, or weights give what is not a number.
        """
        for name in ("bos_token", "eos_token"):
            if getattr(self.tokenizer, f"{name}_id") is None:
                raise GenaugError(f"The tokenizer of {self.weights} has no {name}: copy or download tokenizer/ again.")
        text = self.embed(["a photo"])
        side = self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        z = self.encode(torch.zeros(1, 3, side, side))
        eps = self.unet(z.to(self.unet.dtype), 1, encoder_hidden_states=text.to(self.unet.dtype), return_dict=False)[0]
        for part, numbers in (("text_encoder", text), ("vae", z), ("unet", eps), ("vae", self.decode(z))):
            if not torch.isfinite(numbers).all():
                raise GenaugError(
                    f"{part}/ of {self.weights} gives what is not a number: its weights are damaged, or too large for "
                    f"{self.unet.dtype} (prior.dtype, prior.vae_dtype)."
                )
        if eps.shape != z.shape:
            raise GenaugError(f"The U-Net of {self.weights} gives {tuple(eps.shape)} for latents of {tuple(z.shape)}.")

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


def _other_vae(path: str, dtype: torch.dtype) -> Any:
    """An ``AutoencoderKL`` or ``AutoencoderTiny``, whichever its config names."""
    folder = other_folder("vae_path", path, ("*.json", "*.safetensors"))
    with boundary(
        f"prior.vae_path={path}: {folder} holds no VAE of diffusers", "Write prior.vae_path=null, or another."
    ):
        name = json.loads((folder / "config.json").read_text())["_class_name"]
        kind = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[name]
        return kind.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)


def _lora_file(path: str) -> Path:
    file = Path(path).expanduser()
    if file.is_file():
        return file
    folder = other_folder("lora_path", path, ("*.safetensors", "adapter_config.json"))
    found = [folder / name for name in FILES if (folder / name).is_file()] or sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "no .safetensors file"
        raise GenaugError(f"prior.lora_path={path} holds {listed}: write prior.lora_path={path}/FILE.safetensors.")
    return found[0]
