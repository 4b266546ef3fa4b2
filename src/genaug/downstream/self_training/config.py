"""AMST, the asymmetric multi-head self-training of DreamDA (arXiv 2403.12803), and its peers, over one backbone.

Synthetic images count as unlabelled; auxiliary heads decide which of them get a label. The paper's code was never released:
the figure gives the phases, every constant is ours and an option here. Losses and rules: ``pseudo_labels.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.errors import GenaugError, check_choice
from genaug.core.registry import component
from genaug.data.mixing import Mix, Separate
from genaug.data.sample import Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.config import Classifier
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from genaug.data.augmentation import Augment
    from genaug.tracking.record import Record

SELF_TRAINED = ("pseudo", "soft")
"""Labels that the auxiliary heads give in rounds."""
CHOICES = {
    "label": ("none", "seed", *SELF_TRAINED, "fixmatch", "flexmatch", "debiasmatch", "dst", "multi_head_co_training"),
    "unlabelled": ("pool", "real", "both"),
    "head_views": ("shared", "independent"),
    "head_data": ("full", "bootstrap"),
    "confidence": ("mean", "min"),
    "debias_labels": ("new", "old"),
}


@component("downstream", "amst")
@dataclass(kw_only=True, slots=True)
class Amst(Classifier):
    """A classifier on real images as labelled and a pool as unlabelled data; the mix's alpha has no meaning here."""

    label: str = "pseudo"
    """Where the labels of the unlabelled images come from. ``none``: they are left out, real images teach alone. ``seed``:
    their source's. ``pseudo`` (AMST): the auxiliary heads, where they agree and are confident. ``soft``: the heads' mean
    probabilities, for every image. ``fixmatch``, ``flexmatch``, ``debiasmatch``, ``dst``: the model's own confident
    predictions. ``multi_head_co_training``: each of three heads learns what the other two agree on."""
    unlabelled: str = "pool"
    """Unlabelled images: the ``pool``, the data set's own unlabelled ``real`` ones (STL-10 has 100,000), or ``both``."""

    num_weak_heads: int = 2
    """Auxiliary heads that learn from weak views: the classic augmentation."""
    num_strong_heads: int = 2
    """Auxiliary heads that learn from strong views: classic augmentation, RandAugment, Cutout."""
    head_views: str = "shared"
    """``shared``: heads of a kind see the same view (the figure). ``independent``: each head has its own draw, against
    heads that become one."""
    head_data: str = "full"
    """``full``: every head sees every real image. ``bootstrap``: each has its own resample of them."""
    lambda_div: float = 0.0
    """Weight of mean |W_a W_b^T| over the heads of a kind, which keeps them apart."""

    pretrain_fraction: float = 0.25
    """Share of ``num_steps`` in which the auxiliary heads learn from real images alone, in [0, 1)."""
    num_rounds: int = 3
    """R, how often the unlabelled images are labelled; the rest of the steps is shared out equally."""
    tau: float = 0.95
    """Least confidence of an accepted label, in (0, 1). One tau is stricter with more classes."""
    confidence: str = "mean"
    """Confidence of an image: ``mean`` or ``min`` over the heads."""
    accumulate: bool = False
    """Keep the labels of earlier rounds; false labels anew in every round."""
    fraction_real: float | None = None
    """Share of real images in a labelled batch, in (0, 1]; null draws uniformly from real and accepted images."""

    lambda_c: float = 1.0
    """Weight of the loss on unlabelled images (weak view labels strong view); 0 reads none of them."""
    tau_c: float = 0.95
    """Least confidence of a weak view there, in (0, 1)."""
    mu: int = 1
    """Unlabelled images per labelled one in a step."""
    lambda_aux: float = 1.0
    """Weight of the auxiliary heads' loss on real images after pretraining, which keeps the labellers current."""
    lambda_strong: float = 0.0
    """Weight of the labelled images' strong view in the supervised loss (0.1 in TLlib's FixMatch)."""
    strong_num_ops: int = 3
    """Operations of RandAugment in a strong view."""

    flexmatch_warmup: bool = True
    """FlexMatch: count images that were never confident for the largest class."""
    debias_momentum: float = 0.999
    """DebiasMatch: momentum of the mean prediction, in [0, 1)."""
    debias_strength: float = 1.0
    """DebiasMatch: lambda of the adjustment."""
    debias_labels: str = "new"
    """DebiasMatch: labels are debiased by the ``new`` mean prediction (TLlib), or the ``old`` one (the authors' code)."""
    dst_weight: float = 2.0
    """DST: eta', weight of the worst-case head's agreement on labelled images."""
    dst_width: int = 2048
    """DST: hidden units of the pseudo head and the worst-case head."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Classifier.__post_init__(self)
        for key, options in CHOICES.items():
            check_choice(f"downstream.{key}", getattr(self, key), options)
        for key in ("tau", "tau_c"):
            if not 0 < getattr(self, key) < 1:
                raise GenaugError(f"downstream.{key}={getattr(self, key)} must lie between 0 and 1: write e.g. 0.95.")
        for key in ("pretrain_fraction", "debias_momentum"):
            if not 0 <= getattr(self, key) < 1:
                raise GenaugError(f"downstream.{key}={getattr(self, key)} must be at least 0 and below 1.")
        for key in ("lambda_c", "lambda_aux", "lambda_strong", "lambda_div", "debias_strength", "dst_weight"):
            if getattr(self, key) < 0:
                raise GenaugError(f"downstream.{key}={getattr(self, key)} must not be negative.")
        for key in ("num_rounds", "mu", "dst_width"):
            if getattr(self, key) < 1:
                raise GenaugError(f"downstream.{key}={getattr(self, key)} must be at least 1.")
        for key in ("num_weak_heads", "num_strong_heads", "strong_num_ops"):
            if getattr(self, key) < 0:
                raise GenaugError(f"downstream.{key}={getattr(self, key)} must not be negative.")
        if self.fraction_real is not None and not 0 < self.fraction_real <= 1:
            raise GenaugError(f"downstream.fraction_real={self.fraction_real} must lie in (0, 1], or be null.")
        if self.label in SELF_TRAINED:
            self._check_phases()

    def _check_phases(self) -> None:
        if self.num_weak_heads + self.num_strong_heads < 2:
            raise GenaugError(
                f"downstream.num_weak_heads={self.num_weak_heads} and num_strong_heads={self.num_strong_heads}: agreement "
                "needs at least two heads. Write e.g. 2 and 2, or downstream.label=fixmatch for a single head."
            )
        if self.num_steps - self.pretrain_steps < self.num_rounds:
            raise GenaugError(
                f"downstream.num_steps={self.num_steps} leaves less than a step for each of "
                f"downstream.num_rounds={self.num_rounds} after pretraining: write more steps or fewer rounds."
            )

    @property
    def pretrain_steps(self) -> int:
        """Steps of the first phase."""
        return round(self.pretrain_fraction * self.num_steps) if self.label in SELF_TRAINED else 0

    def round_starts(self) -> list[int]:
        """First step of every round; a peer has one, without labelling."""
        rounds = self.num_rounds if self.label in SELF_TRAINED else 1
        rest = self.num_steps - self.pretrain_steps
        return [self.pretrain_steps + r * rest // rounds for r in range(rounds)]

    def parts(self, number: int) -> frozenset[str]:
        """Losses of a round's steps, or of pretraining (-1): ``supervised``, ``auxiliary``, ``unlabelled``."""
        if number < 0:
            return frozenset({"auxiliary"})
        chosen = {"supervised"}
        if self.label in SELF_TRAINED and self.lambda_aux > 0:
            chosen.add("auxiliary")
        if self.label not in ("none", "seed") and self.lambda_c > 0:
            chosen.add("unlabelled")
        return frozenset(chosen)

    def auxiliary_views(self) -> list[tuple[str, int]]:
        """Views of an auxiliary batch: (kind, number), one per kind or one per head."""
        counts = {"weak": self.num_weak_heads, "strong": self.num_strong_heads}
        return [
            (kind, view)
            for kind, n in counts.items()
            for view in range(n if self.head_views == "independent" else min(n, 1))
        ]

    @property
    def private_strong_views(self) -> bool:
        """Whether each of the three co-training heads learns from its own strong view."""
        return self.label == "multi_head_co_training" and self.head_views == "independent"

    def images_trained(self) -> int:
        """All views of all steps; labelling the unlabelled images is not counted."""
        views = {
            "supervised": 2 if self.lambda_strong > 0 else 1,
            "auxiliary": len(self.auxiliary_views()),
            "unlabelled": self.mu * (4 if self.private_strong_views else 2),
        }
        pretraining = sum(views[part] for part in self.parts(-1)) * self.pretrain_steps
        rounds = sum(views[part] for part in self.parts(0)) * (self.num_steps - self.pretrain_steps)
        return (pretraining + rounds) * self.batch_size

    def used_mix(self, mix: Mix) -> Mix:
        """The pool is a set of its own whatever the mix, so only its M counts."""
        return Separate(name="separate", m=mix.m)

    def check_training(self, mix: Mix, augment: "Augment", trainer: TrainerConfig, *, online: bool) -> None:
        augment.check(self.task)
        if augment.mixes or augment.manifold_alpha > 0:
            raise GenaugError(
                f"downstream={self.name} compares views of single images, so images cannot be mixed with each other. "
                "Write augment.mixup_alpha=0 augment.cutmix_alpha=0 augment.manifold_alpha=0, or augment=flip_crop."
            )
        if online:
            raise GenaugError(
                f"downstream={self.name} learns from a pool of images, and this generator mixes batches instead. "
                "Write generator.online=false, or a downstream model such as classifier_tiny."
            )
        if trainer.devices > 1:
            raise GenaugError(f"downstream={self.name} trains on one device: write trainer.devices=1.")

    def check_dataset(self, dataset: Dataset) -> None:
        """Also the number of classes and the unlabelled real images."""
        Classifier.check_dataset(self, dataset)
        if len(dataset.class_names) < 2:
            raise GenaugError(
                f"{dataset.name} has one class only: heads cannot disagree. Self-training needs two or more."
            )
        if self.unlabelled != "pool" and not dataset.unlabelled:
            raise GenaugError(
                f"downstream.unlabelled={self.unlabelled}, but {dataset.name} has no unlabelled images. "
                "Write downstream.unlabelled=pool, or choose a data set that has some (stl10)."
            )
        if self.label == "seed" and self.unlabelled != "pool":
            raise GenaugError(
                f"downstream.label=seed takes the labels of the sources, which real unlabelled images have not: "
                f"write downstream.unlabelled=pool instead of {self.unlabelled}."
            )

    def unlabelled_samples(self, data: TrainingData) -> tuple[Sample, ...]:
        """P_U, in a fixed order.

        Raises:
            GenaugError: if the pool is wanted and has no image.
        """
        if self.label == "none":
            return ()
        pool: tuple[Sample, ...] = data.pool.samples if data.pool is not None else ()
        if self.unlabelled != "real" and not pool:
            raise GenaugError(
                f"downstream={self.name} learns from unlabelled synthetic images, but the pool has none (generator=none, "
                "mix.m=0, mix.alpha=0, or all rejected). Choose a generator and e.g. mix=separate mix.m=5, or "
                "downstream.label=none for real images alone."
            )
        real = data.dataset.unlabelled
        return {"pool": pool, "real": real, "both": (*pool, *real)}[self.unlabelled]

    def train(self, data: TrainingData, trainer: TrainerConfig, folder: Path, record: "Record") -> dict[str, Any]:
        samples = self.unlabelled_samples(data)
        from genaug.downstream.self_training.module import train_amst

        return train_amst(self, data, samples, trainer, folder, record)
