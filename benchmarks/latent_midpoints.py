"""Whether midpoints between digits are digits: latent interpolation by what its autoencoder learned from and by its code.

Of midpoints between validation images of two classes, the share that is clearly one digit: nearer to a training image of one
class than to any of the others, by a fifth or more of the distance. Beside it the diagnostics that each fit writes. Nothing
here reads the test split. The picture's rows: first images, second ones, then the midpoints of each setting.

    python -m benchmarks latent_midpoints --out benchmarks/results/latent_midpoints.json
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.measure import circumstances
from genaug import compose
from genaug.data.sample import Sample
from genaug.generators.latent_interpolation.config import LatentInterpolation
from genaug.generators.latent_interpolation.fit import build_autoencoder
from genaug.generators.latent_interpolation.training import load_weights, square_pixels, to_unit

SETTINGS: dict[str, dict[str, Any]] = {
    "version 1: drawn images, 16 dimensions": {"images": "drawn", "z_dim": 16, "version": 1},
    "drawn images": {"images": "drawn", "z_dim": 8},
    "all training images, 16 dimensions": {"images": "all", "z_dim": 16},
    "all training images (the preset)": {"images": "all", "z_dim": 8},
}
SHOWN = ("psnr", "psnr_fitted", "gap", "gap_pixel", "ks_max", "std", "correlation_max", "empty_cells", "midpoint_shell")
CLEAR = 0.8  # largest ratio of the distances to the nearest class and the next one
COLUMNS = 20  # of the picture


def pixels(samples: tuple[Sample, ...]) -> Tensor:
    """In [0, 1], [n, 3, 32, 32]."""
    return to_unit(torch.stack([square_pixels(sample, 32) for sample in samples]))


def configured(generator: LatentInterpolation, images: str, z_dim: int, version: int = 2) -> LatentInterpolation:
    networks = replace(generator.networks, z_dim=z_dim)
    training = replace(generator.training, images=images)
    if version == 1:
        networks = replace(networks, code="tanh", output="tanh", leak=0.0)
        training = replace(training, recon="mse", lambda_adv=0.1)
    return replace(generator, networks=networks, training=training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latent_midpoints.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = compose(["dataset=digits", "generator=latent_interpolation", f"seed={options.seed}"])
    dataset, generator = config.dataset.load(), config.generator
    assert isinstance(generator, LatentInterpolation)
    everything = (*dataset.train, *dataset.undrawn)
    known, labels = pixels(everything).flatten(1), torch.tensor([sample.class_index for sample in everything])

    def clear(x: Tensor) -> float:
        distance = torch.cdist(x.flatten(1), known)
        by_class = torch.stack([distance[:, labels == c].min(dim=1).values for c in labels.unique()], dim=1)
        nearest, second = by_class.sort(dim=1).values[:, :2].unbind(dim=1)
        return round(float((nearest <= CLEAR * second).float().mean()), 3)

    x = pixels(dataset.val)
    classes = np.array([sample.class_index for sample in dataset.val])
    partners = np.random.default_rng(0).permutation(len(x))
    pairs = classes != classes[partners]
    first, second = x[pairs], x[partners][pairs]
    found: dict[str, Any] = {
        **circumstances(),
        "clear_validation": clear(x),
        "clear_pixel_midpoints": clear((first + second) / 2),
    }
    rows = [first, second]
    for name, changes in SETTINGS.items():
        changed = configured(generator, **changes)
        with TemporaryDirectory() as folder:
            about = changed.fit(dataset, None, Path(folder))
            aae = build_autoencoder(changed)
            load_weights(aae, Path(folder))
        with torch.no_grad():
            middle = (aae.decoder((aae.encoder(2 * first - 1) + aae.encoder(2 * second - 1)) / 2) + 1) / 2
        rows.append(middle.clamp(0, 1))
        found[name] = {"clear_midpoints": clear(rows[-1])} | {k: about["diagnostics"][f"hole/{k}"] for k in SHOWN}
        print(name, found[name], flush=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    sheet = torch.cat([torch.cat(list(row[:COLUMNS, 0]), dim=1) for row in rows])
    picture = Image.fromarray((sheet * 255).round().to(torch.uint8).numpy())
    picture.resize((2 * picture.width, 2 * picture.height)).save(options.out.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
