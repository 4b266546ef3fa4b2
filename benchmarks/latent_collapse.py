"""How often the autoencoder of latent interpolation collapses: the preset's fit, cut short, four sets of twenty seeds.

A fit has collapsed when its codes say nothing of their images (``networks.collapsed``) in each of the last ten steps: they are
all nearly the same, or what is decoded lies further from the images than their mean. The sets: digits; MNIST; photographs of
23 classes; cells cut out of blood smears by their boxes. All at 32 px; only digits come with the package, the others lie in
``--data``.

    python -m benchmarks latent_collapse --data ../shared/data --out benchmarks/results/latent_collapse.json
    python -m benchmarks latent_collapse --data ../shared/data --as-caae --seeds 3
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import circumstances
from genaug import compose
from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.generators.latent_interpolation.config import LatentInterpolation
from genaug.generators.latent_interpolation.fit import build_autoencoder
from genaug.generators.latent_interpolation.networks import BAD_STEPS, collapsed
from genaug.generators.latent_interpolation.samples import fitted_samples
from genaug.generators.latent_interpolation.training import Batches

SETS = {
    "digits": ["dataset=digits"],
    "mnist": ["dataset=mnist", "dataset.root={data}/mnist", "dataset.shots=16"],
    "photographs": ["dataset=image_folder", "dataset.root={data}/custom_coco_256/train-val"],
    "cells": ["dataset=voc", "dataset.root={data}/bccd", "downstream=detector_tiny", "augment=none"],
}


def cut_out(dataset: Dataset) -> Dataset:
    """The boxes of the training images, each as an image."""
    cells = []
    for sample in dataset.train:
        image, boxes = sample.open(), sample.boxes
        assert boxes is not None
        for k, (box, label) in enumerate(zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True)):
            pixels = np.asarray(image.crop(tuple(box)))
            cells.append(
                Sample(id=f"{sample.id}/{k}", digest=digest_bytes(pixels.tobytes()), image=pixels, label={label: 1.0})
            )
    return replace(dataset, train=tuple(cells), val=(), test=())


def generator_of(seed: int, as_caae: bool) -> LatentInterpolation:
    """The preset of a seed."""
    generator = compose(["generator=latent_interpolation", f"seed={seed}"]).generator
    assert isinstance(generator, LatentInterpolation)
    return (
        replace(generator, networks=replace(generator.networks, code="tanh", output="tanh", leak=0.0))
        if as_caae
        else generator
    )


def one_fit(generator: LatentInterpolation, samples: Sequence[Sample], num_steps: int) -> dict[str, Any]:
    """The first steps of the fit that the preset would make, without its checkpoints and diagnostics."""
    training, started = generator.training, time.process_time()
    aae = build_autoencoder(generator).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(
        samples, generator.image_size, training.batch_size, training.seed, training.max_shift, training.flip_prob
    ).between(0, num_steps)
    optimizers = aae.configure_optimizers()
    bad_steps = 0
    for step, x in (batches[i] for i in range(num_steps)):
        losses = aae.play(step, x, optimizers, lambda loss: loss.backward())
        bad_steps = bad_steps + 1 if collapsed(generator.networks, losses) else 0
    return {
        "collapsed": bad_steps >= BAD_STEPS,
        **{key: round(float(losses[key]), 3) for key in ("explained", "spread", "saturated", "discriminator")},
        "seconds": round(time.process_time() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist, custom_coco_256 and bccd; without it digits alone")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--num-steps", type=int, default=200, help="of 800: collapsed codes collapse within the first 100"
    )
    parser.add_argument(
        "--as-caae", action="store_true", help="codes and images behind a tanh, and ReLU, as CAAE has them"
    )
    parser.add_argument("--out", type=Path, help="what lies there already is not fitted again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {**circumstances(), "num_steps": options.num_steps, "as_caae": options.as_caae}
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    same = all(known.get(key) == about[key] for key in ("num_steps", "as_caae"))
    found: dict[str, Any] = {**about, "sets": known["sets"] if known and same else {}}
    for name in options.sets.split(","):
        if name != "digits" and options.data is None:
            continue
        words = [word.format(data=options.data) for word in SETS[name]]
        source = compose([*words, "generator=none"]).dataset
        whole = cut_out(source.whole()) if source.task == "detection" else source.whole()
        runs = found["sets"].get(name, {}).get("runs", [])
        for seed in range(len(runs), options.seeds):
            generator = generator_of(seed, options.as_caae)
            samples = fitted_samples(generator.training, replace(source, seed=seed).draw(whole))
            runs.append({"seed": seed, **one_fit(generator, samples, options.num_steps)})
            print(f"{name} seed {seed}: {runs[-1]}", flush=True)
            found["sets"][name] = {
                "collapses": sum(run["collapsed"] for run in runs),
                "fits": len(runs),
                "least_explained": min(run["explained"] for run in runs),
                "runs": runs,
            }
            if options.out:
                options.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, about in found["sets"].items():
        print(
            f"{name}: {about['collapses']} of {about['fits']} collapsed, variance explained at least {about['least_explained']}"
        )


if __name__ == "__main__":
    main()
