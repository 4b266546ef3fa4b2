"""Mix: the policy that turns real samples and a pool into a training stream. It owns alpha and M.

A stream answers "which sample is draw number d, and with which augmentation seed" as a function of d alone, so it can be
resumed anywhere and does not depend on workers. Real index, synthetic-or-not, variant and augmentation come from separate
counter-based numbers: with alpha = 0 the stream is the baseline's, bit for bit.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, overload

import numpy as np

from genaug.core.errors import GenaugError
from genaug.core.fields import count, probability
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component
from genaug.core.seeding import choice, derive, uniform
from genaug.data.packed import PackedSamples
from genaug.data.pool import Pool
from genaug.data.sample import Sample, SyntheticSample

MOST_VARIANTS = 100_000
"""Largest M: no experiment makes more images of one."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One element of a training stream."""

    sample: Sample
    augment_seed: int


class Order:
    """Index of draw d in a list of ``size``: shuffled epochs, or uniform draws with replacement."""

    def __init__(self, size: int, seed: int, with_replacement: bool = False):
        self.size, self.seed, self.with_replacement = size, seed, with_replacement
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        if self.with_replacement:
            return choice(self.size, self.seed, "index", draw)
        epoch, place = divmod(draw, self.size)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng(derive(self.seed, "order", epoch)).permutation(self.size)
            self._epoch = epoch
        return int(self._permutation[place])


class Stream:
    """The training stream of one run: ``stream[d]`` for d = 0, 1, …, without end."""

    def __init__(
        self, mix: "Mix", real: Sequence[Sample], pool: Pool | None, seed: int, with_replacement: bool = False
    ):
        self.mix, self.seed = mix, seed
        self.real = real
        self.synthetic: Sequence[SyntheticSample] = pool.samples if pool is not None else ()
        self.by_source = pool.by_source() if pool is not None else {}
        self.order = Order(mix.num_elements(self), seed, with_replacement)

    def __getitem__(self, draw: int) -> Draw:
        return Draw(self.mix.pick(self, draw), derive(self.seed, "augment", draw))

    @functools.cached_property
    def real_objects(self) -> list[Sample]:
        """Real samples with an object."""
        return [sample for sample in self.real if sample.has_class]

    @functools.cached_property
    def synthetic_objects(self) -> list[SyntheticSample]:
        """Synthetic samples with an object."""
        return [sample for sample in self.synthetic if sample.has_class]

    def samples(self) -> Sequence[Sample]:
        """Every sample that the stream may return; those of a packed pool are made when they are asked for."""
        if isinstance(self.synthetic, PackedSamples):
            return Joined(self.real, self.synthetic)
        return (*self.real, *self.synthetic)


class Joined(Sequence[Sample]):
    """One sequence after another, neither copied."""

    def __init__(self, first: Sequence[Sample], second: Sequence[Sample]):
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]


@dataclass(kw_only=True, slots=True)
class Mix:
    """Base of all mixes."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in folders and tables."""

    version: ClassVar[int] = 1
    m: ClassVar[int] = 0
    """Number of variants per real image (M)."""

    @property
    def uses_pool(self) -> bool:
        """Whether a synthetic image can ever be drawn."""
        return self.m > 0

    def num_elements(self, stream: Stream) -> int:
        """Length of one epoch of the shuffled order."""
        return len(stream.real)

    def pick(self, stream: Stream, draw: int) -> Sample:
        """The sample of one draw."""
        return stream.real[stream.order[draw]]

    def lender(self, stream: Stream, seed: int) -> Sample:
        """A sample whose objects ``augment=copy_paste`` pastes into another image, by the seed of that image."""
        return stream.real_objects[choice(len(stream.real_objects), seed, "copy-paste source")]


@component("mix", "real_only")
@dataclass(kw_only=True, slots=True)
class RealOnly(Mix):
    """Real images alone: the baseline."""


@component("mix", "replace")
@dataclass(kw_only=True, slots=True)
class Replace(Mix):
    """DA-Fusion, Eq. 7 and 8: with probability alpha a real image gives way to one of its own M variants.

    The expected synthetic share is alpha whatever M is. A real image without accepted variants is always drawn as it is.
    """

    alpha: float = probability(0.5)
    """Probability of a synthetic draw, in [0, 1]."""
    m: int = count(5, 0, MOST_VARIANTS)  # type: ignore[misc]
    """M, the number of variants per real image."""

    def __post_init__(self) -> None:
        if self.m == 0 and self.alpha > 0:
            raise GenaugError(
                f"mix.m=0 leaves nothing to draw with mix.alpha={self.alpha}. "
                "Write mix.m=1 or more, or mix.alpha=0 for the baseline."
            )

    @property
    def uses_pool(self) -> bool:
        return self.m > 0 and self.alpha > 0

    def pick(self, stream: Stream, draw: int) -> Sample:
        real = stream.real[stream.order[draw]]
        variants = stream.by_source.get(real.id, [])
        if variants and uniform(stream.seed, "alpha", draw) < self.alpha:
            return variants[choice(len(variants), stream.seed, "variant", draw)]
        return real


@component("mix", "replace_global")
@dataclass(kw_only=True, slots=True)
class ReplaceGlobal(Replace):
    """With probability alpha a real image gives way to any image of the pool (Diff-Mix's random replacement)."""

    def pick(self, stream: Stream, draw: int) -> Sample:
        if stream.synthetic and uniform(stream.seed, "alpha", draw) < self.alpha:
            return stream.synthetic[choice(len(stream.synthetic), stream.seed, "variant", draw)]
        return stream.real[stream.order[draw]]


@component("mix", "concat")
@dataclass(kw_only=True, slots=True)
class Concat(Mix):
    """Real images and all their variants in one list. The synthetic share grows with M: M / (M + 1)."""

    m: int = count(5, 0, MOST_VARIANTS)  # type: ignore[misc]
    """M, the number of variants per real image."""

    def num_elements(self, stream: Stream) -> int:
        return len(stream.real) + len(stream.synthetic)

    def pick(self, stream: Stream, draw: int) -> Sample:
        place = stream.order[draw]
        return stream.real[place] if place < len(stream.real) else stream.synthetic[place - len(stream.real)]


@component("mix", "synthetic_only")
@dataclass(kw_only=True, slots=True)
class SyntheticOnly(Mix):
    """Variants alone: what the synthetic images teach without the real ones."""

    m: int = count(5, 1, MOST_VARIANTS)  # type: ignore[misc]
    """M, the number of variants per real image."""

    def num_elements(self, stream: Stream) -> int:
        if not stream.synthetic:
            raise GenaugError(
                "mix=synthetic_only needs synthetic images, but the pool has none (generator=none, or all rejected)."
            )
        return len(stream.synthetic)

    def pick(self, stream: Stream, draw: int) -> Sample:
        return stream.synthetic[stream.order[draw]]


@component("mix", "paste")
@dataclass(kw_only=True, slots=True)
class Paste(Mix):
    """Real images alone are drawn; ``augment=copy_paste`` pastes objects of the pool's images into them (X-Paste, arXiv
    2212.03863)."""

    alpha: float = probability(1.0)
    """Probability that what is pasted into an image comes from a synthetic one, not from another real one."""
    m: int = count(5, 1, MOST_VARIANTS)  # type: ignore[misc]
    """M, the number of variants per real image."""

    @property
    def uses_pool(self) -> bool:
        return self.alpha > 0

    def lender(self, stream: Stream, seed: int) -> Sample:
        if stream.synthetic_objects and uniform(seed, "copy-paste synthetic") < self.alpha:
            return stream.synthetic_objects[choice(len(stream.synthetic_objects), seed, "copy-paste source")]
        return Mix.lender(self, stream, seed)


@component("mix", "separate")
@dataclass(kw_only=True, slots=True)
class Separate(Mix):
    """Real images and pool are handed over as two sets, for models that label the pool themselves (``downstream=amst``)."""

    m: int = count(5, 1, MOST_VARIANTS)  # type: ignore[misc]
    """M, the number of variants per real image."""

    def num_elements(self, stream: Stream) -> int:
        raise GenaugError(
            "mix=separate mixes nothing: it is for downstream models that label the pool themselves (downstream=amst, "
            "fixmatch ...). Write mix=replace or mix=concat to train on the pool with the labels of its sources."
        )
