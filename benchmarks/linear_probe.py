"""Linear probe on a frozen backbone: cached features against decoding and encoding at every step.

Both sides train the same linear layer on the same draws; the probabilities that they give to the test images are compared.

    python -m benchmarks linear_probe [--steps 60 200] [--shots 4] [--size 64]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from benchmarks.measure import Different, Row, Side, compare, say, write
from benchmarks.training import Silent
from genaug.core.seeding import derive
from genaug.data.augmentation import Augment
from genaug.data.mixing import RealOnly
from genaug.data.sample import Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.batches import class_weights
from genaug.downstream.classification.config import Classifier
from genaug.downstream.classification.module import Network
from genaug.downstream.decoded import resized
from genaug.downstream.trainer import TrainerConfig

NUM_CLASSES, NUM_TEST = 20, 100
PHOTO_SIZE = (500, 375)  # as in PASCAL VOC
TOLERANCE = 1e-3  # of a probability: batches of other shapes round differently


def make_dataset(folder: Path, shots: int) -> Dataset:
    """JPEG files: each class has its own coarse pattern under noise."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (NUM_CLASSES, 6, 8, 3))

    def photo(name: str, label: int) -> Sample:
        coarse = Image.fromarray(
            (patterns[label] + rng.normal(0, 30, patterns[label].shape)).clip(0, 255).astype(np.uint8)
        )
        coarse.resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(folder / f"{name}.jpg")
        return Sample(id=name, digest=name, image=folder / f"{name}.jpg", label={label: 1.0})

    train = tuple(photo(f"train{c}_{i}", c) for c in range(NUM_CLASSES) for i in range(shots))
    test = tuple(photo(f"test{i}", i % NUM_CLASSES) for i in range(NUM_TEST))
    names = tuple(f"class {c}" for c in range(NUM_CLASSES))
    return Dataset(name="patterns", task="classification", class_names=names, train=train, val=(), test=test)


def read(samples: tuple[Sample, ...] | list[Sample], size: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([resized(sample.open(), size, "squash") for sample in samples]))


def probe_without_cache(config: Classifier, data: TrainingData) -> np.ndarray:
    """The plain loop: decode, encode, one step of the linear layer. Returns float [test images, classes]."""
    torch.manual_seed(derive(config.seed, "init"))
    network = Network(config, NUM_CLASSES)
    optimizer = torch.optim.Adam(network.head.parameters(), lr=config.lr)
    stream = data.stream(config.seed, config.sampling == "with_replacement")
    for step in range(config.num_steps):
        samples = [stream[d].sample for d in range(step * config.batch_size, (step + 1) * config.batch_size)]
        logits = network(read(samples, config.image_size))
        loss = torch.nn.functional.cross_entropy(logits, class_weights(samples, NUM_CLASSES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        return network(read(data.dataset.test, config.image_size)).softmax(dim=1).numpy()


def compare_cached(
    folder: Path, steps: int, shots: int, size: int, backbone: str, target: float | None, repeats: int
) -> Row:
    """A whole training by ``downstream.mode=linear_probe`` against the plain loop."""
    torch.manual_seed(0)
    torch.save(timm.create_model(backbone).state_dict(), folder / "weights.pth")
    config = Classifier(
        name="probe",
        seed=0,
        image_size=size,
        backbone=backbone,
        mode="linear_probe",
        weights_path=str(folder / "weights.pth"),
        bn_mode="frozen",
        optimizer="adam",
        lr=0.001,
        weight_decay=0.0,
        schedule="constant",
        sampling="with_replacement",
        num_steps=steps,
    )
    data = TrainingData(dataset=make_dataset(folder, shots), mix=RealOnly(), pool=None, augment=Augment(name="none"))

    def ours() -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as cell:  # a new one each time: nothing is left of the repeat before
            result = config.train(data, TrainerConfig(accelerator="cpu"), Path(cell), Silent())  # type: ignore[arg-type]
        return result["predictions"]

    def same(rows: list[dict[str, Any]], expected: np.ndarray) -> str:
        apart = max(abs(row["probability"] - expected[i, row["target"]]) for i, row in enumerate(rows))
        if apart > TOLERANCE:
            raise Different(f"the probabilities differ by {apart:.2g}, more than {TOLERANCE}")
        return f"probabilities of {len(rows)} test images: largest difference {apart:.1g}"

    return compare(
        f"linear probe on a frozen {backbone}, {len(data.dataset.train)} photographs of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]} at "
        f"{size} px, {steps} steps of {config.batch_size}",
        Side("features computed once", ours),
        Side("decoding and encoding at every step", lambda: probe_without_cache(config, data)),
        same,
        target=target,
        repeats=repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 200])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compare_cached(Path(folder), 2, 1, options.size, options.backbone, None, 1)  # warm up
        for steps in options.steps:
            target = 15.0 if steps == 60 else None
            rows.append(
                compare_cached(
                    Path(folder), steps, options.shots, options.size, options.backbone, target, options.repeats
                )
            )
            print(say(rows[-1]), flush=True)
    write("linear_probe", rows)


if __name__ == "__main__":
    main()
