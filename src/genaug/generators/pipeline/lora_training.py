"""A LoRA of a diffusers pipeline, by the targets of diffusers' own training scripts.

SDXL (train_dreambooth_lora_sdxl.py)    z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) n,   target n, or v for v-prediction
FLUX.1 (train_dreambooth_lora_flux.py)  z_s = (1 - s) z + s n, s = sigmoid(N(0, 1)),           target n - z

Every random number is a function of (seed, step). The file is what ``load_lora_weights`` reads.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from genaug.core.errors import GenaugError
from genaug.core.progress import Progress
from genaug.core.seeding import derive
from genaug.data.sample import Dataset
from genaug.generators.pipeline.lora_fit import PipelineLora
from genaug.generators.sdedit.sampler import to_tensor
from genaug.priors.lora import FILES

NAME = "genaug_fit"
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
"""The attention layers that get a LoRA, by the end of their names."""

Loss = Callable[[Tensor, dict[str, Tensor], torch.Generator], Tensor]
"""Of latents [b, c, h, w] and the features of their prompts."""


def learn_pipeline_lora(
    pipe: Any, dataset: Dataset, prompts: list[str], config: PipelineLora, image_size: int, folder: Path
) -> dict[str, Any]:
    """Learn a LoRA of the pipeline's denoiser on the training images and write it into ``folder``; the pipeline's own weights
    stay as they are.

    Args:
        prompts: one per training image.
        image_size: side in pixels at which the images are shown.

    Raises:
        GenaugError: for a pipeline of another family, or weights that become what is not a number.
    """
    part, loss_of = _family(pipe, config)
    denoiser = getattr(pipe, part)
    features = {text: pipe_features(pipe, text) for text in dict.fromkeys(prompts)}
    denoiser.requires_grad_(False)
    denoiser.add_adapter(
        LoraConfig(r=config.rank, lora_alpha=config.rank, init_lora_weights="gaussian", target_modules=LAYERS), NAME
    )
    weights = {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
    for name, weight in weights.items():
        weight.data = weight.data.float()
        if ".lora_A." in name:
            random = torch.Generator().manual_seed(derive(config.seed, "lora", name))
            weight.data.copy_(torch.randn(weight.shape, generator=random) / config.rank)
    if config.checkpoint_gradients:
        denoiser.enable_gradient_checkpointing()
    optimiser = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    losses = []
    with Progress("learning a LoRA", config.num_steps) as progress, torch.enable_grad():
        for step in range(config.num_steps):
            random = torch.Generator().manual_seed(derive(config.seed, "lora", step))
            chosen = torch.randint(len(dataset.train), (config.batch_size,), generator=random).tolist()
            z = torch.cat([latents(pipe, dataset.train[i].open(), image_size, random) for i in chosen])
            rows = [features[prompts[i]] for i in chosen]
            loss = loss_of(z, {key: torch.cat([row[key] for row in rows]) for key in rows[0]}, random)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
            optimiser.step()
            losses.append(loss.item())
            progress.update(step + 1)
    found = {
        name: weight.cpu().contiguous()
        for name, weight in get_peft_model_state_dict(denoiser, adapter_name=NAME).items()
    }
    denoiser.delete_adapters(NAME)
    if config.checkpoint_gradients:
        denoiser.disable_gradient_checkpointing()
    if not all(torch.isfinite(weight).all() for weight in found.values()):
        raise GenaugError("The LoRA became NaN or infinite: write a smaller generator.lora_fit.learning_rate.")
    type(pipe).save_lora_weights(folder, **{f"{part}_lora_layers": found})
    edge = max(1, config.num_steps // 10)
    means = {"first_tenth": sum(losses[:edge]) / edge, "last_tenth": sum(losses[-edge:]) / edge}
    count = config.num_steps * config.batch_size
    return {"loss": means, "num_steps": config.num_steps, "network_evaluations": count, "file": FILES[0]}


def _family(pipe: Any, config: PipelineLora) -> tuple[str, Loss]:
    kind = type(getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)).__name__
    if kind == "UNet2DConditionModel" and getattr(pipe, "text_encoder_2", None) is not None:
        return "unet", lambda z, features, random: sdxl_loss(pipe, z, features, random)
    if kind == "FluxTransformer2DModel" and pipe.transformer.config.in_channels == 4 * pipe.vae.config.latent_channels:
        return "transformer", lambda z, features, random: flux_loss(pipe, z, features, random, config.guidance)
    raise GenaugError(
        f"generator.lora_fit trains SDXL and FLUX.1, not {type(pipe).__name__} with {kind}: train a LoRA with diffusers' own "
        "scripts and write generator.lora.path=FILE, or, for Stable Diffusion 1.x, take a generator with generator.lora."
    )


@torch.no_grad()
def pipe_features(pipe: Any, text: str) -> dict[str, Tensor]:
    """What the denoiser is told of a prompt: ``text`` [1, n, d] and ``pooled`` [1, d]."""
    found = pipe.encode_prompt(text, device=pipe.device, num_images_per_prompt=1, **_without_guidance(pipe))
    return {"text": found[0], "pooled": found[1] if hasattr(pipe, "transformer") else found[2]}


def _without_guidance(pipe: Any) -> dict[str, Any]:
    return {} if hasattr(pipe, "transformer") else {"do_classifier_free_guidance": False}


@torch.no_grad()
def latents(pipe: Any, picture: Any, image_size: int, random: torch.Generator) -> Tensor:
    """A sample of the VAE's posterior, scaled as the denoiser takes it [1, c, h, w], on the pipeline's device."""
    posterior = pipe.vae.encode(
        to_tensor(picture, image_size, "squash")[None].to(pipe.vae.device, pipe.vae.dtype)
    ).latent_dist
    z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=random).to(posterior.mean)
    return (z - (getattr(pipe.vae.config, "shift_factor", None) or 0.0)) * pipe.vae.config.scaling_factor


def sdxl_loss(pipe: Any, z: Tensor, features: dict[str, Tensor], random: torch.Generator) -> Tensor:
    from diffusers import DDPMScheduler

    schedule: Any = DDPMScheduler.from_config(pipe.scheduler.config)
    noise = torch.randn(z.shape, generator=random).to(z)
    t = torch.randint(schedule.config.num_train_timesteps, (len(z),), generator=random).to(z.device)
    side = z.shape[-1] * pipe.vae_scale_factor
    ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=z.dtype, device=z.device).repeat(len(z), 1)
    added = {"text_embeds": features["pooled"], "time_ids": ids}
    noisy = schedule.add_noise(z, noise, t)
    found = pipe.unet(noisy, t, features["text"], added_cond_kwargs=added).sample
    target = schedule.get_velocity(z, noise, t) if schedule.config.prediction_type == "v_prediction" else noise
    return (found.float() - target.float()).square().mean()


def flux_loss(pipe: Any, z: Tensor, features: dict[str, Tensor], random: torch.Generator, guidance: float) -> Tensor:
    b, channels, h, w = z.shape
    noise = torch.randn(z.shape, generator=random).to(z)
    s = torch.randn((b,), generator=random).sigmoid().to(z)
    noisy = (1 - s.view(-1, 1, 1, 1)) * z + s.view(-1, 1, 1, 1) * noise
    told = (
        torch.full((b,), guidance, dtype=z.dtype, device=z.device) if pipe.transformer.config.guidance_embeds else None
    )
    found = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, b, channels, h, w),
        timestep=s,
        guidance=told,
        pooled_projections=features["pooled"],
        encoder_hidden_states=features["text"],
        txt_ids=torch.zeros(features["text"].shape[1], 3).to(z),
        img_ids=pipe._prepare_latent_image_ids(b, h // 2, w // 2, z.device, z.dtype),
    ).sample
    target = pipe._pack_latents(noise - z, b, channels, h, w)
    return (found.float() - target.float()).square().mean()
