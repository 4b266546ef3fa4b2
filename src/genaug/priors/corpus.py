"""Training pictures and prompts of the tiny prior, drawn from local folders.

Four kinds: MNIST digits at 32 px, scenes of several MNIST digits over textures at 64 px, colour photographs, and
micrographs. Only training splits are read; scikit-learn's digits, which the demo uses as its real data, are never
part of it. Every draw takes a `torch.Generator` on the CPU: a picture depends on the seed alone, not on the device.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from genaug.core.errors import GenaugError
from genaug.data.sources.mnist import IMAGES, LABELS, read_idx

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEXTURES = ("plain", "gradient", "striped", "checkered", "noisy", "photographic")
COLOURS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 0.9, 0.3),
    "blue": (0.3, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.2),
    "purple": (0.8, 0.3, 0.9),
    "orange": (1.0, 0.6, 0.1),
}

# The object templates of textual inversion (Gal et al. 2023, as used by DA-Fusion): its prompts are in distribution.
PROMPT_TEMPLATES = (
    *(f"a photo of {word} {{}}" for word in ("a", "the", "my", "one")),
    *(f"a photo of {words} {{}}" for words in ("a clean", "the clean", "a dirty", "a cool", "the cool", "a nice")),
    *(f"a photo of {words} {{}}" for words in ("the nice", "a small", "the small", "the large", "the weird")),
    *(f"a good photo of {word} {{}}" for word in ("a", "the")),
    *(f"a close-up photo of {word} {{}}" for word in ("a", "the")),
    *(f"a cropped photo of {word} {{}}" for word in ("a", "the")),
    *(f"a rendition of {word} {{}}" for word in ("a", "the")),
    *("a bright photo of the {}", "a dark photo of the {}", "the photo of a {}", "a rendering of a {}"),
)
MICROGRAPH_TEMPLATES = ("a micrograph of {}", "a photo of {}", "a micrograph of the {}")
GENERIC_PROMPTS = ("a photo", "a picture", "an image", "a photo of an object")
MICROGRAPH_SUBJECT = "blood cells"


@dataclass(slots=True)
class Corpus:
    """Everything that is read from disk, in memory."""

    digits: Tensor
    """uint8 [n, 28, 28], MNIST train."""
    labels: Tensor
    """int64 [n]."""
    pictures: list[Tensor]
    """uint8 [3, h, w] each, shorter side 128 px: photographs first, then micrographs."""
    subjects: list[str]
    """Class words of each picture, in the same order."""
    num_photographs: int
    files: list[Path] = field(default_factory=list)
    """Every file that was read."""

    def to(self, device: torch.device) -> "Corpus":
        pictures = [picture.to(device) for picture in self.pictures]
        return Corpus(self.digits.to(device), self.labels, pictures, self.subjects, self.num_photographs, self.files)


def load_corpus(data_dir: str | Path) -> Corpus:
    """Reads `mnist`, `custom_coco_256`, `coco_cc` and `bccd` below `data_dir`, training splits only.

    Raises:
        GenaugError: when a folder or file is missing.
    """
    root = Path(data_dir)
    for name in ("mnist", "custom_coco_256", "coco_cc", "bccd"):
        if not (root / name).is_dir():
            raise GenaugError(
                f"The tiny prior's training data lacks the folder {root / name}. Write recipe.data_dir=FOLDER, one that "
                f"holds mnist, custom_coco_256, coco_cc and bccd (it is {str(data_dir)!r} now). The trained prior ships "
                "with the package; this data is needed only to train it again."
            )
    image_file, label_file = (root / "mnist" / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    files = [image_file, label_file]
    photographs = sorted((root / "custom_coco_256" / "train-val").glob("*/*.jpg"))
    subjects = [path.parent.name.replace("_", " ") for path in photographs]
    names = (root / "coco_cc" / "ImageSets" / "Main" / "train.txt").read_text().split()
    coco = [root / "coco_cc" / "JPEGImages" / f"{name}.jpg" for name in names]
    names = (root / "bccd" / "ImageSets" / "Main" / "train.txt").read_text().split()
    micrographs = [root / "bccd" / "JPEGImages" / f"{name}.jpg" for name in names]
    paths = photographs + coco + micrographs
    subjects += ["scene"] * len(coco) + [MICROGRAPH_SUBJECT] * len(micrographs)
    return Corpus(
        digits=torch.from_numpy(read_idx(image_file, IMAGES).copy()),
        labels=torch.from_numpy(read_idx(label_file, LABELS).copy()).long(),
        pictures=[read_picture(path, shorter_side=128) for path in paths],
        subjects=subjects,
        num_photographs=len(photographs) + len(coco),
        files=files + paths,
    )


def read_picture(path: Path, shorter_side: int) -> Tensor:
    """RGB picture as uint8 [3, h, w] whose shorter side is `shorter_side` px."""
    if not path.is_file():
        raise GenaugError(f"The picture {path} is missing from the training data of the tiny prior.")
    with Image.open(path) as picture:
        picture = picture.convert("RGB")
        factor = shorter_side / min(picture.size)
        size = (max(shorter_side, round(picture.width * factor)), max(shorter_side, round(picture.height * factor)))
        array = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def draw_masks(
    corpus: Corpus,
    generator: torch.Generator,
    index: Tensor,
    size: int,
    magnify: tuple[Tensor, Tensor],
    shift: Tensor,
    max_degrees: float,
) -> Tensor:
    """Digits `index` [n] rotated, magnified (x, y) [n] and moved by `shift` [n, 2] (in halves of the output's width),
    as coverage in [0, 1], [n, 1, size, size]. At magnification 1 the 28 px frame fills the output."""
    n = len(index)
    angle = uniform(generator, -math.radians(max_degrees), math.radians(max_degrees), n)
    cos, sin = angle.cos(), angle.sin()
    inverse = torch.stack([cos / magnify[0], sin / magnify[0], -sin / magnify[1], cos / magnify[1]], 1).view(n, 2, 2)
    theta = torch.cat([inverse, -inverse @ shift[:, :, None]], 2).to(corpus.digits.device)
    source = corpus.digits[index.to(corpus.digits.device)].float()[:, None] / 255
    return F.grid_sample(source, F.affine_grid(theta, [n, 1, size, size], False), align_corners=False).clamp(0, 1)


def degrade(
    masks: Tensor, generator: torch.Generator, resolutions: tuple[int, ...], weights: tuple[float, ...]
) -> Tensor:
    """Brings each mask down to one of `resolutions` (drawn with `weights`) and up again; coverage at 8 px has 17
    levels, as in the optical digits of the UCI archive. The upsampling is bilinear, bicubic or, rarely, nearest."""
    size = masks.shape[-1]
    choice = torch.multinomial(torch.tensor(weights), len(masks), replacement=True, generator=generator)
    mode = torch.multinomial(torch.tensor([0.45, 0.45, 0.1]), len(masks), replacement=True, generator=generator)
    gain = uniform(generator, 1.0, 4.0, len(masks)).to(masks.device)[:, None, None, None]
    masks = masks.clone()
    for i, resolution in enumerate(resolutions):
        if resolution >= size:
            continue
        for j, name in enumerate(("bilinear", "bicubic", "nearest")):
            rows = torch.nonzero((choice == i) & (mode == j)).flatten().to(masks.device)
            if len(rows) == 0:
                continue
            part = ((masks[rows] - 0.4) * gain[rows] + 0.4).clamp(0, 1) if resolution == 8 else masks[rows]
            part = F.interpolate(part, resolution, mode="area")
            part = (part * 16).round() / 16 if resolution == 8 else part
            align = None if name == "nearest" else False
            masks[rows] = F.interpolate(part, size, mode=name, align_corners=align).clamp(0, 1)
    return masks


def draw_digits(corpus: Corpus, generator: torch.Generator, n: int, size: int = 32, strong: bool = False):
    """n digit pictures in [0, 1] [n, 3, size, size] and their subjects.

    Half look like MNIST, half like large digits of 8 x 8 coverage values. `strong` (for the autoencoder) widens
    rotation, magnification and shift, and paints two of five in random colours; otherwise one in eight is tinted or
    inverted, which its subject then says.
    """
    index = torch.randint(len(corpus.digits), (n,), generator=generator)
    large = torch.rand(n, generator=generator) < 0.5
    low, high = (0.6, 1.15) if strong else (0.95, 1.08)
    plain_scale = uniform(generator, low, high, n)
    magnify_x = torch.where(large, uniform(generator, 1.0, 1.45, n), plain_scale)
    magnify_y = torch.where(large, uniform(generator, 1.25, 1.5, n), plain_scale * uniform(generator, 0.95, 1.05, n))
    reach = torch.where(large, 0.04, 0.2 if strong else 0.03)[:, None]
    shift = uniform(generator, -1, 1, n, 2) * reach
    masks = draw_masks(corpus, generator, index, size, (magnify_x, magnify_y), shift, 25 if strong else 8)
    masks = torch.where(
        large.to(masks.device)[:, None, None, None],
        degrade(masks, generator, (8,), (1.0,)),
        degrade(masks, generator, (8, 14, 20, size), (0.1, 0.15, 0.15, 0.6)),
    )
    foreground = uniform(generator, 0.6 if strong else 0.85, 1.0, n, 1).expand(n, 3).clone()
    background = torch.zeros(n, 3)
    subjects = [DIGIT_WORDS[label] for label in corpus.labels[index].tolist()]
    painted = torch.rand(n, generator=generator) < (0.4 if strong else 0.125)
    wild, colour = torch.rand(n, 2, 3, generator=generator), torch.randint(len(COLOURS) + 2, (n,), generator=generator)
    for i in torch.nonzero(painted).flatten().tolist():
        if strong:
            foreground[i], background[i] = wild[i]
        elif colour[i] < len(COLOURS):
            name = list(COLOURS)[int(colour[i])]
            foreground[i], subjects[i] = torch.tensor(COLOURS[name]), f"{name} {subjects[i]}"
        else:
            foreground[i], background[i], subjects[i] = torch.zeros(3), foreground[i], f"black {subjects[i]} on white"
    images = paint(masks, foreground, background[:, :, None, None].to(masks.device))
    if strong:
        noise = uniform(generator, 0, 0.04, n) * (torch.rand(n, generator=generator) < 0.2)
        images = images + noise[:, None, None, None].to(masks.device) * torch.randn(
            images.shape, generator=generator
        ).to(masks.device)
    return images.clamp(0, 1), subjects


def paint(masks: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Lays `foreground` [n, 3] over `background` [n, 3, h, w] where `masks` [n, 1, h, w] cover it."""
    return background + (foreground.to(masks.device)[:, :, None, None] - background) * masks


def draw_texture(corpus: Corpus, generator: torch.Generator, name: str, size: int) -> Tensor:
    """One background of the named texture in [0, 1], [3, size, size]."""
    low, high = torch.rand(2, 3, 1, 1, generator=generator)
    high = low + (high - low) * 0.6
    ramp = torch.linspace(0, 1, size)
    angle = float(uniform(generator, 0, 2 * math.pi, 1))
    along = ramp[None, :] * math.cos(angle) + ramp[:, None] * math.sin(angle)
    period = float(uniform(generator, 8, 24, 1)) / size
    if name == "photographic":
        return draw_pictures(corpus, generator, 1, size)[0][0].cpu() * 0.8
    if name == "plain":
        weight = torch.zeros(size, size)
    elif name == "gradient":
        weight = (along - along.min()) / (along.max() - along.min())
    elif name == "striped":
        weight = ((along / period * 2 * math.pi).sin() * 3).clamp(-1, 1) * 0.5 + 0.5
    elif name == "checkered":
        cells = (torch.arange(size) // max(2, int(period * size / 2))) % 2
        weight = (cells[None, :] ^ cells[:, None]).float()
    else:
        coarse = int(torch.randint(4, size // 2, (1,), generator=generator))
        noise = torch.rand(1, 1, coarse, coarse, generator=generator)
        weight = F.interpolate(noise, size, mode="bilinear", align_corners=False)[0, 0]
    return low + (high - low) * weight


def draw_scenes(corpus: Corpus, generator: torch.Generator, n: int, size: int = 64):
    """n scenes of one to four digits, one per quadrant, over a texture: [n, 3, size, size] in [0, 1], and subjects."""
    kinds = torch.randint(len(TEXTURES), (n,), generator=generator).tolist()
    images = torch.stack([draw_texture(corpus, generator, TEXTURES[kind], size) for kind in kinds]).to(
        corpus.digits.device
    )
    count = torch.multinomial(torch.tensor([0.2, 0.4, 0.25, 0.15]), n, replacement=True, generator=generator) + 1
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    order = torch.rand(n, 4, generator=generator).argsort(1)
    words: list[list[str]] = [[] for _ in range(n)]
    for slot in range(4):
        active = count > slot
        index = torch.randint(len(corpus.digits), (n,), generator=generator)
        scale = uniform(generator, 0.42, 0.62, n)
        shift = corners[order[:, slot]] + uniform(generator, -0.12, 0.12, n, 2)
        masks = draw_masks(corpus, generator, index, size, (scale, scale), shift, 15)
        masks = masks * active.to(masks.device)[:, None, None, None]
        mean = images.mean((2, 3)).mean(1).cpu()
        bright = torch.where(torch.rand(n, generator=generator) < 0.9, mean < 0.5, mean >= 0.5)[:, None]
        spread = torch.rand(n, 3, generator=generator) * uniform(generator, 0, 0.5, n, 1)
        images = paint(masks, torch.where(bright, 1 - spread, spread), images)
        for i in torch.nonzero(active).flatten().tolist():
            words[i].append(DIGIT_WORDS[int(corpus.labels[index[i]])])
    ends = [f" on a {TEXTURES[kind]} background" for kind in kinds]
    return images.clamp(0, 1), [" and a ".join(word) + end for word, end in zip(words, ends, strict=True)]


def draw_pictures(corpus: Corpus, generator: torch.Generator, n: int, size: int, micrograph_prob: float = 0.0):
    """n square crops (55 to 100 % of the shorter side, flipped half the time) of photographs or, with
    `micrograph_prob`, of micrographs: [n, 3, size, size] in [0, 1], and their subjects."""
    images, subjects = [], []
    for _ in range(n):
        u = torch.rand(6, generator=generator).tolist()
        first, last = (
            (corpus.num_photographs, len(corpus.pictures)) if u[0] < micrograph_prob else (0, corpus.num_photographs)
        )
        i = first + int(u[1] * (last - first))
        picture = corpus.pictures[i]
        height, width = picture.shape[1:]
        side = round(min(height, width) * (0.55 + 0.45 * u[2]))
        top, left = round(u[3] * (height - side)), round(u[4] * (width - side))
        crop = picture[None, :, top : top + side, left : left + side].float() / 255
        crop = F.interpolate(crop, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)[0]
        images.append(crop.flip(-1) if u[5] < 0.5 else crop)
        subjects.append(corpus.subjects[i])
    return torch.stack(images), subjects
