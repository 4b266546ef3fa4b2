"""Predictions of each downstream family at toy size, as they stand in ``predictions.json``.

``python -m tests.golden.predictions`` computes them again, prints what differs and writes the file. A commit that moves code
changes nothing in it; a commit that means to change what is learned says so and bumps the component's ``version``.

Everything runs on one CPU thread for six steps. Processors differ in the last digits of a sum, which training enlarges:
instruction sets moved probabilities by .0002 after six steps and by .1 after twenty. So numbers are compared within
``PROBABILITY`` and ``PIXELS``; another seed moves them by .02 or more, another rule of self-training by .004.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genaug.data.augmentation import Augment
from genaug.data.mixing import Mix, RealOnly, Replace, Separate
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, SyntheticSample
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.data.sources.digits import Digits
from genaug.downstream.base import Downstream, TrainingData
from genaug.downstream.classification.config import Classifier
from genaug.downstream.detection.config import Detector
from genaug.downstream.self_training.config import LABELS, SelfTraining
from genaug.downstream.trainer import TrainerConfig

FILE = Path(__file__).with_name("predictions.json")
PROBABILITY = 0.002
"""Most difference of a probability or a detection's score."""
PIXELS = 0.5
"""Most difference of a box's corner, of 64 px scenes."""
NUM_IMAGES = 30
NUM_BOXES = 3
"""Detections per scene that are recorded, best first."""
FLIP = Augment(horizontal_flip_prob=0.5)


class NoRecord:
    """Takes what a training reports and keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def digits() -> Dataset:
    dataset = Digits(name="digits", shots=2, seed=0).load()
    return dataclasses.replace(dataset, test=dataset.test[:NUM_IMAGES], val=dataset.val[:NUM_IMAGES])


def inverted(dataset: Dataset) -> Pool:
    """Two inverted copies of every training digit but the first."""
    samples = tuple(
        SyntheticSample(
            id=f"synthetic/{source.id}/{j}",
            digest=f"{source.digest}/{j}",
            image=(255 - np.asarray(source.image)) // (j + 1),
            label=source.label,
            source_id=source.id,
            index=j,
        )
        for j in range(2)
        for source in dataset.train[1:]
    )
    return Pool(fingerprint="0" * 16, folder=Path("nowhere"), samples=samples)


def trained(config: Downstream, dataset: Dataset, mix: Mix, pool: Pool | None, augment: Augment) -> list[Any]:
    """The predictions for the test images."""
    data = TrainingData(dataset=dataset, mix=mix, pool=pool, augment=augment)
    trainer = TrainerConfig(accelerator="cpu", num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        return config.train(data, trainer, Path(folder), NoRecord())["predictions"]  # type: ignore[arg-type]


def predictions() -> dict[str, list[Any]]:
    """By family: of a classifier [predicted class, probability of the target] per image, of a detector for each scene the best
    detections as [left, top, right, bottom, class, score]."""
    dataset = digits()
    pool = inverted(dataset)
    # Adam divides by small numbers and so enlarges the last digits, in which processors differ
    common: dict[str, Any] = {"seed": 0, "image_size": 32, "batch_size": 8, "lr": 0.01, "optimizer": "sgd"}
    found: dict[str, list[Any]] = {}

    def classify(name: str, config: Classifier, mix: Mix, augment: Augment) -> None:
        rows = trained(config, dataset, mix, pool, augment)
        found[name] = [[row["predicted"], round(row["probability"], 4)] for row in rows]

    scratch = {**common, "backbone": "test_resnet", "num_steps": 6}
    mixed = Augment(mixup_alpha=0.5, manifold_alpha=1.0, manifold_layers=2)
    classify("classifier", Classifier(**scratch, ema_decay=0.5), Replace(alpha=0.5, m=2), FLIP)
    classify("classifier, mixed batches", Classifier(**scratch), RealOnly(), mixed)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        write_weights(weights)
        probe = Classifier(
            **(common | {"lr": 0.1}),
            backbone="test_byobnet",
            num_steps=60,
            mode="linear_probe",
            bn_mode="frozen",
            weights_path=str(weights),
        )
        classify("linear probe on frozen features", probe, Replace(alpha=0.5, m=2), Augment())
    for label in LABELS:
        thresholds = {"tau": 0.2, "tau_c": 0.2, "debias_momentum": 0.9}  # what heads of so few steps reach
        config = SelfTraining(**scratch, **thresholds, label=label, num_rounds=2, dst_width=16, lambda_strong=0.1)
        classify(f"self-training, {label}", config, Separate(m=2), FLIP)

    scenes = DigitScenes(seed=0, num_train=6, num_val=1, num_test=4).load()
    schedule: dict[str, Any] = {"optimizer": "sgd", "lr": 0.02, "num_steps": 6, "warmup_steps": 1}
    detector = Detector(seed=0, image_size=64, batch_size=4, mosaic_prob=0.3, **schedule)
    found["detector"] = [
        [
            [*(round(corner, 2) for corner in box), label, round(score, 4)]
            for box, label, score in zip(row["boxes"], row["labels"], row["scores"], strict=True)
        ][:NUM_BOXES]
        for row in trained(detector, scenes, RealOnly(), None, Augment(shift=0.05))
    ]
    return found


def write_weights(path: Path) -> None:
    """A "pretrained" checkpoint in timm's layout."""
    import timm

    torch.manual_seed(7)
    torch.save(timm.create_model("test_byobnet").state_dict(), path)


def difference(old: dict[str, list[Any]], new: dict[str, list[Any]]) -> list[str]:
    """One line for each family whose predictions are new, gone or further apart than the tolerance."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            lines.append(f"{name}: {'new' if before is None else 'gone'}")
            continue
        same = _same_detections if name == "detector" else _same_probabilities
        changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if not same(one, other)]
        if changed:
            i = changed[0]
            lines.append(f"{name}: {len(changed)} of {len(before)} images, image {i}: {before[i]} -> {after[i]}")
    return lines


def _same_probabilities(before: list[float], after: list[float]) -> bool:
    """The probability of the target; the predicted class may change with it where two classes are equally likely."""
    return abs(before[1] - after[1]) <= PROBABILITY


def _same_detections(before: list[list[float]], after: list[list[float]]) -> bool:
    """Each recorded detection is found again; two of the same score may change places."""
    return len(before) == len(after) and all(
        any(
            one[4] == other[4]
            and abs(one[5] - other[5]) <= PROBABILITY
            and max(abs(a - b) for a, b in zip(one[:4], other[:4], strict=True)) <= PIXELS
            for other in after
        )
        for one in before
    )


def main() -> None:
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = predictions()
    print("\n".join(difference(old, new)) or "nothing differs")
    rows = (f" {json.dumps(name)}: {json.dumps(values)}" for name, values in new.items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
