"""PSLD augmentation ("Data Augmentation as an Inverse Problem", H. Prairie): mask an image around its boxes, sample the
masked part with a latent diffusion model as the prior, keep the labels.

The equations are in ``psld_solver.py``, the masks in ``masks.py``, what keeps its label in ``label_policy.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError, check_choice
from genaug.core.identity import FIT, NOT_IDENTITY
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.downstream.detection.config import Detector
from genaug.generators.base import Generated, Generator, Variant
from genaug.generators.psld.masks import BOX_AWARE, BOX_FREE, MASK_TYPES, MIN_EDITABLE, SPECKLED

if TYPE_CHECKING:
    from genaug.generators.psld.solver import Row, Rule
    from genaug.priors.model import Prior

CHOICES = {
    "mask": MASK_TYPES,
    "without_boxes": ("reject", *BOX_FREE),
    "mode": ("gradient", "projection"),
    "operator": ("inpainting", "super_resolution", "gaussian_blur", "motion_blur"),
    "renoise": ("ddim", "ddpm", "full"),
    "project_mix": ("one", "alpha_prev"),
    "encode_mode": ("mean", "sample"),
    "init": ("noise", "warm"),
    "init_fill": ("mean", "nearest"),
    "resize": ("bucket", "letterbox", "square"),
    "color": ("keep", "grey"),
    "paste_back": ("none", "hard", "feathered"),
    "paste_region": ("boxes", "known"),
    "label_policy": ("guarded", "copy"),
    "on_unconfirmed": ("restore", "ignore", "reject"),
    "on_hallucination": ("restore", "reject", "keep"),
    "audit": ("none", "detector"),
}


def _teacher() -> Detector:
    return Detector(name="teacher")


@component("generator", "psld")
@dataclass(kw_only=True, slots=True)
class Psld(Generator):
    """Posterior sampling of the masked part of each training image; works for boxes and for class labels."""

    mask: str = "random_outpainting"
    """What is regenerated. Around boxes: ``outpainting``, ``random_outpainting``, ``random_entirepainting``,
    ``random_erasing_ore``, ``keep_object``. Anywhere: ``box``, ``center_box``, ``random``, ``extreme``, ``free_form``."""
    without_boxes: str = "reject"
    """What becomes of images without boxes under a mask around boxes: ``reject`` (counted as no_boxes) or a mask."""
    margin: int = 16
    """Pixels by which boxes are grown, in the frame (the release: 16 at 384 px; small objects: 8)."""
    mu: float = 0.0
    """Mean of the distance masks' threshold, as a share of the largest distance."""
    sigma: float = 0.32
    """Its standard deviation."""
    erase_range: list[float] = field(default_factory=lambda: [0.2, 0.8])
    """Bounds of the four uniforms of ``random_erasing_ore``."""
    hole_share: float = 0.5
    """Share of each side that ``box``, ``center_box`` and ``extreme`` take, in (0, 1)."""
    random_range: list[float] = field(default_factory=lambda: [0.3, 0.7])
    """Bounds of the share of unknown pixels of ``random``."""
    mask_per_copy: bool = True
    """A mask of its own for each variant; false gives all variants of a source one mask, as the release does."""
    reference_edge: bool = False
    """Keep the last row and column out of the boxes, as the release does."""
    min_editable: float = MIN_EDITABLE
    """Share of the image that must be regenerated; less is rejected as no_editable_area."""

    mode: str = "gradient"
    """``gradient`` (PSLD) or ``projection`` (the known pixels are put in and encoded again; no gradient)."""
    num_steps: int = 200
    """S, a divisor of the prior's 1000 timesteps, or 999; 1000 with ``reference_shift``."""
    reference_shift: bool = False
    """The release's off-by-one schedule of 1000 steps."""
    omega: float = 1.0
    """Weight of the measurement term."""
    gamma: float = 0.2
    """Weight of the gluing term."""
    eta: float = 0.0
    """DDIM's noise, 0 to 1."""
    guidance: float = 1.0
    """Classifier-free guidance. Under an empty prompt it changes nothing but the cost."""
    prompt: str = ""
    """Prompt of every image."""
    operator: str = "inpainting"
    """A: ``inpainting``, or, with the whole image as the unknown, ``super_resolution``, ``gaussian_blur``, ``motion_blur``."""
    factor: int = 4
    """Reduction of ``super_resolution``."""
    blur_sigma: float = 3.0
    """Of ``gaussian_blur``, pixels."""
    blur_length: int = 9
    """Of ``motion_blur``, pixels."""
    blur_angle: float = 0.0
    """Of ``motion_blur``, degrees."""
    heuristic_gluing: bool = False
    """Take A^T = identity for the blurs, as the release does; it is no projection."""
    sigma_y: float = 0.0
    """Standard deviation of the noise on the measurement, in units of [-1, 1]."""
    noise_everywhere: bool = False
    """Noise on masked pixels too, as the release has it."""
    noise_prediction: bool = False
    """The same noise on A D(z0), anew at every step, as the release has it."""
    norm_over_batch: bool = False
    """One norm over ``joint_copies`` copies sampled together, as the release has it, instead of one per image."""
    joint_copies: int = 2
    """Copies under one norm; the others are drawn from the image's own identity and dropped."""
    norm_eps: float = 1e-8
    """delta of sqrt(||r||^2 + delta^2)."""
    norm_floor: float = 0.07
    """delta of the measurement term per square root of the number of known values; 0 is off."""
    step_clamp: float | None = 0.1
    """Largest step of the correction as a share of the norm of z; null is off."""
    encode_mode: str = "mean"
    """The encoder's posterior ``mean``, or a ``sample`` of it."""
    clip_xstar: bool = False
    """Clip the glued image to [-1, 1]."""
    guide_every: int = 1
    """Guide (or project) every k-th step; the last always."""
    guide_start: float = 0.0
    """Share of the steps before the first guided one."""
    guide_stop: float = 1.0
    """Share of the steps after which none is guided."""
    omit_unet_jacobian: bool = False
    """No gradient through the U-Net: cheaper, nearly the same direction, longer steps."""
    renoise: str = "ddim"
    """After a projection: ``ddim``, ``ddpm`` or ``full`` (for few-step priors)."""
    project_mix: str = "one"
    """``one``: the encoded projection; ``alpha_prev``: mixed with z0 (TReg)."""
    init: str = "noise"
    """Start from ``noise``, or ``warm``: from the filled source noised to ``init_t0``."""
    init_t0: int = 800
    """Timestep of the warm start; the lower, the less varied."""
    init_fill: str = "mean"
    """The warm start's hole: the ``mean`` colour of the known pixels, or the ``nearest`` known pixel."""

    resize: str = "bucket"
    """``bucket``: the frame nearest in aspect ratio; ``letterbox``: a square; ``square``: nearest-neighbour, aspect lost."""
    minmax_stretch: bool = False
    """Stretch each image's values to the full range, as the release does."""
    color: str = "keep"
    """``grey`` makes the images grey, as the release does."""
    paste_back: str = "hard"
    """Known pixels of the source are put back: ``none``, ``hard`` or ``feathered`` (solid masks only)."""
    paste_region: str = "boxes"
    """``boxes``: within the grown boxes; ``known``: all known pixels, speckle included."""

    label_policy: str = "guarded"
    """``guarded``: decided per box by its known share and the audit; ``copy``: all labels kept unchecked."""
    exact_fraction: float = 0.98
    """Known share of a box from which its label is exact; the whole box is then pasted back."""
    on_unconfirmed: str = "restore"
    """A box neither exact nor found by the audit: ``restore`` its pixels, ``ignore`` it (crowd region) or ``reject`` the image.
    """
    audit: str = "detector"
    """``detector``: one trained on the real training images looks for labelled and for invented objects; ``none``."""
    confirm_score: float = 0.3
    """Least score of a detection that confirms a label (IoU of at least 0.5, same class)."""
    hallucination_score: float = 0.5
    """Least score of a detection outside all labels (IoU below 0.3) that counts as an invented object."""
    on_hallucination: str = "restore"
    """Invented objects: ``restore`` the source's pixels there, ``reject`` the image, or ``keep``."""
    min_change: float = 10.0
    """Mean absolute change of the hole, of 255, below which an image is rejected as unchanged; lower it for smooth grounds."""
    teacher: Detector = field(default_factory=_teacher, metadata=FIT)
    """The audit's detector."""

    batch_size: int = field(default=16, metadata=NOT_IDENTITY)
    """Images sampled together; results do not depend on it."""
    checkpointing: bool = field(default=False, metadata=NOT_IDENTITY)
    """Recompute activations in the backward pass: less memory, about 30 % more time."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __post_init__(self) -> None:
        for key, options in CHOICES.items():
            check_choice(f"generator.{key}", getattr(self, key), options)
        for key in ("omega", "gamma", "sigma_y", "norm_floor", "norm_eps", "margin", "guidance", "min_change"):
            if getattr(self, key) < 0:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must not be negative.")
        for key in ("eta", "guide_start", "guide_stop", "min_editable", "exact_fraction", "confirm_score"):
            if not 0 <= getattr(self, key) <= 1:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must lie in [0, 1].")
        if not 0 < self.hole_share < 1:
            raise GenaugError(f"generator.hole_share={self.hole_share} must lie in (0, 1).")
        for key in ("erase_range", "random_range"):
            pair = list(getattr(self, key))
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] < 1:
                raise GenaugError(f"generator.{key}={pair} must be two numbers between 0 and 1, e.g. '[0.2,0.8]'.")
        for key in ("guide_every", "batch_size", "joint_copies", "num_steps"):
            if getattr(self, key) < 1:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must be at least 1.")
        self._check_pairs()

    def _check_pairs(self) -> None:
        wrong = {
            "generator.omit_unet_jacobian=true has no gradient to shorten in generator.mode=projection": (
                self.mode == "projection" and self.omit_unet_jacobian
            ),
            "generator.norm_over_batch=true has no norm to share in generator.mode=projection": (
                self.mode == "projection" and self.norm_over_batch
            ),
            "generator.renoise=full needs generator.mode=projection": self.mode == "gradient"
            and self.renoise != "ddim",
            f"generator.paste_back=feathered needs a solid mask, not generator.mask={self.mask}: write paste_back=hard": (
                self.paste_back == "feathered" and self.mask in SPECKLED
            ),
            f"generator.paste_back={self.paste_back} needs generator.operator=inpainting: write paste_back=none": (
                self.operator != "inpainting" and self.paste_back != "none"
            ),
            "the blurs have no stable pseudo-inverse: write generator.gamma=0 (and generator.mode=gradient), or "
            "generator.heuristic_gluing=true": (
                self.operator.endswith("blur")
                and not self.heuristic_gluing
                and (self.gamma > 0 or self.mode == "projection")
            ),
            "generator.omega=0 and generator.gamma=0 leave nothing that guides": (
                self.mode == "gradient" and self.omega == 0 and self.gamma == 0
            ),
        }
        for problem, holds in wrong.items():
            if holds:
                raise GenaugError(f"{problem}.")

    @property
    def fits(self) -> bool:  # type: ignore[override]
        """Whether a detector is learned for the audit."""
        return self.audit == "detector" and self.label_policy == "guarded"

    def check(self, task: str) -> None:
        Generator.check(self, task)
        if (
            task == "classification"
            and self.mask in BOX_AWARE
            and self.mask != "keep_object"
            and self.without_boxes == "reject"
        ):
            raise GenaugError(
                f"generator.mask={self.mask} goes around boxes, which {task} data lack. Write generator.mask=center_box, "
                "box, random, extreme or free_form, or name one of them in generator.without_boxes."
            )
        if task == "detection" and self.mask in BOX_FREE and self.label_policy == "copy":
            raise GenaugError(
                f"generator.mask={self.mask} may redraw labelled objects, and generator.label_policy=copy would not notice. "
                "Write generator.label_policy=guarded, or a mask around the boxes such as random_outpainting."
            )
        self.num_taken()

    def rows(self, alphas: Sequence[float]) -> "list[Row]":
        """The steps that are taken, in sampling order, from a prior's table of alpha_bar: with a warm start, the later ones.

        Raises:
            GenaugError: if ``num_steps`` does not fit the prior's timesteps, or ``init_t0`` leaves no step.
        """
        from genaug.generators.psld.solver import ladder

        trailing = self.mode == "projection" and self.renoise == "full"
        rows = ladder(alphas, self.num_steps, reference_shift=self.reference_shift, trailing=trailing)
        if self.init == "warm":
            rows = [row for row in rows if row.t <= self.init_t0]
        if not rows:
            raise GenaugError(
                f"generator.init_t0={self.init_t0} lies below the first timestep of {self.num_steps} steps: "
                "write a higher init_t0 or more num_steps."
            )
        return rows

    def num_taken(self, num_timesteps: int = 1000) -> int:
        """Number of steps that are taken of a prior's timesteps; raises as ``rows`` does."""
        return len(self.rows([1 - t / (num_timesteps + 1) for t in range(num_timesteps)]))  # any falling table

    def rule(self) -> "Rule":
        """The solver's part of this configuration."""
        from genaug.generators.psld.solver import Rule

        return Rule(
            mode=self.mode,
            omega=self.omega,
            gamma=self.gamma,
            eta=self.eta,
            encode_sample=self.encode_mode == "sample",
            norm_over_batch=self.norm_over_batch,
            norm_eps=self.norm_eps,
            norm_floor=self.norm_floor,
            step_clamp=self.step_clamp,
            prediction_noise=self.sigma_y if self.noise_prediction else 0.0,
            omit_unet_jacobian=self.omit_unet_jacobian,
            guide_every=self.guide_every,
            guide_start=self.guide_start,
            guide_stop=self.guide_stop,
            clip_xstar=self.clip_xstar,
            renoise=self.renoise,
            project_mix=self.project_mix,
        )

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        per_image = self.num_taken() * (2 if self.guidance != 1 else 1)
        count = len(variants) * per_image * (self.joint_copies if self.norm_over_batch else 1)
        return ForwardPasses(network="U-Net", count=count)

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        return self.teacher.forward_passes() if dataset.task == "detection" else None

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path) -> dict[str, Any]:
        if dataset.task != "detection":
            return {"teacher": None}
        from genaug.generators.psld.audit import train_teacher

        assert prior is not None
        return train_teacher(self.teacher, dataset, folder, prior.device.type)

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None
    ) -> Iterator[Generated]:
        from genaug.generators.psld.audit import inpaint

        assert prior is not None
        yield from inpaint(self, variants, dataset, prior, fitted)
