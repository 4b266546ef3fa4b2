"""DreamBooth-LoRA with textual inversion (Diff-Mix, arXiv 2403.19600, section 3.2): one LoRA and all tokens, jointly.

    L(A, B, e) = E || eps - eps_theta+BA(sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t, c(prompt(e_y))) ||^2

over the training images (z, y) of all classes, mirrored or not (``generator.tokens.flip``). B starts at 0, so the first
step sees the prior itself. Every random number is a function of (seed, step), so a resumed run is bit-equal to an
uninterrupted one.
"""

import contextlib
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from torch import Tensor, nn

from genaug.core.checkpoints import Pace, read_checkpoint, save_checkpoint
from genaug.core.errors import GenaugError
from genaug.core.files import read_json, say_damaged
from genaug.core.progress import Progress
from genaug.core.seeding import derive
from genaug.data.sample import Dataset
from genaug.generators.lora.config import LoraFit
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.learning import learn_tokens, learned_tokens
from genaug.generators.tokens.prompts import check_prompts, token_of
from genaug.generators.tokens.textual_inversion import BETA_1, BETA_2, EPSILON, encode_flips
from genaug.generators.tokens.token_files import ABOUT_TOKENS, write_tokens
from genaug.priors.lora import FILES
from genaug.priors.model import LearnedTokens, Prior

LORA_FILE, CHECKPOINT, NAME = FILES[0], "lora.resume.pt", "genaug"
LAYERS = {
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"],
}
"""The attention layers that get a LoRA, by the end of their names."""


@dataclass(slots=True, eq=False)
class Images:
    """The training images of all classes, in the data set's order."""

    mean: Tensor
    """float32 [n, 2, 4, h, w] on the CPU: posterior mean of each image, upright and mirrored; [n, 1, 4, h, w] without."""
    std: Tensor
    prompt_ids: Tensor
    """int64 [n, 77]: its class's prompt."""


def learn_lora(
    prior: Prior,
    dataset: Dataset,
    config: LoraFit,
    tokens: TextualInversion,
    folder: Path,
    *,
    class_names: bool,
    preset: str,
) -> dict[str, Any]:
    """Learn the tokens alone, then a LoRA and the tokens together, and write both into ``folder``.

    The LoRA's file is what diffusers' ``load_lora_weights`` reads, the tokens' are those of ``learn_tokens``; the prior is
    afterwards as it was. An interrupted attempt is resumed.

    Returns:
        facts for the record, as ``learn_tokens``; ``lora`` holds those of the joint steps.

    Raises:
        GenaugError: if a prompt names its class where that is not allowed, or weights become what is not a number.
    """
    names = sorted({dataset.class_names[sample.class_index] for sample in dataset.train})
    if not class_names:
        check_prompts([config.prompt] * len(names), names, prior.word_ids)
    checkpoint = folder / CHECKPOINT
    state = read_checkpoint(checkpoint, lambda why: say_damaged(checkpoint, why))
    if state is None:
        facts = learn_tokens(prior, dataset, tokens, folder, class_names=class_names, preset=preset)
        learned = learned_tokens(folder, names)
        start = {"facts": facts, "rows": learned.rows, "places": {k: list(v) for k, v in learned.places.items()}}
        state = {**start, "step": 0, "losses": [], "evaluations": 0, "seconds": 0.0}
        save_checkpoint(state, checkpoint)  # the tokens' own steps are done
    images = _images(prior, dataset, config, tokens, LearnedTokens(state["rows"], state["places"]))
    with adapters(prior, config) as lora, Progress(f"learning a LoRA ({preset})", config.num_steps) as progress:
        rows = train_lora(prior, images, lora, config, state, checkpoint, progress.update)
        layers = {part: get_peft_model_state_dict(getattr(prior, part), adapter_name=NAME) for part in lora}
    if not all(torch.isfinite(weights).all() for part in layers.values() for weights in part.values()):
        raise GenaugError(
            "The LoRA became NaN or infinite while it was learned: write a smaller generator.lora.learning_rate."
        )
    on_cpu: dict[str, Any] = {
        f"{part}_lora_layers": {name: weight.cpu().contiguous() for name, weight in weights.items()}
        for part, weights in layers.items()
    }
    StableDiffusionPipeline.save_lora_weights(folder, **on_cpu)
    losses, edge = state["losses"], max(1, config.num_steps // 10)
    joint = {
        "rank": config.rank,
        "text_encoder": config.text_encoder,
        "prompt": config.prompt,
        "num_steps": config.num_steps,
        "loss": {"first_tenth": sum(losses[:edge]) / edge, "last_tenth": sum(losses[-edge:]) / edge},
    }
    about = {**(read_json(folder / ABOUT_TOKENS) or {}), "lora": joint}
    write_tokens(folder, {token: rows[list(place)] for token, place in state["places"].items()}, about)
    with (folder / "lora_loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows([step + 1, loss] for step, loss in enumerate(losses))
    checkpoint.unlink()
    facts = state["facts"]
    return {
        **facts,
        "num_steps": facts["num_steps"] + config.num_steps,
        "network_evaluations": facts["network_evaluations"] + state["evaluations"],
        "seconds_before": round(facts["seconds_before"] + state["seconds_before"], 3),
        "lora": joint,
    }


def _images(
    prior: Prior, dataset: Dataset, config: LoraFit, tokens: TextualInversion, learned: LearnedTokens
) -> Images:
    """Latents and prompts of all training images."""
    names = [dataset.class_names[sample.class_index] for sample in dataset.train]
    ids = {
        name: prior.token_ids([config.prompt.replace("{token}", tokens.in_prompt(token_of(name)))], learned)[0].cpu()
        for name in dict.fromkeys(names)
    }
    mean, std = encode_flips(prior, dataset.train, tokens.resize, tokens.flip, config.image_size or prior.image_size)
    return Images(mean.cpu(), std.cpu(), torch.stack([ids[name] for name in names]))


@contextlib.contextmanager
def adapters(prior: Prior, config: LoraFit) -> Iterator[dict[str, dict[str, nn.Parameter]]]:
    """The prior's networks with a LoRA of strength 1 inside, float32, whose weights are given by model and name; taken out
    again at the end.

    A is drawn from N(0, 1 / rank^2), each layer with a seed of its own; B is 0.
    """
    models = {"unet": prior.unet} | ({"text_encoder": prior.text_encoder} if config.text_encoder else {})
    found: dict[str, dict[str, nn.Parameter]] = {}
    try:
        for part, model in models.items():
            settings = LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=LAYERS[part])
            inject_adapter_in_model(settings, model, adapter_name=NAME)
            found[part] = {name: p for name, p in model.named_parameters() if p.requires_grad}
            for name, weight in found[part].items():
                weight.data = weight.data.float()
                if ".lora_A." in name:
                    random = torch.Generator().manual_seed(derive(config.seed, "lora", part, name))
                    weight.data.copy_(torch.randn(weight.shape, generator=random) / config.rank)
        if config.checkpoint_gradients:
            prior.unet.enable_gradient_checkpointing()
        yield found
    finally:
        prior.unet.disable_gradient_checkpointing()
        for model in models.values():
            recurse_remove_peft_layers(model)
            model.requires_grad_(False)
            if hasattr(model, "peft_config"):
                del model.peft_config


def train_lora(
    prior: Prior,
    images: Images,
    lora: dict[str, dict[str, nn.Parameter]],
    config: LoraFit,
    state: dict[str, Any],
    checkpoint: Path,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Run the steps that are left in ``state``, which is kept up to date and saved now and then.

    Returns:
        the tokens' vectors, float32 [R, d].
    """
    rows = nn.Parameter(state["rows"].clone().to(prior.device))
    weights = [weight for part in lora.values() for weight in part.values()]
    groups = [
        {"params": weights, "lr": config.learning_rate},
        {"params": [rows], "lr": config.token_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(BETA_1, BETA_2), eps=EPSILON, weight_decay=config.weight_decay)
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        for part, values in state["lora"].items():
            for name, value in values.items():
                lora[part][name].data.copy_(value)
    started, pace = time.perf_counter(), Pace(config.checkpoint_every)
    before, state["seconds_before"] = state["evaluations"] - prior.num_evaluations, state["seconds"]
    for step in range(state["step"], config.num_steps):
        optimiser.zero_grad()
        loss = lora_loss(prior, images, rows, config, step)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimiser.step()
        state["step"] = step + 1
        state["losses"].append(loss.item())
        state["evaluations"] = before + prior.num_evaluations
        state["seconds"] = state["seconds_before"] + time.perf_counter() - started
        if step + 1 < config.num_steps and pace.due(step + 1):
            learned = {part: {name: w.detach() for name, w in values.items()} for part, values in lora.items()}
            now = {"rows": rows.detach(), "lora": learned, "optimiser": optimiser.state_dict()}
            save_checkpoint({**state, **now}, checkpoint)
        on_step(step + 1)
    return rows.detach()


def lora_loss(prior: Prior, images: Images, rows: Tensor, config: LoraFit, step: int) -> Tensor:
    """Mean squared error of the predicted noise over the images, flips, noise and times of a step, with gradient.

    Drawn on the CPU, so that they are the same on every device.
    """
    b = config.batch_size
    random = torch.Generator().manual_seed(derive(config.seed, "lora", step))
    image = torch.randint(len(images.mean), (b,), generator=random)
    flip = torch.randint(images.mean.shape[1], (b,), generator=random)
    t = torch.randint(len(prior.alphas_cumprod), (b,), generator=random)
    xi, eps = torch.randn((2, b, *images.mean.shape[2:]), generator=random)
    z = images.mean[image, flip] + images.std[image, flip] * xi
    alpha_bar = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
    z_t = alpha_bar.sqrt().to(z) * z + (1 - alpha_bar).sqrt().to(z) * eps
    with torch.enable_grad():
        features = prior.embed_ids(images.prompt_ids[image].to(prior.device), rows)
        eps_hat = prior.predict_noise(z_t.to(prior.device), t, features)
        return (eps_hat - eps.to(prior.device)).square().mean()
