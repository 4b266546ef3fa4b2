"""The tokens of a training set: every class by textual inversion, with its checkpoints, into the files that others read."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genaug.core.names import safe_name
from genaug.core.progress import Progress
from genaug.data.sample import Dataset
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.textual_inversion import prepare, save_state, train_tokens
from genaug.generators.tokens.token_files import read_tokens, write_tokens
from genaug.priors.model import LearnedTokens, Prior

CHECKPOINT = "resume.safetensors"


def learn_tokens(
    prior: Prior, dataset: Dataset, config: TextualInversion, folder: Path, *, class_names: bool, preset: str
) -> dict[str, Any]:
    """Learn a token for every class that has training images and write the tokens, their story and the losses into ``folder``.

    Where classes are erased from the U-Net, each class is learned with its own. An interrupted attempt is resumed.

    Returns:
        facts for the record: losses, number of steps, network evaluations, seconds of earlier attempts.
    """
    by_name = {
        name: samples for name, samples in zip(dataset.class_names, dataset.train_by_class(), strict=True) if samples
    }
    parts: dict[str | None, Dataset] = {None: dataset}
    if prior.erasures:
        parts = {name: replace(dataset, train=tuple(samples)) for name, samples in by_name.items()}
    groups, vectors, all_losses = [], {}, []
    network_evaluations, seconds_before = 0, 0.0
    for concept, part in parts.items():
        with prior.erased(concept):
            some, state = prepare(prior, part, config, class_names)
            checkpoint = folder / (CHECKPOINT if concept is None else f"{safe_name(concept, 'token')}.{CHECKPOINT}")
            with Progress(f"learning {len(some)} token(s) ({preset})", config.num_steps) as progress:
                state = train_tokens(prior, some, state, config, checkpoint, progress.update)
            save_state(state, checkpoint)  # a run that is interrupted later finds this part done
        network_evaluations += state.network_evaluations
        seconds_before += state.seconds_before
        groups += some
        vectors |= {group.token: state.embeddings[list(group.rows)] for group in some}
        all_losses.append(state.losses.cpu())
    num_edge = max(1, config.num_steps // 10)
    losses = torch.cat(all_losses, dim=1)
    loss = (
        {}
        if not config.num_steps
        else {
            group.name: {"first_tenth": first, "last_tenth": last}
            for group, first, last in zip(
                groups, losses[:num_edge].mean(dim=0).tolist(), losses[-num_edge:].mean(dim=0).tolist(), strict=True
            )
        }
    )
    about = {
        "preset": preset,
        "prior": prior.weights,
        "tokens": {group.name: group.token for group in groups},
        "num_vectors": config.num_vectors,
        "init": config.init,
        "init_pieces": config.init_pieces,
        "num_steps": config.num_steps,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "seed": config.seed,
        "text_encoder_width": next(iter(vectors.values())).shape[1],
        "erased": bool(prior.erasures),
        "images": {name: [sample.digest for sample in samples] for name, samples in by_name.items()},
        "templates_left_out": {group.name: group.left_out for group in groups if group.left_out},
        "loss": loss,
    }
    write_tokens(folder, vectors, about)
    with (folder / "loss.csv").open("w", newline="") as file:  # a row per step, a column per class
        writer = csv.writer(file)
        writer.writerow(["step", *(safe_name(group.name, "csv") for group in groups)])
        writer.writerows([step + 1, *row] for step, row in enumerate(losses.tolist()))
    for checkpoint in folder.glob(f"*{CHECKPOINT}"):
        checkpoint.unlink()
    return {
        "num_steps": config.num_steps,
        "network_evaluations": network_evaluations,
        "seconds_before": round(seconds_before, 3),
        "loss": loss,
    }


def learned_tokens(fitted: Path, names: Sequence[str]) -> LearnedTokens:
    """The tokens of these classes that ``learn_tokens`` wrote into ``fitted``; raises as ``read_tokens`` does."""
    return LearnedTokens.of(read_tokens(fitted, list(dict.fromkeys(names))))
