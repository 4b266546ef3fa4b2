"""Loads a diffusion model from its parts in a folder, and tries it once before any long work."""

import contextlib
import json
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from genaug.core.errors import GenaugError, boundary
from genaug.priors.config import PriorConfig
from genaug.priors.hub import check_unet, model_folder, other_folder
from genaug.priors.layout import check_folder
from genaug.priors.lora import lora_file, merge_lora
from genaug.priors.model import Prior


def load_prior(config: PriorConfig, device: str) -> Prior:
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

    def whole(part: str, loaded: Any) -> Any:
        model, about = loaded
        if missing := sorted(about["missing_keys"]):  # the library would draw them at random and go on
            raise GenaugError(
                f"prior.path={config.path}: {len(missing)} of {len(model.state_dict())} tensors of {part}/ are not in its "
                f"weights, e.g. {missing[0]}. They are of another network, or were written by a newer diffusers or "
                "transformers: pip install --upgrade diffusers transformers, or copy or download the model again."
            )
        return model

    local: dict[str, Any] = {"local_files_only": True}
    weights: dict[str, Any] = {"variant": config.variant, "output_loading_info": True, **local}
    dtype, vae_dtype = getattr(torch, config.dtype), getattr(torch, config.vae_dtype)
    with reading("unet"):
        unet = whole(
            "unet", UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **weights)
        )
    with reading("vae"):
        vae = whole("vae", AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=vae_dtype, **weights))
    with reading("text_encoder"):
        text = whole(
            "text_encoder",
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32, **weights),
        )
    with reading("tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", **local)
    with reading("scheduler"):
        scheduler_config: Any = DDPMScheduler.load_config(folder, subfolder="scheduler", **local)
    if config.vae_path is not None:
        vae = _other_vae(config.vae_path, vae_dtype)
    if config.lora_path is not None:
        merge_lora(
            {"unet": unet, "text_encoder": text}, lora_file("prior.lora_path", config.lora_path), config.lora_scale
        )
    with boundary(
        f"prior.path={config.path}: its parts do not work together",
        "They are parts of different models, or incomplete: copy or download the model again, or name another folder.",
    ):
        prior = Prior(
            unet=unet,
            vae=vae,
            text_encoder=text,
            tokenizer=tokenizer,
            scheduler_config=scheduler_config,
            image_size=config.image_size,
            weights=config.identity()["path"],
            device=device,
        )
        check_use(prior)
    if config.compile:
        prior.compile(config.compile_mode, config.fuse_qkv)
    return prior


@torch.no_grad()
def check_use(prior: Prior) -> None:
    """One step of everything at the smallest size, which no later work should be the first to try.

    Raises:
        GenaugError: if the tokenizer has no start or end of a prompt, or weights give what is not a number.
    """
    for name in ("bos_token", "eos_token"):
        if getattr(prior.tokenizer, f"{name}_id") is None:
            raise GenaugError(f"The tokenizer of {prior.weights} has no {name}: copy or download tokenizer/ again.")
    text = prior.embed(["a photo"])
    z = prior.encode(torch.zeros(1, 3, prior.frame_multiple, prior.frame_multiple))
    eps = prior.unet(z.to(prior.unet.dtype), 1, encoder_hidden_states=text.to(prior.unet.dtype), return_dict=False)[0]
    for part, numbers in (("text_encoder", text), ("vae", z), ("unet", eps), ("vae", prior.decode(z))):
        if not torch.isfinite(numbers).all():
            raise GenaugError(
                f"{part}/ of {prior.weights} gives what is not a number: its weights are damaged, or too large for "
                f"{prior.unet.dtype} (prior.dtype, prior.vae_dtype)."
            )
    if eps.shape != z.shape:
        raise GenaugError(f"The U-Net of {prior.weights} gives {tuple(eps.shape)} for latents of {tuple(z.shape)}.")


def _other_vae(path: str, dtype: torch.dtype) -> Any:
    """An ``AutoencoderKL`` or ``AutoencoderTiny``, whichever its config names."""
    folder = other_folder("prior.vae_path", path, ("*.json", "*.safetensors"), "prior.vae_path=null")
    with boundary(
        f"prior.vae_path={path}: {folder} holds no VAE of diffusers", "Write prior.vae_path=null, or another."
    ):
        name = json.loads((folder / "config.json").read_text())["_class_name"]
        kind = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[name]
        return kind.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
