"""Where the limits of the prior check (``genaug.evaluation.prior_check``) lie: what a loss of detail costs a judge of labels.

The check compares real images with what comes back from the prior's autoencoder: the share of their gradients' energy that is
left, and the share of it that is right. Two questions decide where "cannot draw" begins.

1. What do these shares mean? Held-out images of digits and MNIST are blurred more and more. Which blur leaves just the limits,
   and of how many images does a judge trained on sharp real images (logistic regression on pixels) still find the label?
2. What does the prior itself do? The same numbers of images from its own autoencoder, on data it was trained on and on others.
   The limits stand between the two kinds.

    python -m benchmarks prior_check_limits --data ../shared/data
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.measure import circumstances
from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.data.sample import Dataset, Sample
from genaug.evaluation.prior_check import (
    LEAST_ENERGY,
    LEAST_RIGHT,
    as_seen,
    check_prior,
    compare,
    through_autoencoder,
)
from genaug.priors.model import Prior

RADII = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Standard deviations of the blur, in pixels of the prior's size."""
KEPT = 0.9
"""Share of its accuracy that the judge has to keep."""
SIDE = 32
"""Pixels per side that the judge looks at."""
NUM_TRAIN, NUM_HELD = 1000, 200


def runs(folder: Path | None, prior: Sequence[str]) -> dict[str, RunConfig]:
    """With digits, and, where they are on this machine, MNIST, photographs (COCO) and micrographs (BCCD)."""
    words = {"digits": ["dataset=digits", "dataset.shots=null"]}
    if folder is not None:
        words |= {
            "MNIST": ["dataset=mnist", f"dataset.root={folder / 'mnist'}", "dataset.shots=100"],
            "photographs": ["dataset=voc", f"dataset.root={folder / 'coco_cc'}"],
            "micrographs": ["dataset=voc", f"dataset.root={folder / 'bccd'}"],
        }
    return {name: compose_typed([*chosen, *prior]) for name, chosen in words.items()}


class Judge:
    """Finds labels of held-out images, having learned from sharp real ones."""

    def __init__(self, prior: Prior, dataset: Dataset):
        from sklearn.linear_model import LogisticRegression

        known = _some(dataset.train, NUM_TRAIN)
        self.held = _some(dataset.test, NUM_HELD)
        self.originals = as_seen(prior, [*known, *self.held])
        rows = _rows([self.originals[sample.digest] for sample in known])
        self.probe = LogisticRegression(max_iter=1000).fit(rows, [sample.class_index for sample in known])

    def accuracy(self, pictures: dict[str, Image.Image]) -> float:
        found = self.probe.predict(_rows([pictures[sample.digest] for sample in self.held]))
        return float(np.mean(found == np.array([sample.class_index for sample in self.held])))

    def measure(self, pictures: dict[str, Image.Image]) -> dict[str, float]:
        """Median shares of the gradients' energy, and the judge's accuracy."""
        pairs = [compare(self.originals[sample.digest], pictures[sample.digest]) for sample in self.held]
        energy, right = np.median([(e, r) for _, e, r in pairs if e is not None and r is not None], axis=0)
        return {"energy": float(energy), "right": float(right), "accuracy": self.accuracy(pictures)}


def _some(samples: Sequence[Sample], number: int) -> list[Sample]:
    distinct = list({sample.digest: sample for sample in samples}.values())
    return [distinct[i] for i in np.random.default_rng(0).permutation(len(distinct))[:number]]


def _rows(pictures: Sequence[Image.Image]) -> np.ndarray:
    small = [np.asarray(picture.convert("L").resize((SIDE, SIDE)), dtype=np.float32) / 255 for picture in pictures]
    return np.stack(small).reshape(len(small), -1)


def blurred(pictures: dict[str, Image.Image], radius: float) -> dict[str, Image.Image]:
    return {key: picture.filter(ImageFilter.GaussianBlur(radius)) for key, picture in pictures.items()}


def meaning(ladder: Sequence[dict[str, Any]]) -> list[str]:
    """For each set: which blur takes as much as the limits allow, what the judge says of it, and where the judge gives up."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in ladder):
        rows = [row for row in ladder if row["set"] == name]
        for key, limit in (("energy", LEAST_ENERGY), ("right", LEAST_RIGHT)):
            shares = [row[key] for row in reversed(rows)]  # rising, as np.interp wants them
            blur = np.interp(limit, shares, [row["blur"] for row in reversed(rows)])
            accuracy = np.interp(limit, shares, [row["accuracy"] for row in reversed(rows)])
            lines.append(
                f"{name}: {key} {limit:.2f} is what a blur of {blur:.1f} px leaves; the judge keeps "
                f"{accuracy / rows[0]['accuracy']:.0%} of its accuracy there"
            )
        lost = next((row for row in rows if row["accuracy"] < KEPT * rows[0]["accuracy"]), None)
        if lost is not None:
            lines.append(
                f"{name}: the judge loses more than a tenth of its accuracy at a blur of {lost['blur']:g} px (energy "
                f"{lost['energy']:.2f}, right {lost['right']:.2f})"
            )
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="folder with mnist/, coco_cc/ and bccd/")
    options.add_argument("overrides", nargs="*", default=["prior=tiny"], help="the prior, e.g. prior=sd15")
    options.add_argument("--device", default="cpu")
    options.add_argument("--out", type=Path, help="a JSON file for the rows")
    chosen = options.parse_args()
    ladder, sets = [], []
    for name, config in runs(chosen.data, chosen.overrides).items():
        dataset, prior = config.dataset.load(), config.prior.load(chosen.device)
        with tempfile.TemporaryDirectory() as work:
            check = check_prior(prior, config.prior, dataset, Path(work), class_names=False)
        numbers = ("image_size", "psnr_db", "energy", "right", "can_draw")
        row = {"set": name, **{key: getattr(check, key) for key in numbers}}
        if dataset.task == "classification":
            judge = Judge(prior, dataset)
            sharp = {sample.digest: judge.originals[sample.digest] for sample in judge.held}
            for radius in (0.0, *RADII):
                ladder.append(
                    {"set": name, "blur": radius, **judge.measure(blurred(sharp, radius) if radius else sharp)}
                )
                text = "blur {blur:4.1f} px of {set:<12} energy {energy:5.2f}  right {right:5.2f}  judge {accuracy:.2f}"
                print(text.format(**ladder[-1]))
            row["accuracy"] = judge.accuracy(through_autoencoder(prior, judge.held))
        sets.append(row)
    lines = meaning(ladder)
    for row in sets:
        judged = f"  judge {row['accuracy']:.2f}" if "accuracy" in row else ""
        said = "can draw" if row["can_draw"] else "cannot draw"
        text = "{set:<12} at {image_size} px: energy {energy:5.2f}  right {right:5.2f}"
        print(f"{text.format(**row)}{judged}  {said}")
    print("\n".join(lines))
    if chosen.out:
        about = {"prior": chosen.overrides, **circumstances(chosen.device), "meaning": lines}
        chosen.out.write_text(json.dumps({**about, "prior_on_sets": sets, "blur": ladder}, indent=1) + "\n")


if __name__ == "__main__":
    main()
