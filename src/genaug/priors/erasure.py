"""Concept erasure (ESD, Gandikota et al., arXiv 2303.07345): a U-Net that has unlearned one concept, kept as a change of
weights.

    L(theta) = mean || eps_theta(x_t, t, c) - target ||^2          (equation 4)
    target 2023 = eps_0 - eta (eps_c - eps_0)                      theta* frozen, 0 the empty prompt
    target 2024 = eps_c - eta (eps_c - eps_0)                      hence eta 2024 = eta 2023 + 1

The student's weights are put in place of the U-Net's own only while it is evaluated, so that no second U-Net is held.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genaug.core.errors import GenaugError
from genaug.core.progress import Progress
from genaug.core.seeding import choice, derive
from genaug.priors.deltas import DELTA, save_delta, weights_of
from genaug.priors.leakage import Erasure
from genaug.priors.noise import draw_noise, make_scheduler

if TYPE_CHECKING:
    from genaug.priors.model import Prior

OUTER = ("conv_norm_out", "conv_out", "time_embedding")  # CompVis names: out., time_embed


def parameter_names(unet: nn.Module, parameters: str) -> list[str]:
    """Names of the weights that a parameter set trains.

    Raises:
        GenaugError: if this U-Net has no such weights.
    """
    every = [name for name, _ in unet.named_parameters()]
    inner = [name for name in every if not name.startswith(OUTER)]  # a prefix: "out" must not match "to_out"
    plain = {
        f"{module}.{name}"
        for module, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        for name, _ in layer.named_parameters(recurse=False)
    }
    cross = [name for name in every if "attn2" in name]
    chosen = {
        "xattn": cross,
        "noxattn": [name for name in inner if "attn2" not in name],
        "selfattn": [name for name in every if "attn1" in name],
        "full": every,
        "notime": inner,
        "xlayer": [n for n in cross if n.startswith(("up_blocks.2.attentions.0.", "up_blocks.2.attentions.2."))],
        "selflayer": [
            n
            for n in every
            if "attn1" in n and n.startswith(("down_blocks.1.attentions.0.", "down_blocks.2.attentions.0."))
        ],
        "esd-x": [name for name in cross if name in plain],
        "esd-u": [name for name in every if name in plain and "attn2" not in name],
        "esd-all": [name for name in every if name in plain],
        "esd-x-strict": [name for name in cross if ".to_k." in name or ".to_v." in name],
    }[parameters]
    if not chosen:
        raise GenaugError(
            f"leakage.erasure.parameters={parameters} names no weights of this U-Net: write xattn or full."
        )
    return chosen


def erasure_target(eps_null: Tensor, eps_concept: Tensor, eta: float, formula: str) -> Tensor:
    """What the student is to predict for the concept; see the module's equations."""
    start = eps_null if formula == "esd2023" else eps_concept
    return start - eta * (eps_concept - eps_null)


def erase(
    prior: "Prior", concept: str, config: Erasure, on_step: Callable[[int], None] = lambda step: None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Unlearn a concept.

    Args:
        prior: its U-Net is used and left as it was.
        concept: the prompt c, for DA-Fusion the bare class name.
        config: how.
        on_step: called with the number of steps done.

    Returns:
        the change of each trained weight (float32, on the CPU), and facts for the record.
    """
    parameters = dict(prior.unet.named_parameters())
    names = parameter_names(prior.unet, config.parameters)
    trained = [parameters[name] for name in names]
    base = [p.detach().float().clone() for p in trained]
    student = [p.clone() for p in base]  # float32 whatever the U-Net's format: steps of 1e-5 vanish in bfloat16
    optimiser = torch.optim.Adam(student, lr=config.learning_rate)
    cond, uncond = prior.embed([concept]), prior.embed([""])
    walked = _trajectories(prior, concept, config, cond, uncond) if config.trajectories is not None else None
    losses = []
    for iteration in range(config.iterations):
        x_bchw, t_b = _states(
            prior, concept, config, iteration, cond, uncond, walked, dict(zip(names, student, strict=True))
        )
        with torch.no_grad():
            eps_concept = prior.predict_noise(x_bchw, t_b, cond)
            eps_null = prior.predict_noise(x_bchw, t_b, uncond)
            target = erasure_target(eps_null, eps_concept, config.eta, config.target)
        with weights_of(prior.unet, dict(zip(names, student, strict=True))), torch.enable_grad():
            for p in trained:
                p.requires_grad_(True)
            try:
                loss = (prior.predict_noise(x_bchw, t_b, cond) - target).square().mean()
                grads = torch.autograd.grad(loss, trained)
            finally:
                for p in trained:
                    p.requires_grad_(False)
        for p, grad in zip(student, grads, strict=True):
            p.grad = grad.float()
        optimiser.step()
        losses.append(loss.item())
        on_step(iteration + 1)
    delta = {name: (new - old).cpu() for name, new, old in zip(names, student, base, strict=True)}
    edge = max(1, len(losses) // 10)
    about = {
        "concept": concept,
        "loss_first_tenth": sum(losses[:edge]) / edge,
        "loss_last_tenth": sum(losses[-edge:]) / edge,
        "num_weights": sum(change.numel() for change in delta.values()),
    }
    return delta, about


def erase_into(folder: Path, prior: "Prior", concept: str, config: Erasure) -> dict[str, Any]:
    """Unlearn a concept and write the change of weights into ``folder``; returns facts for the record."""
    before = prior.num_evaluations
    with Progress(f"erasing {concept!r}", config.iterations) as progress:
        delta, facts = erase(prior, concept, config, progress.update)
    about = {
        **facts,
        "prior": prior.weights,
        "parameters": config.parameters,
        "target": config.target,
        "eta": config.eta,
        "iterations": config.iterations,
        "seed": config.seed,
        "network_evaluations": prior.num_evaluations - before,
    }
    save_delta(folder / DELTA, delta, config.storage, about)
    return about


def _states(
    prior: "Prior",
    concept: str,
    config: Erasure,
    iteration: int,
    cond: Tensor,
    uncond: Tensor,
    walked: Tensor | None,
    student: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Noisy latents [b, 4, h, w] of the concept and the timesteps [b] at which they are predicted."""
    states, timesteps = [], []
    for i in range(config.batch_size):
        words, num_walked, t = config.state(concept, iteration, i)
        if walked is not None:
            states.append(walked[num_walked, choice(walked.shape[1], *words, "trajectory")])
        else:
            start = _start(prior, 1, *words)
            model = weights_of(prior.unet, student) if config.sampler_model == "student" else contextlib.nullcontext()
            with model:
                states.append(_walk(prior, config, start, cond, uncond, num_walked)[-1][0])
        timesteps.append(t)
    return torch.stack(states), torch.tensor(timesteps, device=prior.device)


def _trajectories(prior: "Prior", concept: str, config: Erasure, cond: Tensor, uncond: Tensor) -> Tensor:
    """[steps + 1, trajectories, 4, h, w]: all states of whole trajectories of the base model."""
    assert config.trajectories is not None
    start = _start(prior, config.trajectories, config.seed, concept, "trajectories")
    return torch.stack(_walk(prior, config, start, cond, uncond, config.num_steps))


def _start(prior: "Prior", count: int, *words: object) -> Tensor:
    """Pure noise [count, 4, h, w]."""
    side = prior.image_size // prior.vae_factor
    shape = (prior.unet.config.in_channels, side, side)
    return draw_noise([derive(*words, i, "noise") for i in range(count)], shape).to(prior.device)


@torch.no_grad()
def _walk(prior: "Prior", config: Erasure, x: Tensor, cond: Tensor, uncond: Tensor, num_walked: int) -> list[Tensor]:
    """States before each of the first ``num_walked`` guided DDIM steps, and the last one."""
    schedule = make_scheduler("ddim", prior.betas)
    schedule.set_timesteps(config.num_steps)
    timesteps = schedule.timesteps if config.level_match == "exact" else schedule.timesteps[1:]
    states = [x]
    with prior.sampling(len(x)):
        for t, t_unet in zip(timesteps[:num_walked], timesteps[:num_walked].to(prior.device), strict=True):
            eps_hat = prior.predict_noise(states[-1], t_unet, cond, uncond, config.guidance)
            states.append(schedule.step(eps_hat, t, states[-1], return_dict=False)[0])
    return states


def erased_groups(prior: "Prior", concepts: Sequence[str]) -> Iterator[list[int]]:
    """Indices that share one U-Net, while it is in place: all at once if nothing is erased, otherwise concept by concept.

    Args:
        prior: ``prior.erasures`` says which concepts have an erased U-Net.
        concepts: class name of each wanted image.
    """
    if not prior.erasures:
        yield list(range(len(concepts)))
        return
    for concept in sorted(set(concepts)):
        with prior.erased(concept):
            yield [i for i, name in enumerate(concepts) if name == concept]
