"""Filters: score every image of a pool once and keep the scores beside it; a threshold decides later what is trained on.

The scores' identity is the pool's and the filter's fields without its thresholds, so a swept threshold generates and scores
nothing again. The thresholds are part of the run's identity, never of the pool's.
"""

import dataclasses
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genaug.core.errors import GenaugError, boundary, lacks
from genaug.core.fields import bounded
from genaug.core.files import read_json, write_json
from genaug.core.identity import CONTENT, NOT_IDENTITY, canonical, fingerprint
from genaug.core.names import safe_name
from genaug.core.registry import component
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample
from genaug.priors.hub import check_model

THRESHOLD = {"stage": "threshold"}
BATCH = 64
"""Images, or pairs of them, that a network judges at once."""
LPIPS_SIDE = 64  # pixels


@dataclass(kw_only=True, slots=True)
class Filter:
    """Base of all filters."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in tables and as the reason of a rejection."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def check(self, task: str) -> None:
        """Raise ``GenaugError`` if this filter cannot judge ``task``."""
        if task not in self.tasks:
            raise GenaugError(f"filter={self.name} does not work on {task} data, only on {', '.join(self.tasks)}.")

    @property
    def active(self) -> bool:
        """Whether the filter can reject anything."""
        return True

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        """One number per image, computed on ``device``; may read real training images, never validation or test images."""
        raise lacks(self, "score")

    def keeps(self, score: float) -> bool:
        """Whether an image with this score is trained on."""
        raise lacks(self, "keeps")

    def apply(
        self, pool: Pool, dataset: Dataset, store: Store, say: Callable[[str], None] = print, device: str = "cpu"
    ) -> Pool:
        """The pool without the rejected images, which are counted under ``filter: <name>``."""
        if not self.active:
            return pool
        scores = self.scores(pool, dataset, store, say, device)
        kept = pool.at([place for place, sample in enumerate(pool.samples) if self.keeps(scores[sample.digest])])
        rejected = len(pool.samples) - len(kept)
        say(f"filter {self.name}: {rejected} of {len(pool.samples)} images rejected")
        counts = {**pool.rejected, f"filter: {self.name}": rejected} if rejected else pool.rejected
        return dataclasses.replace(pool, samples=kept, rejected=counts)

    def scores_identity(self, pool: str, dataset: Dataset) -> str:
        """Fingerprint of the scores of a pool, whatever the thresholds."""
        return fingerprint(canonical(self, stage="sample"), pool, dataset.train_identity())

    def scores_path(self, pool_folder: Path, identity: str) -> Path:
        """The file that keeps them."""
        return (
            pool_folder / "scores" / f"{safe_name(self.name or type(self).__name__.lower(), 'folder')}-{identity}.json"
        )

    def scores(
        self, pool: Pool, dataset: Dataset, store: Store, say: Callable[[str], None] = print, device: str = "cpu"
    ) -> dict[str, float]:
        """Score of every image of the pool, by fingerprint; images scored before are read."""
        identity = self.scores_identity(pool.fingerprint, dataset)
        path = self.scores_path(pool.folder, identity)
        with store.lock(identity, say):
            known: dict[str, float] = read_json(path) or {}
            missing = [sample for sample in pool.samples if sample.digest not in known]
            if missing:
                found = self.score(missing, dataset, store, device)
                if not isinstance(found, Sized) or len(found) != len(missing):
                    number = len(found) if isinstance(found, Sized) else type(found).__name__
                    raise GenaugError(
                        f"filter={self.name} returns {number} for {len(missing)} images: return a list of as many numbers."
                    )
                known |= {sample.digest: float(value) for sample, value in zip(missing, found, strict=True)}
                write_json(path, known)
                say(f"filter {self.name}: {len(missing)} images scored")
        return known


@component("filter", "none")
@dataclass(kw_only=True, slots=True)
class NoFilter(Filter):
    """Every accepted image is trained on."""

    @property
    def active(self) -> bool:
        return False


@component("filter", "blank")
@dataclass(kw_only=True, slots=True)
class Blank(Filter):
    """Rejects images without content, of whatever colour: what a safety checker or a numeric fault leaves behind."""

    min_std: float = bounded(4.0, 0, 255, metadata=THRESHOLD)
    """Least standard deviation of the pixel values, 0 to 255, over all channels' means."""

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        # per channel: a flat colour has no contrast although its channels differ
        return [float(np.asarray(sample.open(), dtype=np.float64).std(axis=(0, 1)).max()) for sample in samples]

    def keeps(self, score: float) -> bool:
        return score >= self.min_std


@dataclass(kw_only=True, slots=True)
class FeatureFilter(Filter):
    """Base of the filters that look at features."""

    features: str = "pixels"
    """``pixels``, any timm backbone with its pretrained weights, or ``random:<timm name>``."""

    def rows(self, samples: Sequence[Sample], store: Store, device: str) -> np.ndarray:
        """float32 [n, d] of length 1."""
        from genaug.evaluation.features import features_of, normalised

        return normalised(features_of(samples, self.features, store.root, device=device))

    def to_source(self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str) -> list[float]:
        """Cosine similarity of each image to its own source."""
        wanted = {sample.source_id for sample in samples}
        sources = [sample for sample in dataset.train if sample.id in wanted]
        by_id = dict(zip((s.id for s in sources), self.rows(sources, store, device), strict=True))
        pairs = zip(samples, self.rows(samples, store, device), strict=True)
        return [float(by_id[sample.source_id] @ row) for sample, row in pairs]


@component("filter", "near_duplicate")
@dataclass(kw_only=True, slots=True)
class NearDuplicate(FeatureFilter):
    """Rejects variants that are all but a copy of their source: they add nothing to it."""

    max_similarity: float = bounded(0.999, -1, 1, metadata=THRESHOLD)
    """Cosine similarity to the source, in [-1, 1], above which an image is a copy."""

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        return self.to_source(samples, dataset, store, device)

    def keeps(self, score: float) -> bool:
        return score <= self.max_similarity


@component("filter", "lpips_band")
@dataclass(kw_only=True, slots=True)
class DistanceBand(FeatureFilter):
    """Keeps variants that differ from their source, but not too much (SaSPA's band)."""

    features: str = "lpips"
    """``lpips`` (AlexNet; its weights are downloaded once), or any features of the other filters: then the distance is one
    minus the cosine similarity, and the band has another scale."""
    low: float = bounded(0.1, 0, metadata=THRESHOLD)
    """Least distance to the source."""
    high: float = bounded(0.7, 0, metadata=THRESHOLD)
    """Largest distance to the source."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise GenaugError(f"filter.low={self.low} is above filter.high={self.high}: nothing would be kept.")

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        if self.features != "lpips":
            return [1 - similarity for similarity in self.to_source(samples, dataset, store, device)]
        sources = {sample.id: sample for sample in dataset.train}
        return lpips_distances([(sources[sample.source_id], sample) for sample in samples], device=device)

    def keeps(self, score: float) -> bool:
        return self.low <= score <= self.high


def lpips_distances(pairs: Sequence[tuple[Sample, Sample]], device: str | None = None) -> list[float]:
    """LPIPS (AlexNet) of pairs of images at ``LPIPS_SIDE`` pixels; ``device`` None takes a GPU where there is one.

    Raises:
        GenaugError: if the network's weights cannot be had; no other distance takes its place unasked.
    """
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with boundary(
        "The weights of LPIPS (torchvision's AlexNet) cannot be had here",
        "In filter=lpips_band write filter.features=pixels or a timm backbone whose weights are here, and a band on that "
        "scale; genaug quality measures distances in its own features without --lpips.",
    ):
        network = LearnedPerceptualImagePatchSimilarity("alex", reduction="mean", normalize=True)

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)

    def tensor(samples: Sequence[Sample]) -> Any:
        pixels = (
            np.stack(
                [np.asarray(sample.open().resize((LPIPS_SIDE, LPIPS_SIDE)), dtype=np.float32) for sample in samples]
            )
            / 255
        )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)

    distances: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), BATCH):
            first, second = zip(*pairs[start : start + BATCH], strict=True)
            distances += network.net(tensor(first), tensor(second), normalize=True).flatten().tolist()
    return distances


@component("filter", "classifier")
@dataclass(kw_only=True, slots=True)
class ClassifierAgreement(FeatureFilter):
    """Keeps images whose label a linear probe of the real training images finds likely enough."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    min_margin: float = bounded(0.0, -1, 1, metadata=THRESHOLD)
    """Probability of the label minus that of the best other class, in [-1, 1]; 0 keeps what the probe would label so."""

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        from sklearn.linear_model import LogisticRegression

        labels = [sample.class_index for sample in dataset.train]
        if len(set(labels)) < 2:
            raise GenaugError("filter=classifier needs training images of at least two classes.")
        probe = LogisticRegression(max_iter=1000, C=10.0).fit(self.rows(dataset.train, store, device), labels)
        probabilities = probe.predict_proba(self.rows(samples, store, device))
        place = {int(label): i for i, label in enumerate(probe.classes_)}
        margins = []
        for sample, row in zip(samples, probabilities, strict=True):
            own = place.get(sample.class_index)
            others = np.delete(row, own) if own is not None else row
            margins.append(float((row[own] if own is not None else 0.0) - others.max()))
        return margins

    def keeps(self, score: float) -> bool:
        return score >= self.min_margin


@component("filter", "clip")
@dataclass(kw_only=True, slots=True)
class ClipMargin(Filter):
    """Keeps images that CLIP finds nearer to their own class's name than to any other's.

    The margin to the runner-up is scored, not the raw similarity, whose scale differs from class to class. It reads class
    names, so a data-centric comparison should say that it was used.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    path: str = field(default="openai/clip-vit-base-patch32", metadata=CONTENT)
    """Folder or Hub id of a CLIP model in transformers' layout."""
    template: str = "a photo of a {name}"
    """Text of a class; ``{name}`` is its name."""
    min_margin: float = bounded(0.0, -2, 2, metadata=THRESHOLD)
    """Cosine similarity to the own class minus that to the best other, in [-2, 2]."""

    def check(self, task: str) -> None:
        Filter.check(self, task)
        check_model("filter.path", self.path)

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        import torch
        from transformers import CLIPModel, CLIPProcessor

        with boundary(
            f"filter.path={self.path} cannot be loaded",
            "Write the folder of a CLIP model in transformers' layout, or filter=classifier, which needs no weights and reads "
            "no class name.",
        ):
            model, processor = CLIPModel.from_pretrained(self.path).eval(), CLIPProcessor.from_pretrained(self.path)
        model.to(device)  # type: ignore[arg-type]
        texts = [self.template.format(name=name) for name in dataset.class_names]
        margins = []
        with torch.inference_mode():
            for start in range(0, len(samples), BATCH):
                batch = samples[start : start + BATCH]
                inputs = processor(text=texts, images=[s.open() for s in batch], return_tensors="pt", padding=True)  # type: ignore[operator]
                found = model(**inputs.to(device))
                images = torch.nn.functional.normalize(found.image_embeds, dim=1)
                names = torch.nn.functional.normalize(found.text_embeds, dim=1)
                for sample, row in zip(batch, (images @ names.T).cpu().numpy(), strict=True):
                    margins.append(float(row[sample.class_index] - np.delete(row, sample.class_index).max()))
        return margins

    def keeps(self, score: float) -> bool:
        return score >= self.min_margin
