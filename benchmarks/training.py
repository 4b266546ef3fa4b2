"""Training the tiny classifier: through genaug against a plain loop with vectorised augmentation, in CPU seconds of one thread.

Both sides train the same network on the same images with the same augmentation, optimiser, schedule and evaluations, in
alternation; the accuracies that they reach are compared. The plain loop keeps no checkpoints, no record, no seeds per image.

    python -m benchmarks training [--steps 400] [--repeats 5]
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Different, Row, Side, compare, say, write
from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.data.sample import Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.module import Network

TOLERANCE = 0.1  # of the mean accuracy: two seeds of a short training differ by a few points


class Silent:
    """A record that keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def pixels(samples: tuple[Sample, ...]) -> tuple[Tensor, Tensor]:
    """uint8 [n, 3, size, size] and int64 [n]."""
    images = np.stack([np.asarray(sample.open()) for sample in samples]).transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy()), torch.tensor([sample.class_index for sample in samples])


def jittered(images: Tensor, rotation: float, shift: float, zoom: float) -> Tensor:
    """Each image turned, shifted and scaled at random."""
    u = 2 * torch.rand(len(images), 4) - 1
    angle, scale = torch.deg2rad(u[:, 0] * rotation), 1 + u[:, 3] * zoom
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cosine, sine, 2 * shift * u[:, 1], -sine, cosine, 2 * shift * u[:, 2]], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def plain(cfg: RunConfig, dataset: Dataset) -> float:
    """The loop that one would write for this one case. Returns the test accuracy."""
    config: Any = cfg.downstream
    torch.manual_seed(0)
    network = Network(config, len(dataset.class_names))
    images, targets = pixels(dataset.train)
    splits = {name: pixels(getattr(dataset, name)) for name in ("val", "test")}
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)

    def accuracy(split: str) -> float:
        network.eval()
        with torch.no_grad():
            scores = torch.cat([network(batch) for batch in splits[split][0].split(128)])
        network.train()
        return float((scores.argmax(1) == splits[split][1]).float().mean())

    order = torch.cat(
        [torch.randperm(len(images)) for _ in range(config.num_steps * config.batch_size // len(images) + 1)]
    )
    for step in range(config.num_steps):
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        batch = jittered(images[rows].float() / 255, cfg.augment.rotation, cfg.augment.shift, cfg.augment.zoom)
        loss = functional.cross_entropy(network(batch), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % config.eval_every == 0:
            accuracy("val")
    return accuracy("test")


def through_genaug(cfg: RunConfig, dataset: Dataset) -> float:
    """The same by ``downstream=classifier_tiny``. Returns the test accuracy."""
    data = TrainingData(dataset=dataset, mix=cfg.mix, pool=None, augment=cfg.augment)
    with tempfile.TemporaryDirectory() as folder:
        result = cfg.downstream.train(data, cfg.trainer, Path(folder), Silent())  # type: ignore[arg-type]
    return float(result["metrics"]["test/accuracy_micro"])


def configured(steps: int) -> RunConfig:
    """The shipped classifier on all real digits, one thread."""
    chosen = [
        "generator=none",
        "mix=real_only",
        "dataset.shots=null",
        "trainer.num_threads=1",
        "trainer.accelerator=cpu",
    ]
    return compose_typed([*chosen, f"downstream.num_steps={steps}"])


def compare_loops(steps: int, target: float | None, repeats: int) -> Row:
    """Per 1,000 steps."""
    cfg = configured(steps)
    dataset = cfg.dataset.load()
    accuracies: dict[str, list[float]] = {"ours": [], "theirs": []}

    def noted(name: str, train: Callable[[RunConfig, Dataset], float]) -> None:
        accuracies[name].append(train(cfg, dataset))

    def same(*_: Any) -> str:
        means = {name: statistics.mean(values) for name, values in accuracies.items()}
        if abs(means["ours"] - means["theirs"]) > TOLERANCE:
            raise Different(f"the two trainings reach {means} of the test images")
        return f"test accuracy {means['ours']:.3f} and {means['theirs']:.3f}"

    return compare(
        f"training {cfg.downstream.name}, {steps} steps of {cfg.downstream.batch_size} with augmentation and evaluations",
        Side("genaug: checkpoints, record, seeds per image", lambda: noted("ours", through_genaug), steps / 1000),
        Side("a plain loop with vectorised augmentation", lambda: noted("theirs", plain), steps / 1000),
        same,
        target=target,
        repeats=repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warm_up = configured(5)
    for train in (through_genaug, plain):
        train(warm_up, warm_up.dataset.load())
    row = compare_loops(options.steps, 0.91, options.repeats)
    print(say(row))
    write("training", [row])


if __name__ == "__main__":
    main()
