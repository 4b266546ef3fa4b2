"""Self-training: images of the pool are labelled by heads on the same backbone, or by the model itself, by nine rules.

AMST, the asymmetric multi-head self-training of DreamDA (arXiv 2403.12803), is ``label=pseudo``: auxiliary heads decide which
synthetic images get a label. Its code was never released: the figure gives the phases, every constant is ours and an option
here. Losses and rules: ``pseudo_labels.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count
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
LABELS = ("none", "seed", *SELF_TRAINED, "fixmatch", "flexmatch", "debiasmatch", "dst", "multi_head_co_training")
MOST_WEIGHT = 1000
"""Largest weight of a term of the loss."""


@component("downstream", "self_training")
@dataclass(kw_only=True, slots=True)
class SelfTraining(Classifier):
    """A classifier on real images as labelled and a pool as unlabelled data; the mix's alpha has no meaning here."""

    label: str = choice("pseudo", LABELS)
    """Where the labels of the unlabelled images come from. ``none``: they are left out, real images teach alone. ``seed``:
    their source's. ``pseudo`` (AMST): the auxiliary heads, where they agree and are confident. ``soft``: the heads' mean
    probabilities, for every image. ``fixmatch``, ``flexmatch``, ``debiasmatch``, ``dst``: the model's own confident
    predictions. ``multi_head_co_training``: each of three heads learns what the other two agree on."""
    unlabelled: str = choice("pool", ("pool", "real", "both"))
    """Unlabelled images: the ``pool``, the data set's own unlabelled ``real`` ones (STL-10 has 100,000), or ``both``."""

    num_weak_heads: int = count(2, 0, 100)
    """Auxiliary heads that learn from weak views: the classic augmentation."""
    num_strong_heads: int = count(2, 0, 100)
    """Auxiliary heads that learn from strong views: classic augmentation, RandAugment, Cutout."""
    head_views: str = choice("shared", ("shared", "independent"))
    """``shared``: heads of a kind see the same view (the figure). ``independent``: each head has its own draw, against
    heads that become one."""
    head_data: str = choice("full", ("full", "bootstrap"))
    """``full``: every head sees every real image. ``bootstrap``: each has its own resample of them."""
    lambda_div: float = bounded(0.0, 0, MOST_WEIGHT)
    """Weight of mean |W_a W_b^T| over the heads of a kind, which keeps them apart."""

    pretrain_fraction: float = bounded(0.25, 0, 1, below=True)
    """Share of ``num_steps`` in which the auxiliary heads learn from real images alone, in [0, 1)."""
    num_rounds: int = count(3)
    """R, how often the unlabelled images are labelled; the rest of the steps is shared out equally."""
    tau: float = bounded(0.95, 0, 1, above=True, below=True)
    """Least confidence of an accepted label, in (0, 1). One tau is stricter with more classes."""
    confidence: str = choice("mean", ("mean", "min"))
    """Confidence of an image: ``mean`` or ``min`` over the heads."""
    accumulate: bool = False
    """Keep the labels of earlier rounds; false labels every image again in every round."""
    fraction_real: float | None = bounded(None, 0, 1, above=True)
    """Share of real images in a labelled batch, in (0, 1]; null draws uniformly from real and accepted images."""

    lambda_c: float = bounded(1.0, 0, MOST_WEIGHT)
    """Weight of the loss on unlabelled images (weak view labels strong view); 0 reads none of them."""
    tau_c: float = bounded(0.95, 0, 1, above=True, below=True)
    """Least confidence of a weak view there, in (0, 1)."""
    mu: int = count(1, most=1000)
    """Unlabelled images per labelled one in a step."""
    lambda_aux: float = bounded(1.0, 0, MOST_WEIGHT)
    """Weight of the auxiliary heads' loss on real images after pretraining, which keeps the labellers current."""
    lambda_strong: float = bounded(0.0, 0, MOST_WEIGHT)
    """Weight of the labelled images' strong view in the supervised loss (0.1 in TLlib's FixMatch)."""
    strong_num_ops: int = count(3, 0, 100)
    """Operations of RandAugment in a strong view."""

    flexmatch_warmup: bool = True
    """FlexMatch: count images that were never confident for the largest class."""
    debias_momentum: float = bounded(0.999, 0, 1, below=True)
    """DebiasMatch: momentum of the mean prediction, in [0, 1)."""
    debias_strength: float = bounded(1.0, 0, MOST_WEIGHT)
    """DebiasMatch: lambda of the adjustment."""
    debias_labels: str = choice("new", ("new", "old"))
    """DebiasMatch: labels are debiased by the ``new`` mean prediction (TLlib), or the ``old`` one (the authors' code)."""
    dst_weight: float = bounded(2.0, 0, MOST_WEIGHT)
    """DST: eta', weight of the worst-case head's agreement on labelled images."""
    dst_width: int = count(2048, most=10**6)
    """DST: hidden units of the pseudo head and the worst-case head."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Classifier.__post_init__(self)
        if self.label not in SELF_TRAINED:
            return
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
        pool: tuple[Sample, ...] = tuple(data.pool.samples) if data.pool is not None else ()
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
        from genaug.downstream.self_training.module import train_self_training

        return train_self_training(self, data, samples, trainer, folder, record)
