"""PSLD augmentation ("Data Augmentation as an Inverse Problem", H. Prairie): mask an image around its boxes, sample the
masked part with a latent diffusion model as the prior, keep the labels.

What is regenerated is ``generator.mask``, how many steps and from where ``generator.num_steps`` and ``generator.t0``; the
sections below hold the rest and are the very objects that masks, solver, labels and audit work with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, positive, probability
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component, section
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Generator, Variant
from genaug.generators.labelling.config import Labelled
from genaug.generators.labelling.pixel_boxes import MIN_EDITABLE
from genaug.generators.psld.ladder import Row, ladder
from genaug.generators.psld.masks import BOX_AWARE, BOX_FREE, MASK_TYPES, SPECKLED

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@section("generator.masking", "generator/psld/masking")
@dataclass(kw_only=True, slots=True)
class Masking:
    """How masks are drawn; which one is ``generator.mask``."""

    without_boxes: str = choice("reject", ("reject", *BOX_FREE))
    """What becomes of images without boxes under a mask around boxes: ``reject`` (counted as no_boxes) or a mask."""
    margin: int = count(16, 0, 4096)
    """Pixels by which boxes are grown, in the frame (the released code: 16 at 384 px; small objects: 8)."""
    mu: float = bounded(0.0, -10, 10)
    """Mean of the distance masks' threshold, as a share of the largest distance."""
    sigma: float = bounded(0.32, 0, 10)
    """Its standard deviation."""
    erase_range: list[float] = bounded([0.2, 0.8], 0, 1, above=True, below=True)
    """Bounds of the four uniform numbers of ``random_erasing_ore``."""
    hole_share: float = bounded(0.5, 0, 1, above=True, below=True)
    """Share of each side that ``box``, ``center_box`` and ``extreme`` take."""
    random_range: list[float] = bounded([0.3, 0.7], 0, 1, above=True, below=True)
    """Bounds of the share of unknown pixels of ``random``."""
    per_copy: bool = True
    """A mask of its own for each variant; false gives all variants of a source one mask, as the released code does."""
    reference_edge: bool = False
    """Keep the last row and column out of the boxes, as the released code does."""
    min_editable: float = probability(MIN_EDITABLE)
    """Share of the image that must be regenerated; less is rejected as no_editable_area."""

    def __post_init__(self) -> None:
        for key in ("erase_range", "random_range"):
            pair = list(getattr(self, key))
            if len(pair) != 2 or pair[0] > pair[1]:
                raise GenaugError(
                    f"generator.masking.{key}={pair} must be a lower and an upper bound, e.g. '[0.2,0.8]'."
                )


@section("generator.frame", "generator/psld/frame")
@dataclass(kw_only=True, slots=True)
class Framing:
    """How a source becomes the picture that is inpainted."""

    resize: str = choice("bucket", ("bucket", "letterbox", "square"))
    """``bucket``: the frame nearest in aspect ratio; ``letterbox``: a square; ``square``: nearest-neighbour, aspect lost."""
    minmax_stretch: bool = False
    """Stretch each image's values to the full range, as the released code does."""
    color: str = choice("keep", ("keep", "grey"))
    """``grey`` makes the images grey, as the released code does."""


@section("generator.measurement", "generator/psld/measurement")
@dataclass(kw_only=True, slots=True)
class Measurement:
    """y = A x + noise: what of the source is given to the solver."""

    operator: str = choice("inpainting", ("inpainting", "super_resolution", "gaussian_blur", "motion_blur"))
    """A: ``inpainting``, or, with the whole image as the unknown, ``super_resolution``, ``gaussian_blur``, ``motion_blur``."""
    factor: int = count(4, 2, 64)
    """Reduction of ``super_resolution``."""
    blur_sigma: float = bounded(3.0, 0, 100, above=True)
    """Of ``gaussian_blur``, pixels."""
    blur_length: int = count(9, 1, 255)
    """Of ``motion_blur``, pixels."""
    blur_angle: float = bounded(0.0, -360, 360)
    """Of ``motion_blur``, degrees."""
    heuristic_gluing: bool = False
    """The released code's A^T in the gluing term: the identity for the blurs, nearest-neighbour enlargement for
    super-resolution; neither is a projection."""
    sigma_y: float = bounded(0.0, 0, 2)
    """Standard deviation of the noise on the measurement, in units of [-1, 1]."""
    noise_everywhere: bool = False
    """Noise on masked pixels too, which the gluing term then puts into the hole, as the released code has it."""


@section("generator.solver", "generator/psld/solver")
@dataclass(kw_only=True, slots=True)
class Solver:
    """How the measurement enters each step. Defaults are the corrected method's, not the released code's."""

    mode: str = choice("gradient", ("gradient", "projection"))
    """``gradient`` (PSLD) or ``projection`` (the known pixels are put in and encoded again; no gradient)."""
    omega: float = bounded(1.0, 0, 1e6)
    """Weight of the measurement term."""
    gamma: float = bounded(0.2, 0, 1e6)
    """Weight of the gluing term."""
    eta: float = probability(0.0)
    """DDIM's noise, 0 to 1."""
    reference_shift: bool = False
    """The released code's schedule of 1000 steps, off by one."""
    fill: str = choice("mean", ("mean", "nearest"))
    """The hole of the source from which a start at ``t0`` below 1 begins: the ``mean`` colour of the known pixels, or the
    ``nearest`` known pixel."""
    encode: str = choice("mean", ("mean", "sample"))
    """The gluing term's encoder posterior: its ``mean``, or a ``sample`` of it."""
    prediction_noise: float = bounded(0.0, 0, 2)
    """Standard deviation of fresh noise on A D(z0) at every step; the released code: 0.05."""
    norm_over_batch: bool = False
    """One norm over ``joint_copies`` copies sampled together, as the released code has it, instead of one per image."""
    joint_copies: int = count(2, 1, 64)
    """Copies under one norm; the others are drawn from the image's own identity and dropped."""
    norm_eps: float = bounded(1e-8, 0, 1)
    """delta of sqrt(||r||^2 + delta^2): a norm of 0 has no gradient."""
    norm_floor: float = bounded(0.07, 0, 10)
    """delta of the measurement term per square root of the number of known values; 0 is off. 0.07 damps near convergence as
    the released code's noise of 0.05 does."""
    step_clamp: float | None = positive(0.1)
    """Largest step of the correction as a share of the norm of z; null is off."""
    clip_xstar: bool = False
    """Clip the glued image to [-1, 1]."""
    guide_every: int = count(1, 1, 1000)
    """Guide (or project) every k-th step; the last always."""
    guide_start: float = probability(0.0)
    """Share of the steps before the first guided one."""
    guide_stop: float = probability(1.0)
    """Share of the steps after which none is guided."""
    omit_unet_jacobian: bool = False
    """No gradient through the U-Net: cheaper, nearly the same direction, longer steps."""
    renoise: str = choice("ddim", ("ddim", "ddpm", "full"))
    """After a projection: ``ddim``, ``ddpm`` (eta = 1) or ``full`` (fresh noise, for few-step priors)."""
    project_mix: str = choice("one", ("one", "alpha_prev"))
    """``one``: z0 <- E(x*); ``alpha_prev``: mixed with z0 by a_prev (TReg)."""

    def __post_init__(self) -> None:
        projects = self.mode == "projection"
        wrong = {
            "generator.solver.omit_unet_jacobian=true has no gradient to shorten in generator.solver.mode=projection": (
                projects and self.omit_unet_jacobian
            ),
            "generator.solver.norm_over_batch=true has no norm to share in generator.solver.mode=projection": (
                projects and self.norm_over_batch
            ),
            f"generator.solver.renoise={self.renoise} needs generator.solver.mode=projection": (
                not projects and self.renoise != "ddim"
            ),
            "generator.solver.omega=0 and generator.solver.gamma=0 leave nothing that guides": (
                not projects and self.omega == 0 and self.gamma == 0
            ),
        }
        for problem, holds in wrong.items():
            if holds:
                raise GenaugError(f"{problem}.")


@component("generator", "psld")
@dataclass(kw_only=True, slots=True)
class Psld(Labelled):
    """Posterior sampling of the masked part of each training image; works for boxes and for class labels."""

    mask: str = choice("random_outpainting", MASK_TYPES)
    """What is regenerated. Around boxes: ``outpainting``, ``random_outpainting``, ``random_entirepainting``,
    ``random_erasing_ore``, ``keep_object``. Anywhere: ``box``, ``center_box``, ``random``, ``extreme``, ``free_form``."""
    num_steps: int = count(200, 1, 1000)
    """S, a divisor of the prior's 1000 timesteps, or 999; 1000 with ``solver.reference_shift``."""
    t0: float = bounded(1.0, 0, 1, above=True)
    """Where sampling begins: 1 at pure noise; below, at the source with its hole filled, noised to this share of the schedule,
    of which ``floor(S t0)`` steps are taken. The lower, the cheaper and the less varied."""
    guidance: float = bounded(1.0, 0, 100)
    """Classifier-free guidance. Under an empty prompt it changes nothing but the cost."""
    prompt: str = ""
    """Prompt of every image."""
    masking: Masking = field(default_factory=Masking)
    """How masks are drawn."""
    frame: Framing = field(default_factory=Framing)
    """How a source becomes the picture that is inpainted."""
    measurement: Measurement = field(default_factory=Measurement)
    """What of the source is given."""
    solver: Solver = field(default_factory=Solver)
    """How the measurement enters each step."""
    batch_size: int = count(16, metadata=NOT_IDENTITY)
    """Images sampled together; results do not depend on it."""
    checkpointing: bool = field(default=False, metadata=NOT_IDENTITY)
    """Recompute activations in the backward pass: less memory, about 30 % more time."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")
    fills: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        paste_back, operator = self.labels.paste_back, self.measurement.operator
        if paste_back == "feathered" and self.mask in SPECKLED:
            raise GenaugError(
                f"generator.labels.paste_back=feathered needs a solid mask, not generator.mask={self.mask}: "
                "write generator.labels.paste_back=hard."
            )
        if operator != "inpainting" and paste_back != "none":
            raise GenaugError(
                f"generator.labels.paste_back={paste_back} needs generator.measurement.operator=inpainting: "
                "write generator.labels.paste_back=none."
            )
        glues = self.solver.gamma > 0 or self.solver.mode == "projection"
        if operator.endswith("blur") and glues and not self.measurement.heuristic_gluing:
            raise GenaugError(
                "The blurs have no stable pseudo-inverse: write generator.solver.gamma=0 (and generator.solver.mode=gradient), "
                "or generator.measurement.heuristic_gluing=true."
            )

    @property
    def fits(self) -> bool:  # type: ignore[override]
        """Whether a detector is learned for the audit."""
        return self.audits

    def check(self, task: str) -> None:
        Generator.check(self, task)
        around_boxes = self.mask in BOX_AWARE and self.mask != "keep_object"
        if task == "classification" and around_boxes and self.masking.without_boxes == "reject":
            raise GenaugError(
                f"generator.mask={self.mask} goes around boxes, which {task} data lack. Write generator.mask=center_box, "
                "box, random, extreme or free_form, or name one of them in generator.masking.without_boxes."
            )
        if task == "detection" and self.mask in BOX_FREE and self.label_policy == "copy":
            raise GenaugError(
                f"generator.mask={self.mask} may redraw labelled objects, and generator.label_policy=copy would not notice. "
                "Write generator.label_policy=guarded, or a mask around the boxes such as random_outpainting."
            )
        if task == "detection":
            self.check_audit("Masks leave parts of boxes to be redrawn", "generator.audit.by=none")
        self.num_taken()

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's sentence, where there are some."""
        return self.drawn_prompt(source, index, dataset)

    def rows(self, alphas: Sequence[float]) -> list[Row]:
        """The steps that are taken, in sampling order, from a prior's table of alpha_bar; raises as ``ladder`` does."""
        trailing = self.solver.mode == "projection" and self.solver.renoise == "full"
        shift = self.solver.reference_shift
        return ladder(alphas, self.num_steps, t0=self.t0, reference_shift=shift, trailing=trailing)

    def num_taken(self) -> int:
        """Number of steps that are taken of a prior's 1000 timesteps; raises as ``rows`` does."""
        return len(self.rows([1.0] * 1000))

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        per_image = self.num_taken() * (2 if self.guidance != 1 else 1)
        images = len(variants) * (self.solver.joint_copies if self.solver.norm_over_batch else 1)
        return ForwardPasses(network="U-Net", count=images * per_image)

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        return self.auditor.forward_passes() if dataset.task == "detection" else None

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        return self.learn_auditor(dataset, folder, device)

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.psld.inpaint import inpaint

        assert prior is not None
        yield from inpaint(self, variants, dataset, prior, fitted)
