"""What the measurements of diffusion share: the model, random pictures, the hardware's name."""

import argparse
import os
import platform
from pathlib import Path

import numpy as np
import torch

from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.priors.config import PriorConfig
from genaug.priors.model import Prior
from genaug.priors.random_weights import random_parts


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that choose the model and the device."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--prior", default="tiny", help="tiny, or a folder in the diffusers layout")
    options.add_argument("--random", action="store_true", help="tiny shapes with random weights instead of --prior")
    options.add_argument("--sd15-shapes", action="store_true", help="Stable Diffusion 1.5's shapes, random weights")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--dtype", help="U-Net and VAE precision; default bfloat16 for --sd15-shapes on a GPU")
    options.add_argument("--image-size", type=int, help="pixels; default 32, or 512 for --sd15-shapes")
    options.add_argument("--compile", action="store_true", help="torch.compile the U-Net of the batched side")
    options.add_argument("--threads", type=int, help="CPU threads; default torch's choice")
    return options


def load_prior(options: argparse.Namespace) -> Prior:
    """The model that the options name."""
    if options.threads:
        torch.set_num_threads(options.threads)
    size = options.image_size or (512 if options.sd15_shapes else 32)
    dtype = options.dtype or ("bfloat16" if options.sd15_shapes and options.device.startswith("cuda") else "float32")
    if not options.sd15_shapes and not options.random:
        config = PriorConfig(path=options.prior, image_size=size, dtype=dtype, vae_dtype=dtype, compile=options.compile)
        return config.load(options.device)
    with torch.device(options.device):
        parts = random_parts("sd15" if options.sd15_shapes else "tiny")
    if dtype != "float32":
        for part in ("unet", "vae"):
            parts[part] = parts[part].to(getattr(torch, dtype))
    config = dict(parts.pop("scheduler").config)
    return Prior(
        **parts,
        scheduler_config=config,
        image_size=size,
        weights="random",
        device=options.device,
        compile=options.compile,
    )


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


def hardware(device: str) -> str:
    """One line: processor or GPU, threads, torch."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.processor()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads{load}, torch {torch.__version__}"


def synchronize(device: str) -> None:
    """Wait for the GPU, so that a clock read next is right."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
