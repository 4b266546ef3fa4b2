"""What Real Guidance and DA-Fusion share: each variant is its source, noised to a level t0 and denoised (SDEdit)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core import seeding
from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError, lacks
from genaug.core.fields import bounded, choice, count
from genaug.core.identity import DRAWN, NOT_IDENTITY, OPTIONAL
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import TRAIN_STEPS, Generated, Generator, Variant, check_first_step, steps_taken
from genaug.generators.collage.config import Collage
from genaug.generators.labelling.config import Labelled
from genaug.generators.sdedit.edit_region import EDIT_MASKS

if TYPE_CHECKING:
    from torch import Tensor

    from genaug.priors.model import LearnedTokens, Prior

SCHEDULERS = ("ddim", "dpmsolver++", "unipc", "ddim_trailing", "lcm", "pndm_ref")
MOST_STEPS = {"lcm": 50, "dpmsolver++": 998, "unipc": 998}
"""Steps beyond which a scheduler has no timesteps for all of them."""
RESIZES = ("squash", "crop", "tile")


@dataclass(kw_only=True, slots=True)
class EditsSource(Labelled):
    """Base of the generators whose images are edits of their source: what may change, and what is saved."""

    mask: str = choice("none", EDIT_MASKS)
    """What may change: ``none`` (all of the image); ``keep_object`` keeps the object and edits its surround; ``edit_object``
    the reverse. The object is the data set's mask, its boxes, or both."""
    mask_dilation: int = count(16, 0, 4096)
    """Side of the maximum filter that grows the object, in pixels at the prior's image size (the released code: 16 of 512)."""
    save_size: Any = None
    """Longer side of the saved images in pixels; ``source``: the source's own size, so that pixels which are put back are as
    sharp as there; null keeps the size at which images are made."""

    collage: Collage | None = field(default=None, metadata=OPTIONAL)
    """What each edit is put together with: half of its source and a fractal (DiffuseMix, ``+generator/collage=diffuse_mix``);
    null leaves it as it is."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __post_init__(self) -> None:
        size = self.save_size
        if size not in (None, "source") and (
            isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 16384
        ):
            raise GenaugError(
                f"generator.save_size={size} must be a number of pixels from 1 to 16384, source, or null."
            )

    @property
    def fits(self) -> bool:  # type: ignore[override]
        """Whether a detector is learned for the audit."""
        return self.audits

    def check(self, task: str) -> None:
        Generator.check(self, task)
        if task == "detection" and self.collage is not None:
            raise GenaugError(
                f"generator.collage of generator={self.name} puts two pictures together, in which boxes do not hold: write "
                "generator.collage=null on detection data."
            )
        if task == "detection" and self.mask != "keep_object":
            redrawn = "the whole image" if self.mask == "none" else "the objects"
            self.check_audit(
                f"generator={self.name} with generator.mask={self.mask} redraws {redrawn}: objects move or change and their "
                "boxes no longer fit",
                "generator.mask=keep_object, which edits the surround alone, or generator.label_policy=copy to train on such "
                "boxes nevertheless",
            )

    def check_dataset(self, dataset: Dataset) -> None:
        Labelled.check_dataset(self, dataset)
        if self.mask != "none" and not any(s.mask is not None or s.boxes is not None for s in dataset.train):
            raise GenaugError(
                f"generator.mask={self.mask} needs to know where the object is, but {dataset.name} has neither object masks "
                "nor boxes. Write generator.mask=none, or a data set with masks (dataset=voc_classification or "
                "coco_classification with dataset.masks=true, or a detection set)."
            )

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        return self.learn_auditor(dataset, folder, device)

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        return self.auditor.forward_passes() if self.audits and dataset.task == "detection" else None


@dataclass(kw_only=True, slots=True)
class ImageToImage(EditsSource):
    """Base of the generators that edit their source. ``prompts``, and what is learned, are the subclass's."""

    t0: Any = bounded(0.5, 0, 1, above=True, metadata=DRAWN)
    """Level in (0, 1] to which the source is noised; 1 keeps least of it. A number, or a list of levels of which one is
    drawn uniformly per image (repeat a level to make it likelier). Null takes ``t0_by_shots``."""
    t0_by_shots: dict[int, float] | None = bounded(None, 0, 1, above=True, metadata=DRAWN)
    """Level by number of training images per class, where ``t0`` is null; the nearest listed number counts."""
    num_steps: int = count(50, 1, 1000)
    """Steps of the whole schedule; a variant takes ``int(num_steps * t0)`` of them."""
    guidance: float = bounded(7.5, 0, 100)
    """w of classifier-free guidance; 1 turns it off and halves the cost."""
    scheduler: str = choice("ddim", SCHEDULERS)
    """``ddim``, ``dpmsolver++``, ``unipc``; for distilled models of few steps ``ddim_trailing`` (SD-Turbo) and ``lcm``
    (LCM-LoRA), both with guidance near 1; or ``pndm_ref``: PNDM as the released code runs it, off by one included."""
    negative_prompt: str = ""
    """What guidance moves away from."""
    resize: str = choice("squash", RESIZES)
    """``squash`` to a square, as the released code does; ``crop`` the centre square; or ``tile``: a mosaic of a small source,
    unscaled, of which the centre is kept (DA-Fusion's branch spurge_mosaic: crops of 39 px under a prior of 512). Images with
    boxes keep their aspect ratio instead, in the frame nearest to it."""
    batch_size: int = count(16, metadata=NOT_IDENTITY)
    """Images denoised at once."""
    cache_interval: int | None = count(None, 2, 1000, metadata=OPTIONAL)
    """Deep features of the U-Net are computed at the first of every so many steps and used again at the others (DeepCache,
    arXiv 2312.00858). 2 saves nearly half of the work and moves an image by 0.01 to 0.06 of what another draw would; 3
    saves six tenths and moves it by up to 0.12 where guidance is strong. Null computes them at every step."""

    uses_erasures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        EditsSource.__post_init__(self)
        if self.num_steps > (most := MOST_STEPS.get(self.scheduler, TRAIN_STEPS)):
            raise GenaugError(
                f"generator.scheduler={self.scheduler} has no timesteps for generator.num_steps={self.num_steps}: write "
                f"{most} or fewer."
            )
        if not self.levels:
            raise GenaugError(
                f"generator.t0={self.t0} holds no level: write a number such as 0.5 or a list such as [0.25,0.5,0.75,1]."
            )
        for level in self.levels:
            if self.scheduler in ("ddim", "pndm_ref"):
                check_first_step("num_steps", self.num_steps, level)
            if steps_taken(self.num_steps, level) < 1:
                raise GenaugError(
                    f"generator.t0={level} with generator.num_steps={self.num_steps} takes no denoising step: "
                    f"raise num_steps to at least {math.ceil(1 / level - 1e-9)}, or t0 to at least {1 / self.num_steps:g}."
                )

    @property
    def levels(self) -> list[Any]:
        """Every level that an image may get."""
        if self.t0 is None:
            return list((self.t0_by_shots or {}).values())
        return list(self.t0) if isinstance(self.t0, list | tuple) else [self.t0]

    def check(self, task: str) -> None:
        EditsSource.check(self, task)
        if task == "detection" and self.resize != "squash":
            raise GenaugError(
                f"generator.resize={self.resize} would cut off boxes. Write generator.resize=squash on detection data, whose "
                "images keep their aspect ratio."
            )

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's own t0, and its sentence where there are some."""
        return {"t0": self.level(source, index, dataset), **self.drawn_prompt(source, index, dataset)}

    def level(self, source: Sample, index: int, dataset: Dataset) -> float:
        """The t0 that is drawn for variant ``index`` of ``source``."""
        if self.t0 is None:
            assert self.t0_by_shots is not None
            shots = len(dataset.train) / len(dataset.class_names)
            nearest = min(sorted(self.t0_by_shots), key=lambda listed: abs(listed - shots))
            return float(self.t0_by_shots[nearest])
        return float(self.levels[seeding.choice(len(self.levels), self.seed, source.digest, index, "t0")])

    def prompted_class(self, variant: Variant, dataset: Dataset) -> int:
        """The class that the prompt of an image speaks of: its source's."""
        return variant.source.class_index

    def prompts(
        self, names: Sequence[str], prior: "Prior", fitted: Path | None, draws: Sequence[Mapping[str, Any]] = ()
    ) -> "tuple[list[str], LearnedTokens | None]":
        """The prompt of each image, and the learned tokens that the prompts name.

        Args:
            names: class name of each image, as the data set spells it.
            draws: those of each image; a ``prompt`` there is filled in instead of the configured one.
            prior: the diffusion model.
            fitted: the folder that ``fit`` wrote.
        """
        raise lacks(self, "prompts")

    def adapted(self, prior: "Prior", fitted: Path | None) -> AbstractContextManager[None]:
        """The prior with what ``fit`` learned of its weights in place, and as it was afterwards: here nothing."""
        return nullcontext()

    def refined(self, prior: "Prior", z: "Tensor", variants: Sequence[Variant], class_names: Sequence[str]) -> "Tensor":
        """What becomes of the clean latents [b, 4, h, w] of edits before they are decoded: here nothing."""
        return z

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.sdedit.sampler import edited

        assert prior is not None
        yield from edited(self, variants, dataset, prior, fitted)

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """One per step, image and prompt; PNDM repeats one step. Steps with cached features count none."""
        num_prompts = 1 if self.guidance == 1 else 2
        extra = 1 if self.scheduler == "pndm_ref" else 0
        steps = [steps_taken(self.num_steps, v.draws["t0"]) + extra for v in variants]
        count = num_prompts * sum(math.ceil(taken / (self.cache_interval or 1)) for taken in steps)
        return ForwardPasses(network="U-Net", count=count)
