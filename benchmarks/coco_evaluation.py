"""COCO's twelve numbers: faster-coco-eval (downstream.evaluator=faster) against pycocotools, on made-up detections.

Both sides read the same objects and detections, with crowds and ties; the largest difference of the twelve is compared.

    python -m benchmarks coco_evaluation [--images 500]
"""

import argparse
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Different, Side, compare, say, write
from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Sample
from genaug.downstream.detection.metrics import STATISTICS, average_precision

NAMES = ("a", "b", "c")
LIMIT = 1e-12


def made_up(num_images: int) -> tuple[list[Sample], list[Detections]]:
    """About 6 objects per image, a tenth of them crowds, and about 50 detections near them with 101 different scores."""
    random = np.random.default_rng(0)
    samples, found = [], []
    for i in range(num_images):
        corners = random.uniform(0, 400, (random.integers(1, 12), 2))
        boxes = np.concatenate([corners, corners + random.uniform(5, 200, corners.shape)], axis=1).astype(np.float32)
        labels, crowd = random.integers(0, len(NAMES), len(boxes)), random.random(len(boxes)) < 0.1
        pixels = np.zeros((8, 8, 3), np.uint8)
        samples.append(
            Sample(id=str(i), digest=str(i), image=pixels, boxes=Boxes(xyxy=boxes, labels=labels, crowd=crowd))
        )
        near = random.integers(0, len(boxes), random.integers(0, 100))
        guesses = boxes[near] + random.normal(0, 4, (len(near), 4))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = np.sort(random.random(len(near)).round(2))[::-1].astype(np.float32)
        found.append(Detections(xyxy=guesses.astype(np.float32), labels=labels[near], scores=scores))
    return samples, found


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    worst = max(abs(ours[key] - theirs[key]) for key in STATISTICS)
    if worst > LIMIT:
        raise Different(f"the twelve numbers differ by up to {worst:g}")
    return f"the twelve numbers, within {LIMIT:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, found = made_up(options.images)
    row = compare(
        f"average precision of {options.images} images",
        Side("faster-coco-eval", lambda: average_precision(samples, found, NAMES, "faster"), units=options.images),
        Side("pycocotools", lambda: average_precision(samples, found, NAMES), units=options.images),
        same,
    )
    print(say(row))
    write("coco_evaluation", [row])


if __name__ == "__main__":
    main()
