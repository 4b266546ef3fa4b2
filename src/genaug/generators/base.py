"""What every generator offers: ``fit`` once per training set, ``draw`` per image, ``generate`` for the images still missing.

A generator is a dataclass: its fields are its configuration. A file that declares one imports torch inside its methods,
so that composing a configuration stays fast.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from genaug.core import fields
from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError, lacks
from genaug.core.identity import NOT_IDENTITY, CanonicalText, canonical, canonical_text, fingerprint, fingerprints_of
from genaug.data.sample import Boxes, Dataset, Sample

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from genaug.data.detections import Detections
    from genaug.priors.model import Prior

TRAIN_STEPS = 1000
"""Timesteps of Stable Diffusion's noise schedule."""
MOST_KNOWN = 1024  # draws whose texts are kept while images are listed


@dataclass(kw_only=True, slots=True, eq=False)  # frozen, each of a million would take twice as long to make
class Variant:
    """One wanted synthetic image: the ``index``-th variant of ``source``."""

    source: Sample
    index: int
    """j = 0 … M-1; variant j never depends on M."""
    draws: dict[str, Any]
    """Values drawn for this image alone, e.g. ``{"t0": 0.5}``."""
    fingerprint: str
    """Identity of the image. Every random number of its making is ``derive(fingerprint, purpose)``."""


@dataclass(kw_only=True, frozen=True, slots=True, eq=False)
class Generated:
    """One finished image, in any order."""

    variant: Variant
    image: "Image"
    label: dict[int, float] | None = None
    """Class weights; None keeps the source's label."""
    boxes: Boxes | None = None
    """Boxes in pixels of the synthetic image; None keeps the source's."""
    about: dict[str, Any] = field(default_factory=dict)
    """Further manifest columns: prompt, scores, known fractions …"""
    rejected: str | None = None
    """Why the image must not be trained on; None accepts it. Rejected images are kept and counted, never made again."""


class Auditor(Protocol):
    """A detector that learns from real images and then looks at synthetic ones; a downstream model that detects is one."""

    def learn(self, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
        """Train on ``dataset.train`` alone and write the weights into ``folder``; returns facts for the record."""
        ...

    def eye(
        self, num_classes: int, folder: Path, device: "torch.device | str"
    ) -> "Callable[[str, np.ndarray], Detections]":
        """What was learned, as a function from an image's name and uint8 pixels [h, w, 3] to its detections."""
        ...

    def forward_passes(self) -> ForwardPasses:
        """Those of ``learn``."""
        ...


@dataclass(kw_only=True, slots=True)
class Generator:
    """Base of all generators."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in folders and tables; a preset's own name."""
    seed: int = fields.seed()
    """Noise of the images. Follows the trial's seed; fix it to share one pool among trials."""

    identity_name: ClassVar[str]
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    uses_prior: ClassVar[bool] = True
    uses_erasures: ClassVar[bool] = False
    """Whether images are made, and tokens learned, with the U-Net from which their class is erased (``prior.erased``)."""
    fits: ClassVar[bool] = False
    """Whether ``fit`` learns something from the training images."""
    label_sum: ClassVar[float] = 1.0
    """Sum of the class weights of an image that has a label."""
    smallest: ClassVar[dict[str, Any]] = {}
    """What ``preset=debug`` sets of it, e.g. ``{"training": {"num_steps": 24}}``: the shortest fit that runs."""
    online: ClassVar[bool] = False
    """Whether it works inside training, by way of ``interpolate``, instead of publishing images."""

    @property
    def component_name(self) -> str:
        """Which generator this is, whatever preset configures it, e.g. ``da_fusion``."""
        return type(self).identity_name.rpartition("/")[2]

    def check(self, task: str) -> None:
        """Raise ``GenaugError`` if this generator cannot serve ``task``; called before any model is loaded."""
        if task not in self.tasks:
            raise GenaugError(f"generator={self.name} does not work on {task} data, only on {', '.join(self.tasks)}.")

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ``GenaugError`` if the training images lack what this generator needs; called before anything is learned."""

    def learns_from(self, dataset: Dataset) -> Sequence[Sample]:
        """The images that ``fit`` reads: the drawn training images, unless a generator needs no labels."""
        return dataset.train

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        """Learn from ``learns_from(dataset)`` alone and write what was learned into ``folder``.

        ``folder`` may hold what an interrupted attempt left there: resume from it.

        Args:
            device: where torch computes (``trainer.accelerator``); ``prior`` is there already.

        Returns:
            facts for the record: losses, number of steps, network evaluations.
        """
        raise lacks(self, "fit")

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """Values drawn for variant ``index`` of ``source`` from this generator's distributions (fields marked ``DRAWN``)."""
        return {}

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        """Make the images, on ``device`` as in ``fit``. Batched as the generator likes; each depends on its ``Variant``."""
        raise lacks(self, "generate")

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """Forward passes of the prior's U-Net that ``generate(variants)`` will make."""
        return ForwardPasses(network="U-Net", count=0)

    def interpolate(
        self, fitted: Path | None, dataset: Dataset, prior: "Prior | None", device: str
    ) -> Callable[..., Any] | None:
        """For an online generator: what training does to each minibatch before it is normalised; None for all others.

        Returns:
            a function of ``(images [b, 3, h, w] in [0, 1], class weights [b, classes], step)`` to the same pair, with as
            many rows as it likes. It must depend on nothing else, so that an interrupted training resumes exactly.
        """
        return None

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        """Forward passes that ``fit`` will make; None where nothing is learned."""
        return None

    def halve_batch(self) -> int | None:
        """Halve the images of one forward pass, which change memory and speed alone; None where they cannot be fewer."""
        for known in dataclasses.fields(self):
            if known.name.endswith("batch_size") and not known.metadata.get("identity", True):
                size = getattr(self, known.name) // 2
                if size:
                    setattr(self, known.name, size)
                    return size
        return None

    @property
    def trains_prior(self) -> bool:
        """Whether ``fit`` changes the prior's weights for all classes together."""
        return False

    @property
    def images_per_draw(self) -> int:
        """Images that each image of a minibatch becomes inside training (online generators)."""
        return 1

    @property
    def makes_pool(self) -> bool:
        """Whether images are published before training (``none`` and purely online generators make no pool)."""
        return True

    def fit_fingerprint(self, dataset: Dataset, prior_identity: Any) -> str:
        """Identity of what ``fit`` learns; without ``fit``, of the weights alone: images are shared among subsets."""
        if not self.fits:
            return fingerprint(type(self).identity_name, self.version, prior_identity if self.uses_prior else None)
        return fingerprint(
            canonical(self, stage="fit"), prior_identity if self.uses_prior else None, dataset.train_identity()
        )

    def variant_of(self, source: Sample, index: int, dataset: Dataset, fitted_fingerprint: str) -> Variant:
        """Variant ``index`` of ``source`` with its drawn values and its identity."""
        own = canonical_text(self, stage="sample")
        return next(self._variants_of(source, [index], dataset, fitted_fingerprint, own, {}))

    def variants(self, dataset: Dataset, num_variants: int, fitted_fingerprint: str) -> list[Variant]:
        """Every image of a pool: ``num_variants`` of each training image, all first ones before all second ones."""
        own, indices, known = canonical_text(self, stage="sample"), range(num_variants), {}
        by_source = [
            self._variants_of(source, indices, dataset, fitted_fingerprint, own, known) for source in dataset.train
        ]
        return [next(variants) for _ in indices for variants in by_source]

    def _variants_of(
        self,
        source: Sample,
        indices: Iterable[int],
        dataset: Dataset,
        fitted_fingerprint: str,
        own: CanonicalText,
        known: dict[str, tuple[dict[str, Any], bytes]],
    ) -> Iterator[Variant]:
        """The variants of one source; ``own`` is what this configuration adds to the identity of each of its images, ``known``
        the draws that were met, with their texts: a million images share a few."""
        classes = [dataset.class_names[i] for i in sorted(source.label)]
        identity = fingerprints_of(fitted_fingerprint, source.identity(), classes, own)
        for index in indices:
            draws = self.draw(source, index, dataset)
            place = repr(draws)
            if place not in known:
                if len(known) >= MOST_KNOWN:  # each image has its own, as with random partners
                    known.clear()
                known[place] = draws, canonical_text(draws).encode()
            draws, text = known[place]
            yield Variant(source=source, index=index, draws=draws, fingerprint=identity(b"%b,%d" % (text, index)))

    def left_out(self, dataset: Dataset, num_variants: int) -> dict[str, int]:
        """Number of images that exist already and are not used, by reason."""
        return {}


def steps_taken(num_steps: int, t0: float) -> int:
    """K = floor(N t0): the steps that are left of a schedule of N from level t0; the 1e-9 keeps 0.58 * 50 = 28.999… at 29."""
    return min(math.floor(num_steps * t0 + 1e-9), num_steps)


def check_first_step(key: str, num_steps: int, t0: float) -> None:
    """Raise ``GenaugError`` where a schedule of leading spacing would begin at timestep 1000: U-Nets know 0 to 999."""
    if steps_taken(num_steps, t0) >= TRAIN_STEPS:
        raise GenaugError(
            f"generator.{key}={num_steps} from generator.t0={t0:g} begins at timestep {TRAIN_STEPS}, one beyond the U-Net's "
            f"training: write generator.{key}={TRAIN_STEPS // 2}, or a lower t0."
        )
