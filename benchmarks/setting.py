"""What the measurements of diffusion share: the model and random pictures."""

from dataclasses import dataclass

import numpy as np
import torch

from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.priors.config import PriorConfig
from genaug.priors.model import Prior
from genaug.priors.random_weights import random_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Which model, where, and how large the pictures are."""

    weights: str = "shipped"
    """``shipped``: the tiny prior. ``tiny`` or ``sd15``: random weights in these shapes."""
    device: str = "cpu"
    dtype: str = "float32"
    image_size: int = 32

    def prior(self) -> Prior:
        """A model of its own, not compiled."""
        if self.weights == "shipped":
            from genaug.priors.loading import load_prior

            return load_prior(PriorConfig(image_size=self.image_size), self.device)
        with torch.device(self.device):
            parts = random_parts(self.weights)
        for part in ("unet", "vae"):
            parts[part] = parts[part].to(getattr(torch, self.dtype))
        config = dict(parts.pop("scheduler").config)
        return Prior(**parts, scheduler_config=config, image_size=self.image_size, weights="random", device=self.device)


def random_dataset(num_classes: int, per_class: int, size: int) -> Dataset:
    """Random patterns with class names ``class 0``, ``class 1`` …"""
    random = np.random.default_rng(0)
    samples = []
    for i in range(num_classes * per_class):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((size // 8, size // 8, 1), dtype=np.uint8))
        label = {i % num_classes: 1.0}
        samples.append(Sample(id=str(i), digest=digest_bytes(pixels.tobytes()), image=pixels, label=label))
    names = tuple(f"class {i}" for i in range(num_classes))
    return Dataset(name="patterns", task="classification", class_names=names, train=tuple(samples), val=(), test=())
