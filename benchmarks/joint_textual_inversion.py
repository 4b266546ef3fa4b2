"""Textual inversion of all classes in one run against one run per class that encodes its images at every step.

Both sides take the same number of samples per token on the same classes, with the same draws; the tokens that they
learn are compared. What is gained comes from classes sharing U-Net calls and from latents encoded once.

    python benchmarks/joint_textual_inversion.py                         # 20 classes, tiny prior, CPU; target: >= 10
    python benchmarks/joint_textual_inversion.py --sd15-shapes --device cuda --single-classes 2 --num-steps 10
"""

import tempfile
import time
from pathlib import Path

import torch
from diffusion_setting import hardware, load_prior, parser, random_dataset, synchronize

from genaug.data.sample import Sample
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.textual_inversion import Group, State, draw, prepare, train_tokens
from genaug.priors.model import Prior


def alone(prior: Prior, group: Group, samples: list[Sample], state: State, config: TextualInversion) -> torch.Tensor:
    """The rows of one class by the usual recipe: images opened, flipped and encoded at every step, torch's AdamW."""
    rows = list(group.rows)
    pictures = [sample.open() for sample in samples]
    table = state.embeddings.clone()
    learned = torch.nn.Parameter(table[rows].clone())
    optimizer = torch.optim.AdamW([learned], lr=config.learning_rate, weight_decay=config.weight_decay)
    num_timesteps = len(prior.alphas_cumprod)
    for step in range(config.num_steps):
        ids, z, eps, t = draw(group, config.seed, step, config.batch_size, num_timesteps)
        images = torch.stack([to_tensor(pictures[i % len(pictures)], prior.image_size) for i in range(len(z))])
        prior.encode_moments(images.flip(-1))  # the cost of a fresh encode; its draw z is the same by construction
        alpha_bar = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
        z_t = alpha_bar.sqrt().to(z) * z + (1 - alpha_bar).sqrt().to(z) * eps
        everything = table.index_copy(0, torch.tensor(rows, device=table.device), learned)
        eps_hat = prior.predict_noise(z_t, t, prior.embed_ids(ids, everything))
        optimizer.zero_grad()
        (eps_hat - eps).square().mean().backward()
        optimizer.step()
    return learned.detach()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--classes", type=int, default=20)
    arguments.add_argument("--shots", type=int, default=4)
    arguments.add_argument("--num-steps", type=int, default=40)
    arguments.add_argument("--groups-per-batch", type=int, default=20)
    arguments.add_argument("--single-classes", type=int, help="classes run one by one; default all, fewer extrapolate")
    options = arguments.parse_args()
    prior = load_prior(options)
    dataset = random_dataset(options.classes, options.shots, prior.image_size)
    config = TextualInversion(seed=0, num_steps=options.num_steps, groups_per_batch=options.groups_per_batch)
    num_single = options.single_classes or options.classes
    print(
        f"{hardware(options.device)}; U-Net {prior.unet.dtype}, {prior.image_size} px, {options.classes} classes, "
        f"{config.num_steps} steps of {config.batch_size} samples each"
    )
    by_class = [[s for s in dataset.train if s.class_index == c] for c in range(options.classes)]
    groups, first = prepare(prior, dataset, config, class_names=True)
    alone(prior, groups[0], by_class[0], first, TextualInversion(seed=0, num_steps=2))  # warm up
    synchronize(options.device)

    started = time.perf_counter()
    groups, state = prepare(prior, dataset, config, class_names=True)
    with tempfile.TemporaryDirectory() as folder:
        joint = train_tokens(prior, groups, state, config, Path(folder) / "resume.safetensors")
    synchronize(options.device)
    joint_seconds = time.perf_counter() - started
    print(f"joint, latents cached: {joint_seconds:.1f} s")

    started = time.perf_counter()
    tokens = [alone(prior, groups[c], by_class[c], first, config) for c in range(num_single)]
    synchronize(options.device)
    alone_seconds = (time.perf_counter() - started) * options.classes / num_single
    print(f"one run per class, encoding at every step: {alone_seconds:.1f} s ({num_single} classes measured)")
    difference = max(
        float((token - joint.embeddings[list(group.rows)]).abs().max())
        for token, group in zip(tokens, groups, strict=False)
    )
    print(f"largest difference of a token's element: {difference:.1e} (learning rate {config.learning_rate:g})")
    print(f"ratio: {alone_seconds / joint_seconds:.2f}")


if __name__ == "__main__":
    main()
