"""The stages of a run, once: under which key and in which folder each keeps what it makes, what it costs, and how it is made
from the ones before it.

dataset ─► erase ─► fit ─► generate ─► filter ─► train          (interpolate in place of generate and filter: online generators)

``run`` makes what is missing, ``genaug plan`` adds up what is missing, ``genaug status`` names the stage that a run is in, and
``genaug gc`` keeps what results name. None of them spells a key or a folder of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.config import RunConfig
from genaug.core.cost import ForwardPasses, unet_gflop, vae_gflop
from genaug.core.errors import GenaugError
from genaug.core.identity import Texts, canonical_text, fingerprint
from genaug.core.names import safe_name
from genaug.core.store import artefact
from genaug.data.pool import Pool
from genaug.data.sample import Dataset
from genaug.downstream.base import TrainingData
from genaug.generators.base import Variant
from genaug.generators.publishing import make_pool, pool_identity
from genaug.generators.tokens.prompts import readable
from genaug.priors.config import TINY
from genaug.priors.recipe import train_prior

if TYPE_CHECKING:
    from genaug.priors.model import Prior
    from genaug.tracking.record import Record

STAGES = ("data", "check", "erase", "fit", "generate", "filter", "interpolate", "train")
"""Names of the stages, in order; ``data`` reads and draws the training images and keeps nothing, ``check``
looks at what the prior makes of them."""
UNET, VAE = "U-Net", "VAE"

Say = Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class Artefact:
    """What a stage made, or found made."""

    folder: Path | None
    """None where there was nothing to make."""
    about: dict[str, Any] = field(default_factory=dict)
    """What its making said of itself: losses, ``network_evaluations``, ``diagnostics``."""
    is_new: bool = False

    @property
    def evaluations(self) -> int:
        """Network evaluations of this call."""
        return self.about["network_evaluations"] if self.is_new else 0


@dataclass(kw_only=True, slots=True)
class WorkingPrior:
    """The diffusion model that a run works with: loaded when it is first needed, and without the classes that were erased."""

    config: RunConfig
    erasures: dict[str, Path] = field(default_factory=dict)
    """Folder of the change of U-Net weights that erases a class, by class name."""

    def load(self) -> "Prior | None":
        """The model on this run's device; None for a generator that uses none."""
        if not self.config.generator.uses_prior:
            return None
        return self.config.prior.load(self.config.trainer.device()).with_erasures(self.erasures)


@dataclass(kw_only=True)
class Stage:
    """Base of all stages."""

    config: RunConfig
    texts: Texts = field(default_factory=Texts)
    """What the identities of many runs have in common."""
    name: ClassVar[str]
    kind: ClassVar[str] = ""
    """Folder of the store that holds its artefacts; empty for those kept elsewhere."""

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that its artefact depends on: the run's, unless a stage needs less."""
        return fingerprint(*self.config.identity(self.texts))

    @property
    def label(self) -> str:
        """What its artefact is called beside the key, for people."""
        raise AssertionError(f"{self.name} has no artefact in the store")

    @property
    def place(self) -> Path | None:
        """Where its artefact lies, whether it is made or not; None for a stage that keeps nothing."""
        return self.config.paths.store.place(self.kind, self.label, self.key) if self.kind else None

    def forward_passes(self) -> list[ForwardPasses]:
        """What making it costs."""
        return []

    def _priced(self, work: ForwardPasses) -> ForwardPasses:
        """With the operations of the prior's U-Net, which depend on the image size."""
        if work.network != UNET or work.gflop is not None:
            return work
        return replace(work, gflop=unet_gflop(self.config.prior.image_size, self.config.prior.path == TINY))


@dataclass(kw_only=True)
class Erase(Stage):
    """Unlearn one class: a change of the U-Net's weights, made once for all runs with this prior and erasure."""

    name, kind = "erase", "erasures"
    concept: str
    """Class name, as the data set spells it."""

    @cached_property
    def key(self) -> str:
        prior = self.config.prior
        return fingerprint(
            self.texts.of("prior", prior.identity, prior), self.config.leakage.erasure, readable(self.concept)
        )

    @property
    def label(self) -> str:
        return safe_name(self.concept, "token")

    def forward_passes(self) -> list[ForwardPasses]:
        assert self.config.leakage.erasure is not None
        return [self._priced(self.config.leakage.erasure.forward_passes(readable(self.concept)))]

    def make(self) -> Artefact:
        """The artefact, made with the prior as it is."""

        def erase(work: Path) -> dict[str, Any]:
            from genaug.priors.erasure import erase_into

            prior, erasure = WorkingPrior(config=self.config).load(), self.config.leakage.erasure
            assert prior is not None and erasure is not None
            return erase_into(work, prior, readable(self.concept), erasure)

        folder, is_new = self.config.paths.store.folder(self.kind, self.label, self.key, erase)
        return Artefact(folder=folder, about=artefact(folder), is_new=is_new)


@dataclass(kw_only=True)
class Fit(Stage):
    """What the generator learns from the training images: tokens, an autoencoder, the detector of PSLD's audit."""

    name, kind = "fit", "fitted"
    dataset: Dataset

    @cached_property
    def key(self) -> str:
        config = self.config
        of_prior = self.texts.of(f"{config.generator.uses_prior}", config.prior_identity, config.prior, config.leakage)
        return config.generator.fit_fingerprint(self.dataset, of_prior)

    @property
    def label(self) -> str:
        return self.config.generator.component_name

    @property
    def place(self) -> Path | None:
        return self.config.paths.store.place(self.kind, self.label, self.key) if self.config.generator.fits else None

    def forward_passes(self) -> list[ForwardPasses]:
        work = self.config.generator.fit_forward_passes(self.dataset)
        return [] if work is None else [self._priced(work)]

    def make(self, prior: WorkingPrior, say: Say) -> Artefact:
        """The artefact; without a folder for a generator that learns nothing."""
        generator = self.config.generator
        if not generator.fits:
            return Artefact(folder=None)

        def fit(work: Path) -> dict[str, Any]:
            say(f"fitting {generator.name} on {len(generator.learns_from(self.dataset))} images")
            model = prior.load()
            about = generator.fit(self.dataset, model, work, self.config.trainer.device())
            if not isinstance(about, dict):
                raise GenaugError(
                    f"The fit of generator={generator.name} returns {type(about).__name__}: return a dictionary of facts for "
                    "the record, {} where there are none."
                )
            # a fit that resumes states its evaluations itself, those of interrupted attempts included
            return {"network_evaluations": model.num_evaluations if model is not None else 0, **about}

        folder, is_new = self.config.paths.store.folder(self.kind, self.label, self.key, fit)
        return Artefact(folder=folder, about=artefact(folder), is_new=is_new)


@dataclass(kw_only=True)
class Generate(Stage):
    """The generator's images for this training set: a pool, of which any M are the first M of every larger one."""

    name = "generate"
    dataset: Dataset
    fitted: str
    """Key of what was learned."""

    @cached_property
    def key(self) -> str:
        return pool_identity(self.config.generator, self.dataset, self.fitted)

    @property
    def place(self) -> Path:
        return self.config.paths.store.pool(self.key)

    @property
    def family(self) -> str:
        """What its images depend on besides their sources and draws: pools of one family may share images."""
        return fingerprint(self.fitted, canonical_text(self.config.generator, stage="sample"))

    def images(self, num_variants: int) -> list[Variant]:
        """The images of M = ``num_variants``, made or not."""
        return self.config.generator.variants(self.dataset, num_variants, self.fitted)

    def cost_of(self, missing: list[Variant]) -> list[ForwardPasses]:
        """What making these images costs."""
        if not missing:
            return []
        work = [self._priced(self.config.generator.forward_passes(missing))]
        if self.config.generator.uses_prior:
            gflop = vae_gflop(self.config.prior.image_size, self.config.prior.path == TINY)
            work.append(ForwardPasses(network=VAE, count=len(missing), gflop=gflop))
        return [part for part in work if part.count]

    def make(self, prior: WorkingPrior, fitted: Artefact, say: Say) -> Pool:
        """The pool; images of an earlier run are used again."""
        return make_pool(
            store=self.config.paths.store,
            generator=self.config.generator,
            dataset=self.dataset,
            fitted=fitted.folder,
            fitted_fingerprint=self.fitted,
            load_prior=prior.load,
            num_variants=self.config.mix.m,
            say=say,
            device=self.config.trainer.device,
        )


@dataclass(kw_only=True)
class Select(Stage):
    """Scores of the pool's images, kept beside the pool, and the images that the filter's threshold leaves."""

    name = "filter"
    dataset: Dataset
    pool: str
    """Key of the pool."""

    @cached_property
    def key(self) -> str:
        return self.config.filter.scores_identity(self.pool, self.dataset)

    @property
    def place(self) -> Path:
        return self.config.filter.scores_path(self.config.paths.store.pool(self.pool), self.key)

    def make(self, pool: Pool, say: Say) -> Pool:
        """The pool without the rejected images."""
        return self.config.filter.apply(pool, self.dataset, self.config.paths.store, say, self.config.trainer.device())


@dataclass(kw_only=True)
class Interpolate(Stage):
    """An online generator inside training: it keeps nothing, and each image of a minibatch becomes ``images_per_draw``."""

    name = "interpolate"
    dataset: Dataset

    def make(self, prior: WorkingPrior, fitted: Artefact) -> Callable[..., Any] | None:
        """What training does to each minibatch."""
        device = self.config.trainer.device()
        return self.config.generator.interpolate(fitted.folder, self.dataset, prior.load(), device)


@dataclass(kw_only=True)
class Train(Stage):
    """The downstream model, its own pseudo-labels included (self-training); the run's folder keeps its result."""

    name = "train"

    def forward_passes(self) -> list[ForwardPasses]:
        work, generator = self.config.downstream.forward_passes(), self.config.generator
        return [replace(work, count=work.count * generator.images_per_draw) if generator.online else work]

    def make(self, data: TrainingData, folder: Path, record: "Record") -> dict[str, Any]:
        """Metrics, protocol and predictions, as ``Downstream.train`` returns them."""
        return self.config.downstream.train(data, self.config.trainer, folder, record)


@dataclass(kw_only=True)
class TrainPrior(Stage):
    """The shipped prior trained again from its recipe; the work of its two networks is not counted."""

    name = "train"

    @property
    def place(self) -> Path:
        return self.config.paths.outputs / "prior" / "prior"

    def make(self) -> Path:
        """The folder in diffusers' layout."""
        return train_prior(self.config.recipe, self.place.parent)
