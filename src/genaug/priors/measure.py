"""What a trained tiny prior can do, in numbers: `quality.json`.

PSNR here is 10 log10(1 / mean squared error) of each picture over its RGB values in [0, 1], averaged over the pictures.
"""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers loads its public names lazily and annotates its arguments and results more narrowly than they are.

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline
from sklearn.datasets import load_digits
from torch import Tensor, nn

from genaug.core.errors import GenaugError
from genaug.data.sources.mnist import IMAGES, LABELS, read_idx
from genaug.priors.corpus import DIGIT_WORDS, draw_digits, load_corpus, read_picture

CLASSIFIER_STEPS, CLASSIFIER_BATCH_SIZE = 1500, 128


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair, [n]; images [n, 3, h, w] in [0, 1]."""
    return -10 * (images - others).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def resize(images: Tensor, size: int) -> Tensor:
    """Bicubic, antialiased when smaller; [n, c, h, w] in [0, 1] to [n, c, size, size]."""
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def optical_digits(size: int = 32) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits of 8 x 8 px as RGB pictures in [0, 1], [n, 3, size, size], and their labels [n]."""
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16.0).float()[:, None]
    return resize(images, size).expand(-1, 3, -1, -1), torch.from_numpy(digits.target)


def held_out_pictures(paths: list[Path], size: int) -> Tensor:
    """Central squares of picture files, [n, 3, size, size] in [0, 1]."""
    pictures = []
    for path in paths:
        picture = read_picture(path, shorter_side=size)
        top, left = (picture.shape[1] - size) // 2, (picture.shape[2] - size) // 2
        pictures.append(picture[:, top : top + size, left : left + size].float() / 255)
    return torch.stack(pictures)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor, batch_size: int = 64) -> Tensor:
    """Encodes to the posterior's mean and decodes; images [n, 3, h, w] in [0, 1]."""
    parts = []
    for part in images.split(batch_size):
        mean = vae.encode(part.to(vae.device) * 2 - 1).latent_dist.mean
        parts.append((vae.decode(mean).sample / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(parts)


def train_classifier(data_dir: str | Path, device: str = "cpu", seed: int = 0) -> tuple[nn.Module, float]:
    """A small network trained on MNIST train with the corpus' mild augmentation, and its accuracy on MNIST test."""
    torch.manual_seed(seed)
    corpus = load_corpus(data_dir).to(torch.device(device))

    def block(channels_in: int, channels: int) -> nn.Sequential:
        layers = (nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(*layers)

    head = (nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, 10))
    network = nn.Sequential(block(1, 24), block(24, 48), block(48, 64), *head).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=CLASSIFIER_STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(CLASSIFIER_STEPS):
        images, subjects = draw_digits(corpus, generator, CLASSIFIER_BATCH_SIZE)
        words = [next(word for word in subject.split() if word in DIGIT_WORDS) for subject in subjects]
        labels = torch.tensor([DIGIT_WORDS.index(word) for word in words], device=device)
        loss = F.cross_entropy(network(images.mean(1, keepdim=True)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    images, labels = mnist_test(data_dir)
    return network, float((classify(network, images) == labels).float().mean())


def mnist_test(data_dir: str | Path) -> tuple[Tensor, Tensor]:
    """MNIST test enlarged from 28 to 32 px, [10000, 3, 32, 32] in [0, 1], and labels."""
    kinds = {"images-idx3": IMAGES, "labels-idx1": LABELS}
    files = {Path(data_dir) / "mnist" / f"t10k-{kind}-ubyte.gz": magic for kind, magic in kinds.items()}
    images, labels = (torch.from_numpy(read_idx(path, magic).copy()) for path, magic in files.items())
    images = F.interpolate(images[:, None].float() / 255, 32, mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1), labels.long()


@torch.no_grad()
def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Predicted digits [n] of pictures [n, 3, 32, 32] in [0, 1]."""
    device = next(network.parameters()).device
    return torch.cat([network(part.mean(1, keepdim=True).to(device)).argmax(1).cpu() for part in images.split(500)])


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], guidance: float, seed: int, size: int = 32) -> Tensor:
    """One picture per prompt after 25 DDIM steps, [n, 3, size, size] in [0, 1]."""
    parts = []
    for first in range(0, len(prompts), 100):
        result = pipeline(
            prompts[first : first + 100],
            height=size,
            width=size,
            num_inference_steps=25,
            guidance_scale=guidance,
            output_type="pt",
            generator=torch.Generator().manual_seed(seed + first),
        )
        parts.append(torch.as_tensor(result.images).float().cpu())
    return torch.cat(parts)


def measure_prior(
    folder: str | Path,
    data_dir: str | Path,
    *,
    num_samples: int = 1000,
    guidance: float = 2.0,
    device: str = "cpu",
    hardware: str = "",
) -> dict[str, Any]:
    """Measures the prior in `folder` and writes `folder / "quality.json"`.

    Args:
        num_samples: class-conditional samples in all, a multiple of 10.
        guidance: classifier-free guidance of these.
        hardware: a description of the machine, copied to the result.

    Returns:
        The content of quality.json: PSNR in dB with the number of pictures, the share of samples that the classifier
        assigns to the prompted digit (all and per digit), the classifier's accuracy on MNIST test, sizes.
    """
    folder, data_dir = Path(folder), Path(data_dir)
    if num_samples < 10 or num_samples % 10:
        raise GenaugError(f"num_samples={num_samples}: write a multiple of 10, for as many samples of each digit.")
    pipeline = load_pipeline(folder, device)
    names = (data_dir / "bccd" / "ImageSets" / "Main" / "val.txt").read_text().split()
    micrographs = [data_dir / "bccd" / "JPEGImages" / f"{name}.jpg" for name in names]
    photographs = sorted((data_dir / "custom_coco_256" / "test").glob("*/*.jpg"))
    sets = {
        "scikit_learn_digits_32px": optical_digits()[0],
        "mnist_test_32px": mnist_test(data_dir)[0][:2000],
        "photographs_test_64px": held_out_pictures(photographs, 64),
        "photographs_test_128px": held_out_pictures(photographs, 128),
        "micrographs_val_64px": held_out_pictures(micrographs, 64),
    }
    quality: dict[str, Any] = {"reconstruction_psnr_db": {}}
    for name, images in sets.items():
        values = psnr(images, reconstruct(pipeline.vae, images))
        quality["reconstruction_psnr_db"][name] = {"mean": round(float(values.mean()), 2), "n": len(values)}
    network, accuracy = train_classifier(data_dir, device)
    labels = torch.arange(10).repeat_interleave(num_samples // 10)
    samples = sample(pipeline, [f"a photo of a {DIGIT_WORDS[label]}" for label in labels.tolist()], guidance, seed=0)
    right = classify(network, samples) == labels
    quality["class_conditional_samples"] = {
        "share_right": round(float(right.float().mean()), 4),
        "n": num_samples,
        "share_right_per_digit": [round(float(right[labels == digit].float().mean()), 3) for digit in range(10)],
        "ddim_steps": 25,
        "guidance": guidance,
        "classifier_accuracy_on_mnist_test": round(accuracy, 4),
    }
    parts = {"vae": pipeline.vae, "unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    quality["parameters"] = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    quality["bytes_of_weights"] = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    quality["hardware"] = hardware
    (folder / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    return quality


def load_pipeline(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32).to(
        device
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
