"""Training of the tiny prior in resumable stages: autoencoder, latent bank, U-Net with text encoder, export.

A stage keeps one checkpoint (weights, optimiser, moving average, step). Batches are drawn from generators seeded by
(seed, stage, step), so that an interrupted run continues exactly the stream that it would have seen.
"""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers loads its public names lazily and annotates its arguments and results more narrowly than they are.

import hashlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genaug.core.checkpoints import Pace, read_checkpoint, save_checkpoint
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.priors.corpus import (
    GENERIC_PROMPTS,
    MICROGRAPH_SUBJECT,
    MICROGRAPH_TEMPLATES,
    PROMPT_TEMPLATES,
    Corpus,
    draw_digits,
    draw_pictures,
    draw_scenes,
    load_corpus,
)
from genaug.priors.recipe import PriorRecipe
from genaug.priors.vocabulary import save_tokenizer

VAE_FIELDS = ("seed", "vae_", "kl_weight", "l1_weight", "gradient_weight")
MICROGRAPH_PROB = 0.2
TEMPLATES_PER_STEP = 4


def train(recipe: PriorRecipe, out_dir: Path) -> Path:
    """All stages in order; see `recipe.train_prior`."""
    torch.set_num_threads(recipe.num_threads)
    corpus = load_corpus(recipe.data_dir).to(torch.device(recipe.device))
    checkpoint_dir = out_dir / "checkpoints"
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(out_dir / "prior" / "tokenizer", recipe.vocab_size, corpus.subjects)
    vae = train_vae(recipe, corpus, checkpoint_dir)
    bank = build_bank(recipe, corpus, vae, checkpoint_dir)
    vae.register_to_config(scaling_factor=bank["scaling_factor"])
    unet, text_encoder = train_unet(recipe, bank, tokenizer, checkpoint_dir)
    return save_prior(out_dir / "prior", vae, unet, text_encoder)


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator whose state depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def new_vae(recipe: PriorRecipe) -> AutoencoderKL:
    num_levels = len(recipe.vae_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * num_levels,
        up_block_types=("UpDecoderBlock2D",) * num_levels,
        block_out_channels=tuple(recipe.vae_channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )


def new_unet(recipe: PriorRecipe) -> UNet2DConditionModel:
    num_levels = len(recipe.unet_channels)
    return UNet2DConditionModel(
        sample_size=4,
        block_out_channels=tuple(recipe.unet_channels),
        down_block_types=("CrossAttnDownBlock2D",) * num_levels,
        up_block_types=("CrossAttnUpBlock2D",) * num_levels,
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=4,  # the number of heads: diffusers keeps the historical name
        norm_num_groups=16,
    )


def new_text_encoder(recipe: PriorRecipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            projection_dim=recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def run_stage(
    recipe: PriorRecipe,
    stage: str,
    identity: dict[str, Any],
    models: nn.ModuleDict,
    num_steps: int,
    lr: float,
    loss_of_step: Callable[[int], Tensor],
    path: Path,
) -> None:
    """Optimises `models` for `num_steps`, from the checkpoint at `path` if any; leaves the averaged weights in."""
    optimizer = torch.optim.AdamW(models.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    names, parameters = zip(*models.named_parameters(), strict=True)
    average = {name: tensor.detach().clone() for name, tensor in models.state_dict().items()}
    first = 0
    state = read_checkpoint(path, print)
    if state is not None:
        if state["identity"] != identity:
            changed = sorted(key for key in identity if state["identity"].get(key) != identity[key])
            raise GenaugError(
                f"{path} was written by a recipe with other values of {', '.join(changed)}. Choose another output "
                "folder, or restore these values to continue."
            )
        models.load_state_dict(state["models"])
        optimizer.load_state_dict(state["optimizer"])
        average = {name: tensor.to(recipe.device) for name, tensor in state["average"].items()}
        first = state["step"]
    warmup = min(100, max(1, num_steps // 10))
    models.train()
    start, checkpoints = time.monotonic(), Pace(recipe.checkpoint_every)
    for step in range(first, num_steps):
        annealed = max(0.0, (step - warmup) / max(1, num_steps - warmup))
        factor = min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * annealed)))
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        decay = min(recipe.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([average[name] for name in names], parameters, 1 - decay)
        done = step + 1
        if done % recipe.log_every == 0 or done == num_steps:
            pace = (time.monotonic() - start) / (done - first)
            left = pace * (num_steps - done) / 60
            progress = f"{stage} {done}/{num_steps} loss {loss.item():.4f} {pace:.2f} s/step"
            print(f"{progress}, {left:.1f} min left", flush=True)
        if checkpoints.due(done) or done == num_steps:
            state = {"identity": identity, "step": done, "models": models.state_dict(), "average": average}
            save_checkpoint({**state, "optimizer": optimizer.state_dict()}, path)
    models.load_state_dict(average)
    models.eval().requires_grad_(False)


def train_vae(recipe: PriorRecipe, corpus: Corpus, checkpoint_dir: Path) -> AutoencoderKL:
    """Squared, absolute and gradient error plus a small KL term, on 32 px and 64 px pictures in each step."""
    torch.manual_seed(recipe.seed)
    vae = new_vae(recipe).to(recipe.device)
    num_large = recipe.vae_large_batch_size

    def loss_of_step(step: int) -> Tensor:
        generator = seeded(recipe.seed, "vae", step)
        num_pictures = recipe.vae_batch_size // 6
        digits, _ = draw_digits(corpus, generator, recipe.vae_batch_size - num_pictures, strong=True)
        pictures, _ = draw_pictures(corpus, generator, num_pictures, 32, MICROGRAPH_PROB)
        scenes, _ = draw_scenes(corpus, generator, num_large // 4)
        large, _ = draw_pictures(corpus, generator, num_large - num_large // 4, 64, MICROGRAPH_PROB)
        small, large = torch.cat([digits, pictures]), torch.cat([scenes, large])
        return vae_loss(recipe, vae, small, generator) + vae_loss(recipe, vae, large, generator)

    fields = {key: value for key, value in asdict(recipe).items() if key.startswith(VAE_FIELDS)}
    path = checkpoint_dir / "vae.pt"
    run_stage(recipe, "vae", fields, nn.ModuleDict({"vae": vae}), recipe.vae_steps, recipe.vae_lr, loss_of_step, path)
    return vae


def vae_loss(recipe: PriorRecipe, vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> Tensor:
    """Loss of `images` in [0, 1], [n, 3, h, w]; the posterior is sampled with noise from `generator`."""
    x = images * 2 - 1
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.vae_precision == "bf16"):
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
        y = vae.decode(posterior.mean + posterior.std * noise).sample
    error = y.float() - x
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    pixel = error.square().mean() + recipe.l1_weight * error.abs().mean()
    return pixel + recipe.gradient_weight * gradient + recipe.kl_weight * kl


@torch.no_grad()
def build_bank(recipe: PriorRecipe, corpus: Corpus, vae: AutoencoderKL, checkpoint_dir: Path) -> dict[str, Any]:
    """Encodes the U-Net's pictures once: latents (one posterior sample each, divided by their standard deviation) of 32
    px ("small") and 64 px ("large") pictures in fp16, the subject of each, and `scaling_factor`."""
    path = checkpoint_dir / "bank.pt"
    identity = {key: value for key, value in asdict(recipe).items() if key.startswith((*VAE_FIELDS, "bank_"))}
    known = read_checkpoint(path, print)
    if known is not None and known["identity"] == identity:
        return known
    draws: dict[str, list[tuple[int, Callable[..., tuple[Tensor, list[str]]]]]] = {
        "small": [
            (recipe.bank_digits, lambda generator, n: draw_digits(corpus, generator, n)),
            (recipe.bank_small_pictures, lambda generator, n: draw_pictures(corpus, generator, n, 32, MICROGRAPH_PROB)),
        ],
        "large": [
            (recipe.bank_scenes, lambda generator, n: draw_scenes(corpus, generator, n)),
            (recipe.bank_pictures, lambda generator, n: draw_pictures(corpus, generator, n, 64, MICROGRAPH_PROB)),
        ],
    }
    bank: dict[str, Any] = {"identity": identity}
    for size, parts in draws.items():
        latents, subjects = [], []
        for part, (total, draw) in enumerate(parts):
            for first in range(0, total, 100):
                generator = seeded(recipe.seed, "bank", size, part, first)
                images, words = draw(generator, min(100, total - first))
                with torch.autocast(
                    recipe.device.split(":")[0], torch.bfloat16, enabled=recipe.vae_precision == "bf16"
                ):
                    posterior = vae.encode(images * 2 - 1).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=generator).to(images.device)
                latents.append((posterior.mean + posterior.std * noise).float().cpu())
                subjects += words
        bank[size] = torch.cat(latents)
        bank[f"{size}_subjects"] = subjects
    bank["scaling_factor"] = 1 / float(bank["small"].std())
    for size in draws:
        bank[size] = (bank[size] * bank["scaling_factor"]).half()
        print(f"bank {size}: {len(bank[size])} latents, standard deviation {bank[size].float().std():.3f}", flush=True)
    save_checkpoint(bank, path)
    return bank


def draw_prompts(recipe: PriorRecipe, subjects: list[str], generator: torch.Generator) -> list[str]:
    """One prompt per subject; few templates a call keep the distinct prompts, and so the text encoder's work, few."""
    draw = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    templates = ["a photo of a {}", *draw.sample(PROMPT_TEMPLATES, TEMPLATES_PER_STEP - 1)]
    prompts = []
    for subject in subjects:
        choices = MICROGRAPH_TEMPLATES if subject == MICROGRAPH_SUBJECT else templates
        u, text = draw.random(), draw.choice(choices).format(subject)
        if u < recipe.empty_prompt_prob:
            text = ""
        elif u < recipe.empty_prompt_prob + recipe.generic_prompt_prob:
            text = draw.choice(GENERIC_PROMPTS)
        prompts.append(text)
    return prompts


def train_unet(
    recipe: PriorRecipe, bank: dict[str, Any], tokenizer: CLIPTokenizer, checkpoint_dir: Path
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Epsilon prediction, U-Net and text encoder together, on 4x4 latents and every few steps on 8x8 ones."""
    torch.manual_seed(recipe.seed + 1)
    unet, text_encoder = new_unet(recipe).to(recipe.device), new_text_encoder(recipe, tokenizer).to(recipe.device)
    alpha_bar = new_scheduler().alphas_cumprod

    def loss_of_step(step: int) -> Tensor:
        generator = seeded(recipe.seed, "unet", step)
        is_large = step % recipe.unet_large_every == recipe.unet_large_every - 1
        size, n = ("large", recipe.unet_batch_size // 4) if is_large else ("small", recipe.unet_batch_size)
        index = torch.randint(len(bank[size]), (n,), generator=generator)
        z = bank[size][index].float()
        t = torch.randint(1000, (n,), generator=generator)
        noise = torch.randn(z.shape, generator=generator)
        signal = alpha_bar[t][:, None, None, None]
        noisy = (signal.sqrt() * z + (1 - signal).sqrt() * noise).to(recipe.device)
        subjects = [bank[f"{size}_subjects"][i] for i in index.tolist()]
        prompts = draw_prompts(recipe, subjects, generator)
        distinct = sorted(set(prompts))
        row = {prompt: i for i, prompt in enumerate(distinct)}
        tokens = tokenizer(distinct, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.autocast(recipe.device.split(":")[0], torch.bfloat16, enabled=recipe.unet_precision == "bf16"):
            context = text_encoder(tokens.input_ids.to(recipe.device)).last_hidden_state
            context = context[[row[prompt] for prompt in prompts]]
            predicted = unet(noisy, t.to(recipe.device), context).sample
        return F.mse_loss(predicted.float(), noise.to(recipe.device))

    identity = canonical(recipe)
    models = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    path = checkpoint_dir / "unet.pt"
    run_stage(recipe, "unet", identity, models, recipe.unet_steps, recipe.unet_lr, loss_of_step, path)
    return unet, text_encoder


def save_prior(folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> Path:
    """Writes the parts as fp16 safetensors in diffusers' layout, beside the tokenizer that is there already."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),  # without the padding that training set
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    config = (
        folder / "text_encoder" / "config.json"
    )  # transformers loads in the format named there, diffusers in float32
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    return folder
