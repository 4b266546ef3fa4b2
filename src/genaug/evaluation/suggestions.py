"""Settings for a data set, by rules that fit in a line each: ``choosing.py`` puts them where nobody says otherwise.

They make a first comparison that ends: in minutes to hours on a CPU, in hours on a GPU. They are no protocol of any paper.
"""

from dataclasses import dataclass

import numpy as np

from genaug.data.sample import Dataset
from genaug.data.summary import per_class
from genaug.evaluation.prior_check import PriorCheck

CPU_SIDE, GPU_SIDE, DETECTOR_SIDE = 64, 224, 640
"""Largest training sides: what a CPU trains in minutes, what pretrained backbones expect, and detectors."""
MOST_GENERATED = {"cpu": 1000, "cuda": 20_000}
"""Generated images per pool."""
EPOCHS = 50
STEPS = {"cpu": (200, 1000), "cuda": (400, 5000)}
MOST_SHOTS = {"cpu": 64, "cuda": 1000}
MOST_WITH_BOXES = {"cpu": 256, "cuda": 5000}
"""Training images of a detector; those of a classifier are counted by class."""
GOOD_RIGHT = 0.6
"""Share of the gradients that the prior gets right from which it is given free rein."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One setting."""

    override: str
    why: str


def suggestions(
    dataset: Dataset, median_side: int, device: str, check: PriorCheck | None, batch: int, warmup: int = 0
) -> list[Suggestion]:
    """Settings of ``experiment=own/<task>`` for a data set.

    Args:
        median_side: longer side of the median image, in pixels.
        device: ``cpu`` or ``cuda``.
        check: what the prior makes of the images; None where that was not looked at.
        batch: batch size of the downstream model's preset.
        warmup: its warm-up steps.
    """
    device = device if device in STEPS else "cpu"
    detects = dataset.task == "detection"
    side = image_size(median_side, dataset.task, device)
    found = [
        Suggestion(f"dataset.image_size={side}", f"the median image has {median_side} px; {_limit(detects, device)}")
    ]
    num_train = len(dataset.train)
    counts = [number for number in per_class(dataset.train).values() if number]
    found.append(model(dataset.task, device))
    found += (draw := _draw(dataset, counts, device))
    if draw:
        key, _, value = draw[0].override.partition("=")
        num_train = int(value) * len(counts) if key == "dataset.shots" else int(np.ceil(float(value) * num_train))
    fitting = min(batch, 1 << max(num_train.bit_length() - 1, 0))
    why = "as the model's preset has it" if fitting == batch else f"there are {num_train} training images"
    found.append(Suggestion(f"downstream.batch_size={fitting}", why))
    least, greatest = STEPS[device]
    steps = int(np.clip(round(EPOCHS * num_train / fitting / 50) * 50, least, greatest))
    found.append(
        Suggestion(
            f"downstream.num_steps={steps}", f"about {EPOCHS} epochs of {num_train} images, {least} to {greatest}"
        )
    )
    if warmup > steps // 5:
        found.append(
            Suggestion(f"downstream.warmup_steps={steps // 10}", f"a tenth of the steps; the preset has {warmup}")
        )
    m = int(np.clip(MOST_GENERATED[device] // max(num_train, 1), 1, 10))
    found.append(Suggestion(f"mix.m={m}", f"{m * num_train} generated images per method"))
    if not detects:
        free = check is None or check.right >= GOOD_RIGHT
        t0 = 0.5 if free else 0.25
        why = (
            "the prior redraws such images well"
            if free
            else "the prior redraws such images poorly: stay near the source"
        )
        found.append(Suggestion(f"generator.t0={t0}", why))
    return found


def _draw(dataset: Dataset, counts: list[int], device: str) -> list[Suggestion]:
    """Fewer training images than there are, where there are many: by class, unless a class has next to none."""
    num_train, detects = len(dataset.train), dataset.task == "detection"
    most = MOST_WITH_BOXES[device] if detects else MOST_SHOTS[device]
    why = "generated images help most where real ones are few; at most about {} of them here"
    if detects or (max(counts) > most and min(counts) < most / 4):
        total = most if detects else most * len(counts)
        share = np.ceil(100 * total / num_train) / 100
        return [Suggestion(f"dataset.fraction={share:g}", why.format(total))] if share < 1 else []
    if max(counts) <= most:
        return []
    return [Suggestion(f"dataset.shots={min(most, min(counts))}", why.format(f"{most} per class"))]


def model(task: str, device: str) -> Suggestion:
    """The downstream model: a pretrained one where there is a GPU."""
    if task == "detection":
        name, what = ("faster_rcnn", "a pretrained") if device == "cuda" else ("detector_tiny", "a small")
        return Suggestion(f"downstream={name}", f"{what} detector: there is {'a' if device == 'cuda' else 'no'} GPU")
    if device == "cuda":
        return Suggestion("downstream=resnet50", "a pretrained backbone: there is a GPU")
    return Suggestion("downstream=classifier_tiny", "a small network from scratch: there is no GPU")


def image_size(median_side: int, task: str, device: str) -> int:
    """The multiple of 32 next below the median image's longer side, at least 32, at most what the device trains well."""
    most = CPU_SIDE if device == "cpu" else DETECTOR_SIDE if task == "detection" else GPU_SIDE
    return int(np.clip(median_side // 32 * 32, 32, most))


def _limit(detects: bool, device: str) -> str:
    if device == "cpu":
        return f"at most {CPU_SIDE} without a GPU"
    return f"at most {DETECTOR_SIDE if detects else GPU_SIDE} with one"
