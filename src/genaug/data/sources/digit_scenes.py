"""Scenes of scikit-learn's digits over procedural textures, with exact boxes: a detection set that needs no download.

The digits of the training, validation and test scenes are different handwritten ones (the splits of ``digits``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from genaug.core.fields import bounded, count
from genaug.core.identity import digest_bytes
from genaug.core.registry import component
from genaug.core.seeding import derive
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.sources.detection import DetectionSource
from genaug.data.sources.digits import NAMES, Digits

TEXTURES = ("plain", "gradient", "stripes", "checks", "waves", "noise")
INK = 0.35  # share of the ink from which a pixel belongs to the digit, hence to its box
MAX_TRIES = 60


@component("dataset", "digit_scenes")
@dataclass(kw_only=True, slots=True)
class DigitScenes(DetectionSource):
    """One to ``max_digits`` digits per scene. Scenes depend on ``scene_seed`` and their number alone."""

    image_size: int = count(64, least=32)
    """Side of a scene in pixels, 32 or more."""
    num_train: int = count(24)
    """Training scenes."""
    num_val: int = count(20)
    """Validation scenes."""
    num_test: int = count(100)
    """Test scenes."""
    num_classes: int = count(3, most=10)
    """The first of zero, one, two, … nine that occur, 1 to 10."""
    max_digits: int = count(3, most=4)
    """Most digits in a scene, 1 to 4."""
    scene_seed: int = bounded(0, 0)
    """Seed of all scenes; not the trial's seed, so every trial has the same test."""

    embedded: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def read(self) -> Dataset:
        digits = Digits(name="digits", image_size=8, seed=0).read()
        splits = {}
        for split, total in (("train", self.num_train), ("val", self.num_val), ("test", self.num_test)):
            by_class: list[list[np.ndarray]] = [[] for _ in range(self.num_classes)]
            for sample in getattr(digits, split):
                if sample.class_index < self.num_classes:
                    assert isinstance(sample.image, np.ndarray)
                    by_class[sample.class_index].append(sample.image[:, :, 0])
            splits[split] = tuple(self._scene(split, number, by_class) for number in range(total))
        return Dataset(
            name=self.name or "digit_scenes", task=self.task, class_names=NAMES[: self.num_classes], **splits
        )

    def _scene(self, split: str, number: int, digits: Sequence[Sequence[np.ndarray]]) -> Sample:
        rng = np.random.default_rng(derive("digit_scenes", self.scene_seed, split, number))
        size = self.image_size
        canvas = texture(rng, size)
        boxes: list[list[int]] = []
        labels: list[int] = []
        mask = np.zeros((size, size), dtype=bool)
        wanted = int(rng.integers(1, self.max_digits + 1))
        for _ in range(MAX_TRIES):
            if len(boxes) == wanted:
                break
            label = int(rng.integers(self.num_classes))
            small = digits[label][int(rng.integers(len(digits[label])))]
            height = int(rng.uniform(0.3, 0.45) * size)
            glyph = Image.fromarray(small).resize(
                (round(height * rng.uniform(0.75, 1.0)), height), Image.Resampling.BICUBIC
            )
            ink = np.asarray(glyph.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR), dtype=np.float64) / 255
            rows, columns = np.flatnonzero((ink > INK).any(1)), np.flatnonzero((ink > INK).any(0))
            if not len(rows) or not len(columns):
                continue
            ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            top = int(rng.integers(0, size - ink.shape[0] + 1))
            left = int(rng.integers(0, size - ink.shape[1] + 1))
            box = [left, top, left + ink.shape[1], top + ink.shape[0]]
            if any(box[0] < b[2] + 1 and b[0] < box[2] + 1 and box[1] < b[3] + 1 and b[1] < box[3] + 1 for b in boxes):
                continue
            colour = rng.uniform(0.75, 1.0, 3)
            region = canvas[top : box[3], left : box[2]]
            region += (colour - region) * ink[:, :, None]
            mask[top : box[3], left : box[2]] |= ink > INK
            boxes.append(box)
            labels.append(label)
        pixels = np.round(canvas.clip(0, 1) * 255).astype(np.uint8)
        return Sample(
            id=f"{split}/{number:04d}",
            digest=digest_bytes(pixels.tobytes()),
            image=pixels,
            boxes=Boxes(
                xyxy=np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
                labels=np.asarray(labels, dtype=np.int64),
                crowd=np.zeros(len(boxes), dtype=bool),
            ),
            mask=mask,
        )


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dark background: float64 [size, size, 3] in [0, 0.6]."""
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    y, x = np.mgrid[0:size, 0:size] / size
    angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(3, 9), rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    wave = lambda t: 0.5 + 0.5 * np.sin(2 * np.pi * frequency * t + phase)
    pattern = {
        "plain": np.full((size, size), 0.5),
        "gradient": along / max(np.ptp(along), 1e-9) - along.min() / max(np.ptp(along), 1e-9),
        "stripes": (wave(along) > 0.5).astype(np.float64),
        "checks": ((wave(along) > 0.5) ^ (wave(across) > 0.5)).astype(np.float64),
        "waves": wave(along + 0.1 * np.sin(2 * np.pi * 2 * across)),
        "noise": np.asarray(
            Image.fromarray(rng.uniform(0, 1, (size // 4, size // 4)).astype(np.float32)).resize((size, size), 3)
        ).clip(0, 1),
    }[kind]
    dark, light = rng.uniform(0, 0.3, 3), rng.uniform(0.15, 0.55, 3)
    grain = rng.normal(0, 0.02, (size, size, 1))
    return (dark + (light - dark) * pattern[:, :, None] + grain).clip(0, 0.6)
