"""What a generated image with boxes may keep of its labels: the settings that PSLD and the SDEdit generators share.

Torch stays out of here; ``decisions.py`` holds what is decided per box and per image.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, probability
from genaug.core.identity import DRAWN, FIT, OPTIONAL
from genaug.core.registry import section
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Auditor, Generator
from genaug.generators.sentences import Sentences

REASONS = {
    "no_boxes": "the image has no box, so nothing says what of it to keep; PSLD takes a mask of another kind for such images "
    "by generator.masking.without_boxes",
    "no_object": "the image has neither a mask nor a box; generator.mask=none edits all of it",
    "no_editable_area": "a smaller generator.mask_dilation or generator.masking.margin leaves more to edit",
    "unconfirmed_box": "generator.audit.confirm_score and confirm_iou say what confirms a box, generator.labels.on_unconfirmed "
    "what becomes of others",
    "hallucinated_object": "generator.audit.hallucination_score says what counts, on_hallucination what follows",
    "unchanged": "generator.labels.min_change is the least mean change of the edited part",
    "protected_changed": "generator.labels.paste_back=hard puts the source's pixels back under exact labels",
}
"""Why an image is rejected, and which key changes that."""


@section("generator.labels", "generator/labels")
@dataclass(kw_only=True, slots=True)
class Labels:
    """What may keep its label, under ``generator.label_policy=guarded``."""

    paste_back: str = choice("hard", ("none", "hard", "feathered"))
    """Known pixels of the source are put back: ``none``, ``hard`` or ``feathered`` (solid masks only)."""
    paste_region: str = choice("boxes", ("boxes", "known"))
    """``boxes``: within the grown boxes; ``known``: all known pixels, speckle included. With ``save_size=source`` they come
    from the source at its own resolution."""
    exact_fraction: float = probability(0.98)
    """Known share of a box from which its label is exact; the whole box is then pasted back."""
    on_unconfirmed: str = choice("reject", ("restore", "ignore", "reject"))
    """A box neither exact nor found by the audit: ``restore`` its pixels, ``ignore`` it (crowd region) or ``reject`` the image.
    """
    min_change: float = bounded(10.0, 0, 255)
    """Mean absolute change of the hole, of 255, below which an image is rejected as unchanged; lower it for smooth grounds."""


@section("generator.audit", "generator/audit")
@dataclass(kw_only=True, slots=True)
class Audit:
    """What a detector of the real training images must say of a synthetic one."""

    by: str = choice("detector", ("detector", "none"))
    """``detector``: ``generator.teacher`` looks for labelled and for invented objects; ``none``: nobody looks."""
    confirm_score: float = probability(0.5)
    """Least score of a detection of the right class that confirms a label (0.3 confirms nearly anything)."""
    confirm_iou: float = probability(0.5)
    """Least IoU of that detection with the box."""
    hallucination_score: float = probability(0.5)
    """Least score of a detection that counts as an invented object."""
    hallucination_iou: float = probability(0.3)
    """IoU with every label below which it does."""
    on_hallucination: str = choice("reject", ("restore", "reject", "keep"))
    """Invented objects: ``restore`` the source's pixels there, ``reject`` the image, or ``keep``."""


@dataclass(kw_only=True, slots=True)
class Labelled(Generator):
    """Base of the generators that edit images with boxes: which labels stay, and the detector that looks at the images."""

    label_policy: str = choice("guarded", ("guarded", "copy"))
    """For images with boxes. ``guarded``: each label is decided by how much of its box is the source's own pixels and by the
    audit; ``copy``: all labels are kept unchecked, whatever was edited."""
    labels: Labels = field(default_factory=Labels)
    """What may keep its label."""
    audit: Audit = field(default_factory=Audit)
    """What a detector must say."""
    teacher: Any = field(default=None, metadata=FIT)
    """The audit's detector, a preset of ``downstream`` that detects (``+downstream@generator.teacher=detector_tiny``); it
    learns from the real training images alone. Null: nobody looks."""

    sentences: Sentences | None = field(default=None, metadata={**DRAWN, **OPTIONAL})
    """Prompts from a file, or several templates, in place of ``prompt`` (``+generator/sentences=file``); null for none."""

    fills: ClassVar[tuple[str, ...]] = ("{name}",)
    """What a sentence's placeholders may be."""

    def drawn_prompt(self, source: Sample, index: int, dataset: Dataset, name: str | None = None) -> dict[str, Any]:
        """The prompt in this image's draws, for the class ``name`` or its own; nothing without ``sentences``."""
        if self.sentences is None:
            return {}
        own = dataset.class_names[source.class_index] if source.has_class else ""
        return self.sentences.drawn(self.seed, source, index, name or own)

    def check_dataset(self, dataset: Dataset) -> None:
        if self.sentences is not None:
            self.sentences.check(dataset, self.fills)

    @property
    def audits(self) -> bool:
        """Whether a detector is learned for the audit."""
        return self.audit.by == "detector" and self.label_policy == "guarded" and self.teacher is not None

    @property
    def auditor(self) -> Auditor:
        """The audit's detector, where there is an audit."""
        assert self.teacher is not None
        return self.teacher

    def check_audit(self, why: str, otherwise: str) -> None:
        """Raise ``GenaugError`` if labels need the audit's detector and there is none."""
        if self.label_policy == "guarded" and self.audit.by == "detector" and self.teacher is None:
            raise GenaugError(
                f"{why}, so a detector must look at the images, and generator.teacher names none. Write "
                f"+downstream@generator.teacher=detector_tiny (or another detector's preset), or {otherwise}."
            )

    def learn_auditor(self, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
        """Train the audit's detector on the training images into ``folder``, where boxes are labelled and there is an audit."""
        if not self.audits or dataset.task != "detection":
            return {}
        return self.auditor.learn(dataset, folder, device)
