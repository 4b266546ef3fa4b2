"""Training the tiny classifier: through genaug against a plain loop with vectorised augmentation, in CPU seconds of one thread.

Both sides train the same network on the same images with the same augmentation, optimiser, schedule and evaluations, in
alternation; the accuracies that they reach are compared. The plain loop keeps no checkpoints, no record, no seeds per image.

    python benchmarks/training.py [--steps 1000] [--repeats 5]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    steps = f"downstream.num_steps={arguments.steps}"
    cfg = compose_typed(["generator=none", "mix=real_only", "dataset.shots=null", "trainer.num_threads=1", steps])
    torch.set_num_threads(1)
    dataset = cfg.dataset.load()
    sides = {"genaug": through_genaug, "plain": plain}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    accuracies: dict[str, list[float]] = {name: [] for name in sides}
    warm_up = compose_typed(["generator=none", "mix=real_only", "trainer.num_threads=1", "downstream.num_steps=5"])
    for train in sides.values():
        train(warm_up, dataset)
    for _ in range(arguments.repeats):
        for name, train in sides.items():
            started = time.process_time()
            accuracies[name].append(train(cfg, dataset))
            seconds[name].append(time.process_time() - started)
    ratios = [ours / theirs for ours, theirs in zip(seconds["genaug"], seconds["plain"], strict=True)]
    means = {name: statistics.mean(values) for name, values in accuracies.items()}
    report = {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_seconds": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        "accuracy": {name: round(value, 3) for name, value in means.items()},
        **vars(arguments),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread",
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))
    if abs(means["genaug"] - means["plain"]) > TOLERANCE:
        raise SystemExit(f"the two trainings reach {means}: they did not do the same")


if __name__ == "__main__":
    main()
