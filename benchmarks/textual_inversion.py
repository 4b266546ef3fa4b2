"""Textual inversion of all classes in one run against one run per class that encodes its images at every step.

Both sides take the same number of samples per token on the same classes, with the same draws; the tokens that they learn are
compared. What is gained comes from classes sharing U-Net calls and from latents encoded once.

    python -m benchmarks textual_inversion [--classes 20] [--num-steps 10]
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Different, Row, Side, compare, say, write
from benchmarks.setting import Setting, random_dataset
from genaug.data.sample import Sample
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.textual_inversion import Group, State, draw, prepare, train_tokens
from genaug.priors.model import Prior

MOST_APART = {torch.float32: 0.02, torch.bfloat16: 1.0, torch.float16: 1.0}
"""Mean difference of a token's elements in learning rates: AdamW's step is about one, also where a gradient is all rounding."""


def alone(prior: Prior, group: Group, samples: Sequence[Sample], state: State, config: TextualInversion) -> Tensor:
    """The rows of one class by the usual recipe: images opened, flipped and encoded at every step, torch's AdamW."""
    rows = list(group.rows)
    table = state.embeddings.clone()
    learned = torch.nn.Parameter(table[rows].clone())
    optimizer = torch.optim.AdamW([learned], lr=config.learning_rate, weight_decay=config.weight_decay)
    num_timesteps = len(prior.alphas_cumprod)
    for step in range(config.num_steps):
        ids, z, eps, t = draw(group, config.seed, step, config.batch_size, num_timesteps)
        pictures = [samples[i % len(samples)].open() for i in range(len(z))]
        images = torch.stack([to_tensor(picture, prior.image_size) for picture in pictures])
        prior.encode_moments(images.flip(-1))  # the cost of a fresh encode; its draw z is the same by construction
        alpha_bar = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
        z_t = alpha_bar.sqrt().to(z) * z + (1 - alpha_bar).sqrt().to(z) * eps
        everything = table.index_copy(0, torch.tensor(rows, device=table.device), learned)
        eps_hat = prior.predict_noise(z_t, t, prior.embed_ids(ids, everything))
        optimizer.zero_grad()
        (eps_hat - eps).square().mean().backward()
        optimizer.step()
    return learned.detach()


def compare_joint(
    prior: Prior, num_classes: int, num_steps: int, num_alone: int, target: float | None, **options: Any
) -> Row:
    """All classes jointly, four images each, against ``num_alone`` of them one by one; per class."""
    dataset = random_dataset(num_classes, 4, prior.image_size)
    config = TextualInversion(seed=0, num_steps=num_steps, groups_per_batch=num_classes)
    by_class = [[s for s in dataset.train if s.class_index == c] for c in range(num_classes)]
    groups, first = prepare(prior, dataset, config, class_names=True)

    def ours() -> list[Tensor]:
        groups, state = prepare(prior, dataset, config, class_names=True)
        with tempfile.TemporaryDirectory() as folder:
            learned = train_tokens(prior, groups, state, config, Path(folder) / "resume.safetensors")
        return [learned.embeddings[list(group.rows)] for group in groups]

    def theirs() -> list[Tensor]:
        return [alone(prior, groups[c], by_class[c], first, config) for c in range(num_alone)]

    def same(joint: list[Tensor], single: list[Tensor]) -> str:
        apart = torch.stack([(a - b).abs() for a, b in zip(joint, single, strict=False)]) / config.learning_rate
        if apart.mean() > MOST_APART[prior.unet.dtype]:
            raise Different(f"the tokens differ by {apart.mean():.2g} learning rates in the mean")
        return f"tokens: mean difference {apart.mean():.1g} of a step, largest {apart.max():.1g}"

    return compare(
        f"textual inversion of {num_classes} classes, {prior.image_size} px, {num_steps} steps of {config.batch_size} samples",
        Side("all classes in one run, latents encoded once", ours, num_classes),
        Side("one run per class, encoding at every step", theirs, num_alone),
        same,
        target=target,
        **options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--alone", type=int, default=5, help="classes learned one by one")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = Setting().prior()
    compare_joint(prior, 2, 2, 1, None, repeats=1)  # warm up
    row = compare_joint(prior, options.classes, options.num_steps, options.alone, 5.0, repeats=options.repeats)
    print(say(row))
    write("textual_inversion", [row])


if __name__ == "__main__":
    main()
