"""The guided step of GIF (arXiv 2211.13976, section 4), on the clean latents f of an edit:

f' = clamp((1 + zeta) f + b, f - eps, f + eps)      zeta ~ U[0, 1), b ~ N(0, 1), one of each per channel
(zeta, b) <- (zeta, b) + step sign(grad S),         S = S_inf + S_div
S_inf = H(p') - H(p) + p'_c                         p, p': CLIP's class probabilities of source and perturbed picture,
                                                    c: the source's most probable class
S_div = KL(softmax(mean feature) || softmax(feature))   over the copies of one image
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from genaug.core.errors import boundary
from genaug.core.seeding import derive
from genaug.generators.base import Variant
from genaug.generators.gif.config import Gif
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens.prompts import readable
from genaug.priors.model import Prior

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pictures."""
SCALE = 100.0
"""Of the cosine similarities in CLIP's class probabilities."""


class Judge:
    """CLIP as a classifier of named classes."""

    def __init__(self, path: str, texts: tuple[str, ...], device: str):
        from transformers import CLIPModel, CLIPTokenizer

        where = str(Path(path).expanduser()) if Path(path).expanduser().is_dir() else path
        with boundary(
            f"generator.clip_path={path} cannot be loaded", "Write the folder of a CLIP model in transformers' layout."
        ):
            model: Any = CLIPModel.from_pretrained(where)
            tokenizer: Any = CLIPTokenizer.from_pretrained(where)
        self.model = model.to(device).eval().requires_grad_(False)
        self.side: int = model.config.vision_config.image_size
        self.mean, self.std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        with torch.no_grad():
            inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
            hidden = self.model.text_model(**inputs).pooler_output
            self.classes = normalize(self.model.text_projection(hidden), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """Rows of length 1 [b, d] of images [b, 3, h, w] in [-1, 1], with gradient."""
        pixels = (images.clamp(-1, 1) + 1) / 2
        pixels = interpolate(pixels, (self.side, self.side), mode="bicubic", antialias=True)
        hidden = self.model.vision_model(pixel_values=(pixels - self.mean) / self.std).pooler_output
        return normalize(self.model.visual_projection(hidden), dim=-1)

    def probabilities(self, features: Tensor) -> Tensor:
        """[b, classes]."""
        return (SCALE * features @ self.classes.T).softmax(dim=-1)


@functools.lru_cache(maxsize=1)
def judge(path: str, texts: tuple[str, ...], device: str) -> Judge:
    """CLIP for these classes, loaded once per process."""
    return Judge(path, texts, device)


def imagined(config: Gif, prior: Prior, z: Tensor, variants: Sequence[Variant], class_names: Sequence[str]) -> Tensor:
    """The latents [b, 4, h, w] of a batch after the guided step; each depends on its own identity alone."""
    texts = tuple(config.text.replace("{name}", readable(name)) for name in class_names)
    clip = judge(config.clip_path, texts, str(prior.device))
    found = []
    for latents, variant in zip(z, variants, strict=True):
        picture = to_tensor(variant.source.open(), prior.image_size, config.resize)[None].to(prior.device)
        with torch.no_grad():
            known = clip.probabilities(clip.features(picture))[0]
        found.append(_guided(config, prior, clip, latents, known, derive(variant.fingerprint, "imagination")))
    return torch.stack(found)


def _guided(config: Gif, prior: Prior, clip: Judge, f: Tensor, known: Tensor, seed: int) -> Tensor:
    """f' of one image, [4, h, w]."""
    random = torch.Generator().manual_seed(seed)
    shape = (config.copies, len(f), 1, 1)
    zeta = torch.rand(shape, generator=random).to(f).requires_grad_()
    b = torch.randn(shape, generator=random).to(f).requires_grad_()
    with torch.enable_grad():
        z = (1 + zeta) * f + b
        images = prior.vae.decode((z / prior.scaling_factor).to(prior.vae.dtype)).sample.float()
        features = clip.features(images)
        score = informativeness(clip.probabilities(features), known) + diversity(features)
        slopes = torch.autograd.grad(score, (zeta, b))
    zeta, b = (value.detach() + config.step_size * slope.sign() for value, slope in zip((zeta, b), slopes, strict=True))
    return torch.minimum(torch.maximum((1 + zeta[0]) * f + b[0], f - config.epsilon), f + config.epsilon)


def informativeness(found: Tensor, known: Tensor) -> Tensor:
    """S_inf, the mean over the copies [copies, classes]; ``known`` [classes] is the source's."""
    return (entropy(found) - entropy(known) + found[:, known.argmax()]).mean()


def entropy(p: Tensor) -> Tensor:
    """H(p) of the last axis; 0 log 0 = 0."""
    return -torch.special.xlogy(p, p).sum(dim=-1)


def diversity(features: Tensor) -> Tensor:
    """S_div of the copies' features [copies, d]."""
    own = features.log_softmax(dim=-1)
    mean = features.mean(dim=0, keepdim=True).log_softmax(dim=-1)
    return (mean.exp() * (mean - own)).sum(dim=-1).mean()
