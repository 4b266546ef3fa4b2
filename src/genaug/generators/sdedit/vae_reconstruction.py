"""Each training image through the prior's VAE and back: a control, no method.

A detector that learns from edited images may learn their blur. This generator degrades real images as an edit does and changes
nothing else, so ``generator=vae_reconstruction mix=synthetic_only mix.m=1`` shows what the VAE alone costs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from genaug.core.cost import ForwardPasses
from genaug.core.fields import count
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.generators.base import Generated, Generator, Variant

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "vae_reconstruction")
@dataclass(kw_only=True, slots=True)
class VaeReconstruction(Generator):
    """D(E(x)) of each training image, its labels and boxes kept; every variant of an image is the same."""

    batch_size: int = count(16, metadata=NOT_IDENTITY)
    """Images encoded at once."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.sdedit.sampler import reconstruct

        assert prior is not None
        yield from reconstruct(prior, variants, self.batch_size)

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """None through the U-Net."""
        return ForwardPasses(network="U-Net", count=0)
