"""Controls in place of a generator, of which the answer is known: no method, but what shows that a comparison can be trusted.

Copies of the sources must give what real images alone give; real images that were not drawn (``held_back``) are the most that
a generator can hope for; the same with labels drawn at random must hurt.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core import seeding
from genaug.core.fields import choice
from genaug.core.registry import component
from genaug.data.sample import Dataset, by_class
from genaug.generators.base import Generated, Generator, Variant

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "control")
@dataclass(kw_only=True, slots=True)
class Control(Generator):
    """Real images as if they were generated."""

    kind: str = choice("copies", ("copies", "held_back", "random_labels"))
    """``copies`` of the source; ``held_back``: training images of its class that the few-shot draw left out;
    ``random_labels``: the same, each with the label of a class drawn at random."""
    source: Any = II("dataset")
    """The data set, whose other training images are held back."""

    version: ClassVar[int] = 1
    uses_prior: ClassVar[bool] = False

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        drawn = {sample.id for sample in dataset.train}
        rest = [sample for sample in self.source.whole().train if sample.id not in drawn]
        groups = by_class(rest, len(dataset.class_names))
        for variant in variants:
            chosen, label = variant.source, None
            if self.kind != "copies":
                own = groups[variant.source.class_index] or [variant.source]
                chosen = own[seeding.choice(len(own), variant.fingerprint, "held back")]
            if self.kind == "random_labels":
                label = {seeding.choice(len(dataset.class_names), variant.fingerprint, "label"): 1.0}
            picture = chosen.open()
            yield Generated(variant=variant, image=picture, label=label)
