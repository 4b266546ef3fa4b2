"""The typed configuration of one run, and the checks that involve more than one component."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from genaug.core.errors import GenaugError
from genaug.core.fields import choice, seed
from genaug.core.identity import NOT_IDENTITY, Texts, canonical
from genaug.core.paths import Paths
from genaug.core.registry import section
from genaug.data.augmentation import Augment
from genaug.data.mixing import Mix
from genaug.data.sources.base import Source
from genaug.downstream.base import Downstream
from genaug.downstream.trainer import TrainerConfig
from genaug.evaluation.filters import Filter
from genaug.generators.base import Generator
from genaug.generators.spread import Generation
from genaug.priors.config import TINY, PriorConfig
from genaug.priors.leakage import Leakage
from genaug.priors.recipe import PriorRecipe
from genaug.tracking.record import Tracking

SMALL_GFLOP = 0.5
"""One forward pass of an image through a network so small that more threads than one gain little (benchmarks/small_runs.py)."""
TASKS = ("train", "generate", "fit", "prior")


@section("", "run")
@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Everything that one run needs. Groups are chosen on the command line (``generator=da_fusion``)."""

    task: str = choice("train", TASKS)
    """``train``: the whole line, to a result. ``generate`` and ``fit`` stop after the pool and after fitting; ``prior``
    trains the shipped tiny prior again (recipe.* keys)."""
    seed: int = seed(0)
    """The trial. Few-shot draw, noise of the images, initialisation and data order follow it together."""
    dataset: Source = MISSING
    prior: PriorConfig = MISSING
    leakage: Leakage = MISSING
    generator: Generator = MISSING
    filter: Filter = MISSING
    mix: Mix = MISSING
    augment: Augment = MISSING
    downstream: Downstream = MISSING
    trainer: TrainerConfig = MISSING
    recipe: PriorRecipe = field(default_factory=PriorRecipe)
    """How the shipped prior is trained; used by ``task=prior`` alone."""
    experiment: str | None = field(default=None, metadata=NOT_IDENTITY)
    """Name of the experiment that it was first run for, e.g. ``demo/compare``; groups runs in W&B."""
    generation: Generation = field(default_factory=Generation, metadata=NOT_IDENTITY)
    tracking: Tracking = field(default=MISSING, metadata=NOT_IDENTITY)
    paths: Paths = field(default_factory=Paths, metadata=NOT_IDENTITY)

    @property
    def pool_size(self) -> int:
        """M of this run: 0 when no synthetic image can reach training."""
        return self.mix.m if self.generator.makes_pool and self.mix.uses_pool else 0

    @property
    def synthesises(self) -> bool:
        """Whether this run fits or uses its generator."""
        used = self.task == "train" and (self.pool_size > 0 or self.generator.online)
        return used or self.task in ("fit", "generate")

    @property
    def is_small(self) -> bool:
        """Whether one thread of a CPU does the work best: no network of the run has more than ``SMALL_GFLOP``."""
        work = self.downstream.forward_passes().gflop if self.task == "train" else 0.0
        tiny_prior = not (self.synthesises and self.generator.uses_prior) or self.prior.path == TINY
        trainer = self.trainer
        alone = trainer.devices == 1 and trainer.workers() == 0 and trainer.device() == "cpu"
        return self.task != "prior" and work is not None and work <= SMALL_GFLOP and tiny_prior and alone

    @property
    def num_threads(self) -> int | None:
        """Threads of torch: as said, or one for a small run, the same on every machine; None for torch's choice."""
        return self.trainer.num_threads or (1 if self.is_small else None)

    def identity(self, texts: Texts | None = None) -> list[Any]:
        """The parts of a run's identity; seeds of the trial stand below ``seed`` alone.

        What cannot reach the result is left out: a generator whose images are never drawn, and then the mix's alpha and M.

        Args:
            texts: remembers what runs share; for many runs at once.
        """
        if self.task == "prior":
            return ["prior", self.recipe]
        of = (texts or Texts()).of
        synthetic: Any = None
        if self.pool_size or self.generator.online or (self.generator.makes_pool and self.task != "train"):
            synthetic = of(
                "synthetic", lambda: [self.generator, self.prior_identity()], self.generator, self.prior, self.leakage
            )
        found = [self.task, of("dataset", self.dataset.identity, self.dataset), {"seed": self.seed}, synthetic]
        if self.task == "fit":
            return found
        if self.task == "generate":
            return [*found, self.mix if self.pool_size else None]
        used_mix = of("mix", lambda: self.downstream.used_mix(self.mix), self.downstream, self.mix)
        found.append(used_mix if self.pool_size else None)
        if self.pool_size and self.filter.active:
            found.append(self.filter)
        rest = (self.augment, self.downstream, self.trainer)
        return [*found, *(of("component", lambda part=part: part, part) for part in rest)]

    def prior_identity(self) -> Any:
        """The weights that generators work with: the prior's, and what is erased from them; None if none are used."""
        if not self.generator.uses_prior:
            return None
        identity = self.prior.identity()
        return identity if self.leakage.erasure is None else [identity, canonical(self.leakage.erasure)]

    def remarks(self) -> list[str]:
        """What a user should know of this combination although it can work."""
        detects = self.dataset.task == "detection" and self.task == "train" and self.synthesises
        if detects and self.generator.uses_prior and self.prior.image_size <= self.downstream.image_size / 2:
            return [
                f"note: images are made at {self.prior.image_size} px, the detector looks at {self.downstream.image_size} px: "
                "enlarged images are blurred, real ones are not, and a detector tells them apart. Write a larger "
                "prior.image_size, a smaller downstream.image_size, or generator.save_size=source with "
                "generator.labels.paste_region=known; generator=vae_reconstruction shows what the blur costs."
            ]
        return []

    def check(self) -> None:
        """Refuse combinations that cannot work, before any model is loaded."""
        self.generator.check(self.dataset.task)
        self.filter.check(self.dataset.task)
        self.tracking.check()
        if self.task == "train":
            self.downstream.check(self.dataset.task)
            self.downstream.check_training(self.mix, self.augment, self.trainer, online=self.generator.online)
        if self.generator.uses_prior:
            self.prior.check()
            if self.leakage.erasure is not None and not self.generator.uses_erasures:
                raise GenaugError(
                    f"leakage={self.leakage.name} erases each class from the U-Net, which generator={self.generator.name} "
                    "does not use. Write leakage=data_centric or leakage=none, or a generator such as da_fusion."
                )
            changes = self.generator.trains_prior or self.leakage.erasure is not None
            if changes and self.prior.compile and self.prior.fuse_qkv:
                what = f"leakage={self.leakage.name}" if self.leakage.erasure is not None else "generator.lora"
                raise GenaugError(
                    f"prior.fuse_qkv=true keeps a copy of the weights that {what} changes. Write prior.fuse_qkv=false."
                )
            if self.generator.trains_prior and self.leakage.erasure is not None:
                raise GenaugError(
                    f"leakage={self.leakage.name} erases each class from a U-Net of its own, and generator.lora of "
                    f"generator={self.generator.name} trains one for all classes. Write generator.lora=null, or "
                    "leakage=data_centric or leakage=none."
                )
            if self.generator.trains_prior and self.prior.dtype == "float16":
                raise GenaugError(
                    "generator.lora with prior.dtype=float16 would lose small gradients: write prior.dtype=bfloat16 or float32."
                )
        if not self.generator.makes_pool and self.mix.name == "synthetic_only":
            raise GenaugError(
                f"mix=synthetic_only with generator={self.generator.name} leaves nothing to train on, as it publishes no "
                f"images: choose another {'mix, or generator.online=false' if self.generator.online else 'generator or mix'}."
            )
        if self.task == "generate" and not self.generator.makes_pool:
            raise GenaugError(
                f"task=generate has nothing to do: generator={self.generator.name} publishes no images"
                + (" with generator.online=true. Write generator.online=false." if self.generator.online else ".")
            )
