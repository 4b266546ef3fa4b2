"""What a user should know of a data set before anything is computed on it: classes, images per split, what is left out."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from genaug.data.sample import Dataset, Sample
from genaug.data.sources.tree import reader_advice

PLURALS = re.compile(r"\b(image|file|picture|link|region|box(?=es))(?:s|es)\b")
SHOWN = 12
"""Names in one line, at most."""
LONGEST = 40
"""Characters of one name."""


def summary(dataset: Dataset) -> list[str]:
    """Lines for the start of a run: size, images or boxes per class, absent classes, what was left out."""
    names = dataset.class_names
    lines = [
        f"{dataset.name}: {len(dataset.train)} train, {len(dataset.val)} val, {len(dataset.test)} test images, "
        f"{len(names)} classes: {shortened(names)}"
    ]
    what = "boxes" if dataset.task == "detection" else "images"
    counts = {"train": per_class(dataset.train), "val": per_class(dataset.val), "test": per_class(dataset.test)}
    spans = []
    for split, found in counts.items():
        present = [(found[i], names[i]) for i in range(len(names))]
        if present and getattr(dataset, split):
            (least, rarest), (most, commonest) = min(present), max(present)
            spans.append(
                f"{split} {least} ({short(rarest)}) to {most} ({short(commonest)})"
                if least < most
                else f"{split} {least}"
            )
    lines.append(f"{what} per class: {', '.join(spans)}" if spans else f"no {what}")
    for split in ("train", "test"):
        absent = [name for i, name in enumerate(names) if not counts[split][i]]
        if absent and getattr(dataset, split):
            averages = (
                f": averages over classes are over the other {len(names) - len(absent)}" if split == "test" else ""
            )
            lines.append(
                f"{len(absent)} of {len(names)} classes have no {what} in {split} ({shortened(absent)}){averages}"
            )
    alike = Counter(name.casefold() for name in names)
    twins = [name for name in names if alike[name.casefold()] > 1]
    if twins:
        lines.append(f"classes that differ by upper and lower case alone: {shortened(twins)}")
    if dataset.notes:
        lines.append("of the files: " + ", ".join(counted(count, reason) for reason, count in dataset.notes.items()))
    return [*lines, *dataset.remarks]


def counted(count: int, reason: str) -> str:
    """``2 images without boxes`` and ``1 image without boxes``, of a note such as ``images_without_boxes``."""
    words = reason.replace("_", " ")
    said = f"{count} " + (PLURALS.sub(r"\1", words, count=1) if count == 1 else words)
    advice = reader_advice([reason.partition("_")[0]])
    return f"{said} ({advice})" if advice else said


def per_class(samples: Sequence[Sample]) -> Counter[int]:
    """Images by class, or boxes where samples have boxes (crowds left out)."""
    counts: Counter[int] = Counter()
    for sample in samples:
        if sample.boxes is not None:
            labels, numbers = np.unique(sample.boxes.labels[~sample.boxes.crowd], return_counts=True)
            counts.update({int(label): int(number) for label, number in zip(labels, numbers, strict=True)})
        elif sample.label:
            counts[sample.class_index] += 1
    return counts


def shortened(names: Sequence[str]) -> str:
    """The names in one line, the first and the last of them when they are many."""
    if len(names) > SHOWN:
        return f"{', '.join(map(short, names[: SHOWN - 2]))} … {short(names[-1])}"
    return ", ".join(map(short, names))


def short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
