"""Textual inversion (arXiv 2208.01618) of all classes at once.

    L(e_y) = E || eps - eps_theta(sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t, c(template(e_y))) ||^2

with everything frozen but the rows e_y of class y. No sample's loss depends on another class's rows, so one run over
all classes equals one run per class: the loss is a mean per class, AdamW keeps its moments and its step count per row,
and every random number is a function of (seed, class, step). Latents are encoded once: mean and deviation of each image
and its flip.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from genaug.core.checkpoints import Pace
from genaug.core.errors import GenaugError, out_of_memory, release_memory
from genaug.core.files import say_damaged, whole
from genaug.core.seeding import derive
from genaug.data.sample import Dataset, Sample
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.prompts import TEMPLATES, class_tokens, names_class, readable
from genaug.priors.model import LearnedTokens, Prior

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
ENCODE_BATCH = 16
TENSORS = ("embeddings", "m", "v", "k", "losses")  # of a state


@dataclass(slots=True, eq=False)
class Group:
    """One class to learn a token for."""

    name: str
    token: str
    rows: tuple[int, ...]
    """Its v rows of E."""
    prompt_ids: Tensor
    """int64 [number of templates, 77]."""
    mean: Tensor
    """float32 [n, 2, 4, h, w]: posterior mean of each image, upright and flipped (the VAE is not flip-equivariant); without
    flips [n, 1, 4, h, w]."""
    std: Tensor
    left_out: list[str]
    """Templates that hold a word of the class name, where names must not be known."""


@dataclass(slots=True, eq=False)
class State:
    """All that a resumed run needs."""

    embeddings: Tensor
    """E, float32 [R, d]."""
    m: Tensor
    v: Tensor
    k: Tensor
    """int64 [R] on the CPU: updates of each row."""
    losses: Tensor
    """float32 [steps, classes]."""
    step: int = 0
    network_evaluations: int = 0
    """U-Net evaluations behind ``step``, those of interrupted attempts included."""
    seconds: float = 0.0
    """Wall-clock time behind ``step``, that of interrupted attempts included."""
    seconds_before: float = 0.0
    """Part of ``seconds`` that interrupted attempts took."""


def prepare(prior: Prior, dataset: Dataset, config: TextualInversion, class_names: bool) -> tuple[list[Group], State]:
    """Groups of the classes that have training images, and the state before the first step.

    Args:
        prior: the diffusion model.
        dataset: only ``train`` is read.
        config: how tokens are learned.
        class_names: whether templates and initial word may name the class.
    """
    tokens = class_tokens(dataset.class_names)
    samples = dataset.train_by_class()
    classes = [c for c, group in enumerate(samples) if group]
    places = {
        tokens[c]: tuple(range(i * config.num_vectors, (i + 1) * config.num_vectors)) for i, c in enumerate(classes)
    }
    initial = torch.cat([_initial_vectors(prior, dataset.class_names[c], config, class_names) for c in classes])
    prompted = {token: rows[:1] if config.reference_bugs else rows for token, rows in places.items()}
    learned = LearnedTokens(initial, prompted)
    groups = []
    for c in classes:
        name = dataset.class_names[c]
        left_out = [] if class_names else [t for t in TEMPLATES if names_class(t, name, prior.word_ids)]
        prompts = [template.format(tokens[c]) for template in TEMPLATES if template not in left_out]
        mean, std = encode_flips(prior, samples[c], config.resize, config.flip, prior.image_size)
        ids = prior.token_ids(prompts, learned)
        groups.append(Group(name, tokens[c], places[tokens[c]], ids, mean, std, left_out))
    zeros = torch.zeros_like(initial)
    counts = torch.zeros(len(initial), dtype=torch.int64)
    losses = torch.zeros(config.num_steps, len(groups), device=initial.device)
    return groups, State(initial, zeros, zeros.clone(), counts, losses)


def _initial_vectors(prior: Prior, name: str, config: TextualInversion, class_names: bool) -> Tensor:
    """[v, d]: the embedding of the initial word, once per vector; of several pieces their mean, last or first."""
    word = readable(name) if config.init == "class_name" else config.init
    if not class_names and names_class(word, name, prior.word_ids):
        raise GenaugError(
            f"generator.tokens.init={config.init} starts the token of '{name}' from its own name, which "
            "leakage=data_centric forbids. Write generator.tokens.init=the, or allow class names with leakage=none."
        )
    ids = prior.word_ids(word)
    if not ids:
        raise GenaugError(
            f"generator.tokens.init='{config.init}' holds no word: write a word such as the, or class_name."
        )
    with torch.no_grad():
        pieces = prior.text_encoder.get_input_embeddings()(torch.tensor(ids, device=prior.device)).float()
    vector = {"mean": pieces.mean(dim=0), "last": pieces[-1], "first": pieces[0]}[config.init_pieces]
    return vector.repeat(config.num_vectors, 1)


def encode_flips(prior: Prior, samples: Sequence[Sample], resize: str, flip: bool, size: int) -> tuple[Tensor, Tensor]:
    """Posterior mean and deviation [n, 2, 4, h, w] of each image at ``size`` pixels, upright and mirrored; else [n, 1, …]."""
    means, stds = [], []
    for start in range(0, len(samples), ENCODE_BATCH):
        pictures = [sample.open() for sample in samples[start : start + ENCODE_BATCH]]
        images = torch.stack([to_tensor(p, size, resize, Image.Resampling.BICUBIC) for p in pictures])
        views = [images, images.flip(-1)] if flip else [images]
        mean, std = prior.encode_moments(torch.cat(views))
        means.append(torch.stack(mean.chunk(len(views)), dim=1))
        stds.append(torch.stack(std.chunk(len(views)), dim=1))
    return torch.cat(means), torch.cat(stds)


def draw(group: Group, seed: int, step: int, b: int, num_timesteps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The b samples of a class at a step: prompt ids [b, 77], latents z [b, 4, h, w], noise eps like z, times t [b].

    Drawn on the CPU, so that they are the same on every device; t stays there.
    """
    device = group.mean.device
    random = torch.Generator().manual_seed(derive(seed, "textual inversion", group.name, step))
    image = torch.randint(len(group.mean), (b,), generator=random).to(device)
    flip = torch.randint(group.mean.shape[1], (b,), generator=random).to(device)
    template = torch.randint(len(group.prompt_ids), (b,), generator=random).to(device)
    t = torch.randint(num_timesteps, (b,), generator=random)
    xi, eps = torch.randn((2, b, *group.mean.shape[2:]), generator=random).to(device)
    z = group.mean[image, flip] + group.std[image, flip] * xi
    return group.prompt_ids[template], z, eps, t


def step_groups(
    prior: Prior, groups: Sequence[Group], embeddings: Tensor, config: TextualInversion, step: int
) -> tuple[Tensor, Tensor]:
    """Loss of each group [G] at a step, and the gradient [R, d] of their sum: a mean over each group's own samples."""
    draws = [draw(group, config.seed, step, config.batch_size, len(prior.alphas_cumprod)) for group in groups]
    ids, z, eps, t = (torch.cat(parts) for parts in zip(*draws, strict=True))
    alpha_bar = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
    z_t = alpha_bar.sqrt().to(z) * z + (1 - alpha_bar).sqrt().to(z) * eps
    rows = embeddings.detach().requires_grad_()
    with torch.enable_grad():
        eps_hat = prior.predict_noise(z_t, t, prior.embed_ids(ids, rows))
        losses = (eps_hat - eps).square().flatten(1).mean(dim=1).view(len(groups), -1).mean(dim=1)
        (grad,) = torch.autograd.grad(losses.sum(), rows)
    return losses.detach(), grad


@torch.no_grad()
def adamw_rows(state: State, rows: list[int], grad: Tensor, learning_rate: float, weight_decay: float) -> None:
    """One AdamW step on ``rows`` alone, each with its own count; other rows keep value, moments and count."""
    state.k[rows] += 1
    k = state.k[rows].double().unsqueeze(1)
    g = grad[rows]
    m = state.m[rows] = BETA_1 * state.m[rows] + (1 - BETA_1) * g
    v = state.v[rows] = BETA_2 * state.v[rows] + (1 - BETA_2) * g.square()
    m_hat = m / (1 - BETA_1**k).to(m)
    v_hat = v / (1 - BETA_2**k).to(v)
    decayed = (1 - learning_rate * weight_decay) * state.embeddings[rows]
    state.embeddings[rows] = decayed - learning_rate * m_hat / (v_hat.sqrt() + EPSILON)


def train_tokens(
    prior: Prior,
    groups: Sequence[Group],
    state: State,
    config: TextualInversion,
    checkpoint: Path,
    on_step: Callable[[int], None] = lambda step: None,
) -> State:
    """Run the remaining steps, ``config.groups_per_batch`` classes in one U-Net call, with a checkpoint now and then; without
    memory for so many, half of them and half again.

    The checkpoint file, if there, is resumed from: the result is bit-equal to a run without interruption.
    """
    state = load_state(checkpoint, prior.device) or state
    evaluations_before = state.network_evaluations - prior.num_evaluations
    started, pace = time.perf_counter(), Pace(config.checkpoint_every)
    size = config.groups_per_batch
    with prior.sampling(min(size, len(groups)) * config.batch_size):
        for step in range(state.step, config.num_steps):
            start = 0
            while start < len(groups):
                chunk = groups[start : start + size]
                fits = True
                try:
                    losses, grad = step_groups(prior, chunk, state.embeddings, config, step)
                except Exception as error:
                    if len(chunk) == 1 or not out_of_memory(error):
                        raise
                    fits = False
                if not fits:  # by now nothing holds what the failed step has left
                    release_memory()
                    size = -(-len(chunk) // 2)
                    continue
                rows = [row for group in chunk for row in group.rows]
                adamw_rows(state, rows, grad, config.learning_rate, config.weight_decay)
                state.losses[step, start : start + len(chunk)] = losses
                start += len(chunk)
            state.step = step + 1
            state.network_evaluations = evaluations_before + prior.num_evaluations
            state.seconds = state.seconds_before + time.perf_counter() - started
            if state.step < config.num_steps and pace.due(state.step):
                save_state(state, checkpoint)
            on_step(state.step)
    return state


def save_state(state: State, path: Path) -> None:
    """Write whole: a killed run leaves the previous checkpoint or this one."""
    tensors = {key: getattr(state, key).contiguous() for key in TENSORS}
    progress = {key: repr(getattr(state, key)) for key in ("step", "network_evaluations", "seconds")}
    with whole(path) as partial:
        save_file(tensors, partial, metadata={**progress, "sha256": _digest(tensors)})


def load_state(path: Path, device: torch.device) -> State | None:
    """The state that ``save_state`` wrote, on ``device``; None where there is none, or a damaged one, which is named."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors, progress = {key: file.get_tensor(key) for key in TENSORS}, file.metadata()
        if _digest(tensors) != progress["sha256"]:
            raise ValueError("its content has changed")
        return State(
            **{key: tensor if key == "k" else tensor.to(device) for key, tensor in tensors.items()},
            step=int(progress["step"]),
            network_evaluations=int(progress["network_evaluations"]),
            seconds=float(progress["seconds"]),
            seconds_before=float(progress["seconds"]),
        )
    except Exception as error:  # a damaged file fails in many ways
        say_damaged(path, str(error))
        return None


def _digest(tensors: dict[str, Tensor]) -> str:
    """sha256 of all values in order of their names."""
    content = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()
