"""The weight of a source picture (adaptive guidance scaling, arXiv 2409.16949, section 3.3; dalda.py of the released code):

s = CLIP's probability of the source's class,   n = training images of a class
(a, b) = unknown if s <= threshold, else known
mu = a + (b - a) (1 - s),   weight ~ N(mu, (sigma_per_shot n)^2), cut to [a, b], or to [a, b + widening sqrt(n)] where known
"""

import math

import numpy as np
import torch

from genaug.core.seeding import derive
from genaug.data.sample import Dataset
from genaug.generators.base import Variant
from genaug.generators.dalda.config import Dalda
from genaug.generators.gif.imagination import judge
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens.prompts import readable


def drawn_scale(config: Dalda, variant: Variant, dataset: Dataset, device: str) -> float:
    """The weight of one image, by its own identity."""
    texts = tuple(config.text.replace("{name}", readable(name)) for name in dataset.class_names)
    clip = judge(config.clip_path, texts, device)
    picture = to_tensor(variant.source.open(), config.image_size, "squash")[None].to(device)
    with torch.no_grad():
        score = clip.probabilities(clip.features(picture))[0, variant.source.class_index].item()
    normal = np.random.default_rng(derive(variant.fingerprint, "picture_scale")).standard_normal()
    return scale(config, score, len(dataset.train) / len(dataset.class_names), float(normal))


def scale(config: Dalda, score: float, shots: float, normal: float) -> float:
    """The weight of a picture whose class CLIP gives ``score``, with a standard normal number ``normal``."""
    least, most = config.unknown if score <= config.threshold else config.known
    mu = least + (most - least) * (1 - score)
    if score > config.threshold:
        most += config.widening * math.sqrt(shots)
    return min(max(mu + config.sigma_per_shot * shots * normal, least), most)
