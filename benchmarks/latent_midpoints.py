"""Whether midpoints between digits are digits: latent interpolation by what its autoencoder learned from and by its code.

Of midpoints between validation images of two classes and of one, the share that is clearly one digit: nearer to a training
image of one class than to any of the others, by a fifth or more of the distance. Beside it the same share of the
reconstructions, the most that the decoder's blur allows, and the diagnostics that each fit writes. Nothing here reads the
test split. The picture's rows: first images, second ones, then the midpoints of each setting.

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
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/latent_midpoints.png"))
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
    rng = np.random.default_rng(0)
    across = rng.permutation(len(x))
    within = np.empty(len(x), dtype=np.int64)  # each image's partner of its own class
    for c in np.unique(classes):
        within[classes == c] = rng.permutation(np.flatnonzero(classes == c))
    kinds = {"of two classes": classes != classes[across], "of one class": within != np.arange(len(x))}
    partners = {"of two classes": across, "of one class": within}
    pairs = {kind: (np.flatnonzero(chosen), partners[kind][chosen]) for kind, chosen in kinds.items()}
    found: dict[str, Any] = {**circumstances(), "validation images": {"clear": clear(x)}}
    found["midpoints of pixels"] = {f"clear {kind}": clear((x[i] + x[j]) / 2) for kind, (i, j) in pairs.items()}
    first, second = pairs["of two classes"]
    rows = [x[first], x[second]]
    for name, changes in SETTINGS.items():
        changed = configured(generator, **changes)
        with TemporaryDirectory() as folder:
            about = changed.fit(dataset, None, Path(folder))
            aae = build_autoencoder(changed)
            load_weights(aae, Path(folder))
        with torch.no_grad():
            z = aae.encoder(2 * x - 1)
            made = {f"clear {kind}": (z[i] + z[j]) / 2 for kind, (i, j) in pairs.items()} | {"clear reconstructions": z}
            images = {key: ((aae.decoder(codes) + 1) / 2).clamp(0, 1) for key, codes in made.items()}
        rows.append(images["clear of two classes"])
        shares = {key: clear(image) for key, image in images.items()}
        found[name] = shares | {k: about["diagnostics"][f"hole/{k}"] for k in SHOWN}
        print(name, found[name], flush=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    sheet = torch.cat([torch.cat(list(row[:COLUMNS, 0]), dim=1) for row in rows])
    picture = Image.fromarray((sheet * 255).round().to(torch.uint8).numpy())
    picture.resize((2 * picture.width, 2 * picture.height)).save(options.picture, optimize=True)


if __name__ == "__main__":
    main()
