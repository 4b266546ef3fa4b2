"""Can this prior draw such images at all? A look at a few of them before a method is judged by what it makes of them.

A method that edits images with a diffusion model gets no more out of it than its autoencoder keeps. So 16 real images go
through the autoencoder and back and are compared with themselves: by PSNR, beside the PSNR between each and the nearest other
of its class; by the share of their gradients' energy that is left (a blur loses it); and by the share of it that is right
(1 - error / energy of the gradients). Four of them are also edited (SDEdit) at three levels, for a person to look at.

The limits stand between what the shipped prior does to images that it knows and to others, as ``python -m benchmarks
prior_check_limits`` measures (benchmarks/results/prior_check_limits.json): digits keep 0.90 of the energy and 0.89 of it right,
MNIST 0.32 and 0.51, photographs at 64 px 0.15 and 0.15, micrographs 0.20 and 0.19. A blur that leaves 0.40 of digits right has
cost a judge of their labels a fifth of its accuracy; MNIST's thick strokes bear more. Stable Diffusion was not measured: that
its autoencoder keeps enough of the energy is an expectation.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from genaug.core.cost import GPUS, USE, unet_gflop, vae_gflop
from genaug.core.errors import GenaugError, boundary
from genaug.core.files import read_json, write_json
from genaug.core.identity import canonical, fingerprint
from genaug.core.store import Store
from genaug.data.sample import Dataset, Sample
from genaug.drawing.pen import pen_on
from genaug.priors.config import TINY, PriorConfig

if TYPE_CHECKING:
    from genaug.priors.model import Prior

VERSION = 1
NUM_RECONSTRUCTED, NUM_EDITED, NUM_CLASSES = 16, 4, 8
NUM_NEIGHBOURS = 48
"""Images in which nearest neighbours are looked for, the reconstructed ones among them."""
LEVELS = (0.25, 0.5, 0.75)
NUM_STEPS, GUIDANCE = 8, 2.0
LEAST_ENERGY = 0.6
"""Share of the gradients' energy below which a reconstruction counts as blurred."""
LEAST_RIGHT = 0.4
"""Share of it that has to be right where the reconstruction is blurred; one of which more is wrong than right never passes."""
CELL, GAP = 64, 3
SHEET, NUMBERS = "prior_check.png", "prior_check.json"


@dataclass(kw_only=True, frozen=True, slots=True)
class PriorCheck:
    """What the check found."""

    prior: str
    """The prior's name."""
    image_size: int
    """Side in pixels at which it sees images."""
    num_images: int
    psnr_db: float
    """Mean over the images, of their reconstructions."""
    neighbour_db: float | None
    """Mean PSNR between an image and the nearest other one of its class; None where classes have one image."""
    energy: float
    """Share of the gradients' energy that reconstructions keep; the median image's."""
    right: float
    """Share of it that is right, at most 1; the median image's."""
    can_draw: bool
    sentence: str
    """One paragraph for people."""


def check_prior(prior: "Prior", config: PriorConfig, dataset: Dataset, folder: Path, class_names: bool) -> PriorCheck:
    """Look at some training images of a data set; ``folder`` gets the numbers and the pictures side by side.

    Args:
        class_names: whether prompts may name classes.
    """
    chosen, others = _choose(dataset)
    config_of_edits = _edits(class_names)
    originals, made = as_seen(prior, others), through_autoencoder(prior, chosen)
    values = [compare(originals[s.digest], made[s.digest]) for s in chosen]
    neighbours = [d for s in chosen if (d := _nearest_db(s, others, originals)) is not None]
    edited = _edited(prior, config_of_edits, chosen[:NUM_EDITED], dataset)
    _sheet(chosen, originals, made, edited).save(folder / SHEET)
    with_edges = [(energy, right) for _, energy, right in values if energy is not None and right is not None]
    energy, right = np.median(with_edges, axis=0).tolist() if with_edges else (1.0, 1.0)
    check = _judged(
        config,
        num_images=len(chosen),
        psnr_db=float(np.mean([psnr for psnr, _, _ in values])),
        neighbour_db=float(np.mean(neighbours)) if neighbours else None,
        energy=energy,
        right=right,
    )
    write_json(folder / NUMBERS, asdict(check))
    return check


def as_seen(prior: "Prior", samples: Sequence[Sample]) -> dict[str, Image.Image]:
    """Each image as the prior is given it, without the frame's padding; by digest."""
    from genaug.generators.sdedit.sampler import lay_out_sources, source_tensor, to_pictures

    layouts = lay_out_sources(_edits(False), [_variant(sample, 0.0) for sample in samples], prior)
    found = {}
    for sample in samples:
        layout = layouts[sample.digest]
        picture = to_pictures(source_tensor(sample, layout, "squash")[None])[0]
        cropped = picture if layout.geometry is None else Image.fromarray(layout.geometry.crop(np.asarray(picture)))
        found[sample.digest] = cropped
    return found


def through_autoencoder(prior: "Prior", samples: Sequence[Sample]) -> dict[str, Image.Image]:
    """Each image as it comes back from the prior's autoencoder, by digest."""
    from genaug.generators.sdedit.sampler import reconstruct

    variants = [_variant(sample, 0.0) for sample in samples]
    return {g.variant.source.digest: g.image for g in reconstruct(prior, variants, NUM_RECONSTRUCTED)}


def stored_check(
    store: Store,
    config: PriorConfig,
    source: Any,
    dataset: Dataset,
    load: "Callable[[], Prior | None]",
    class_names: bool,
) -> tuple[PriorCheck, Path]:
    """The check of a prior on a data set, made once per store, and its picture.

    Args:
        source: identity of the data set, whichever images a trial draws from it.
        dataset: the first trial's draw is looked at.

    Raises:
        GenaugError: if the prior cannot be loaded or fails at it.
    """

    def make(work: Path) -> dict[str, Any]:
        prior = load()
        assert prior is not None
        return asdict(check_prior(prior, config, dataset, work, class_names))

    key = fingerprint("prior_check", VERSION, config.identity(), source, class_names)
    with boundary("Whether the prior can draw such images was not checked"):
        folder, _ = store.folder("checks", "prior", key, make)
        found = read_json(folder / NUMBERS, {"sentence": str})
        if found is None:
            raise GenaugError(f"{folder / NUMBERS} is damaged: remove {folder}.")
    return PriorCheck(**found), folder / SHEET


def source_identity(source: Any) -> Any:
    """A data set's identity without the few-shot draw."""
    fields = canonical(source)
    return {key: value for key, value in fields.items() if key not in ("shots", "fraction", "seed")}


def _choose(dataset: Dataset) -> tuple[list[Sample], list[Sample]]:
    """Images to look at, spread over at most 8 classes, and those among which neighbours are looked for."""
    groups = [group for group in dataset.train_by_class() if group]
    groups = [
        groups[i] for i in dict.fromkeys(np.linspace(0, len(groups) - 1, NUM_CLASSES).round().astype(int).tolist())
    ]
    spread = [group[i] for i in range(NUM_NEIGHBOURS) for group in groups if i < len(group)][:NUM_NEIGHBOURS]
    distinct = list({sample.digest: sample for sample in spread}.values())
    return distinct[:NUM_RECONSTRUCTED], distinct


def _edits(class_names: bool) -> Any:
    from genaug.generators.sdedit.real_guidance import RealGuidance

    return RealGuidance(
        name="prior_check",
        seed=0,
        class_names=class_names,
        num_steps=NUM_STEPS,
        guidance=GUIDANCE,
        batch_size=NUM_EDITED,
    )


def _variant(sample: Sample, level: float) -> Any:
    from genaug.generators.base import Variant

    return Variant(
        source=sample, index=0, draws={"t0": level}, fingerprint=fingerprint("prior_check", sample.digest, level)
    )


def _edited(
    prior: "Prior", config: Any, samples: Sequence[Sample], dataset: Dataset
) -> dict[tuple[str, float], Image.Image]:
    """SDEdit of each sample at each level, by digest and level."""
    from genaug.generators.sdedit.sampler import edit_images

    variants = [_variant(sample, level) for sample in samples for level in LEVELS]
    names = [dataset.class_names[variant.source.class_index] for variant in variants]
    prompts, _ = config.prompts(names, prior, None)
    pictures = edit_images(prior, variants, prompts, config)
    return {(g.variant.source.digest, g.variant.draws["t0"]): g.image for g in pictures}


def _values(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64) / 255


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square(a - b).mean(), 1e-10)))


def _energy(values: np.ndarray) -> float:
    """Mean square of the differences between neighbouring pixels of the grey image."""
    grey = values.mean(axis=2)
    return float(sum(np.square(np.diff(grey, axis=axis)).mean() for axis in (0, 1)))


def compare(original: Image.Image, made: Image.Image) -> tuple[float, float | None, float | None]:
    """PSNR, and the shares of the gradients' energy that are kept and right; None for an image without any."""
    a, b = _values(original), _values(made)
    whole = _energy(a)
    if whole < 1e-6:
        return _psnr(a, b), None, None
    return _psnr(a, b), _energy(b) / whole, 1 - _energy(a - b) / whole


def _nearest_db(sample: Sample, others: Sequence[Sample], originals: dict[str, Image.Image]) -> float | None:
    picture = originals[sample.digest]
    found = [
        _psnr(_values(picture), _values(originals[other.digest].resize(picture.size)))
        for other in others
        if other.digest != sample.digest and other.class_index == sample.class_index
    ]
    return max(found, default=None)


def _judged(config: PriorConfig, **numbers: Any) -> PriorCheck:
    """With the judgement and its sentence."""
    energy, right, size = numbers["energy"], numbers["right"], config.image_size
    can_draw = right >= LEAST_RIGHT or (energy >= LEAST_ENERGY and right > 0)
    name, count, near = config.name or config.path, numbers["num_images"], numbers["neighbour_db"]
    beside = "" if near is None else f" (the nearest other image of the class: {near:.1f} dB)"
    come = "image at {} px comes" if count == 1 else "images at {} px come"
    shown = f"{count} {come.format(size)} back from its autoencoder at {numbers['psnr_db']:.1f} dB{beside}"
    if can_draw:
        sentence = (
            f"prior={name} can draw such images: {shown}, with {energy:.0%} of their detail (the energy of their gradients), "
            f"and with {max(right, 0):.0%} of it right."
        )
    else:
        sentence = (
            f"prior={name} cannot draw such images: {shown}, but with {energy:.0%} of their detail (the energy of their "
            f"gradients; {LEAST_ENERGY:.0%} would do), and with {max(right, 0):.0%} of it right ({LEAST_RIGHT:.0%} would do). "
            "Whatever a method makes with it has lost what these images show, so results would say nothing about the method, "
            "only about this prior. " + advice(config)
        )
    return PriorCheck(prior=name, image_size=size, can_draw=can_draw, sentence=sentence, **numbers)


def advice(config: PriorConfig) -> str:
    """Which prior to write instead, and what that takes."""
    if config.path != TINY:
        return (
            "Write a larger prior.image_size, or a prior that was trained on such images: prior.path=FOLDER or "
            "prior.path=OWNER/MODEL."
        )
    tflop = (2 * 25 * unet_gflop(512, False) + vae_gflop(512, False)) / 1000
    return (
        "Write prior=sd15 instead (Stable Diffusion 1.5): a download of 4 GB, 5 GB of GPU memory, and about "
        f"{tflop / (GPUS['h100'] * USE):.1f} s for an image at t0=0.5 of 50 steps on an H100, "
        f"{tflop / (GPUS['3090'] * USE):.1f} s on a 3090, minutes on a CPU."
    )


def _sheet(
    chosen: Sequence[Sample],
    originals: dict[str, Image.Image],
    made: dict[str, Image.Image],
    edited: dict[tuple[str, float], Image.Image],
) -> Image.Image:
    """One row per image: itself, its reconstruction and, of the first ones, its edits."""
    heads = ["image", "through VAE", *(f"t0 {level:g}" for level in LEVELS)]
    top = 14
    sheet = Image.new("RGB", (len(heads) * (CELL + GAP), top + len(chosen) * (CELL + GAP)), "white")
    pen = pen_on(sheet)
    for column, head in enumerate(heads):
        pen.text((column * (CELL + GAP), 1), head, fill="black")
    for row, sample in enumerate(chosen):
        pictures = [originals[sample.digest], made[sample.digest]]
        pictures += [edited[sample.digest, level] for level in LEVELS if (sample.digest, level) in edited]
        for column, picture in enumerate(pictures):
            scale = CELL / max(picture.size)
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
            sheet.paste(picture.resize(size, kind), (column * (CELL + GAP), top + row * (CELL + GAP)))
    return sheet
