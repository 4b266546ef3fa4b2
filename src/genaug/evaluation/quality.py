"""Fidelity, diversity and utility of a pool, from features of a chosen backbone.

KID (Binkowski et al., 2018), FID (Heusel et al., 2017), precision and recall (Kynkaanniemi et al., 2019), density and coverage
(Naeem et al., 2020), edit distance and diversity as cosine distances in the same features, and a linear probe trained on
synthetic images alone and scored on real ones.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from genaug.core.seeding import derive
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample
from genaug.evaluation.features import features_of, normalised
from genaug.evaluation.filters import lpips_distances
from genaug.evaluation.statistics import ENDS, Interval

NUM_NEIGHBOURS = 5  # k of precision, recall, density and coverage
NUM_RESAMPLES = 1000  # of KID's interval


def kid(
    real_nd: np.ndarray, fake_nd: np.ndarray, num_resamples: int = NUM_RESAMPLES, chunk: int = 1024
) -> tuple[float, Interval]:
    """Unbiased squared MMD with the cubic kernel (x.y / d + 1)^3 over all pairs, and its bootstrap interval over the images.

    A resample weighs every image by how often it was drawn; an image is never paired with its own copies, whose likeness
    says nothing of the distribution. (The published code averages over random subsets: the same expectation, but its subsets of
    a small set are all alike, and so is their spread.)

    Args:
        num_resamples: of the bootstrap.
        chunk: rows of the kernel that are in memory at once.
    """
    rng = np.random.default_rng(derive("kid"))
    weights = []
    for rows in (real_nd, fake_nd):
        draws = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=num_resamples)
        weights.append(np.vstack([np.ones(len(rows)), draws]))  # the first is the sample itself
    real, fake = weights
    within = _mean_kernel(real_nd, real_nd, real, real, chunk) + _mean_kernel(fake_nd, fake_nd, fake, fake, chunk)
    estimates = within - 2 * _mean_kernel(real_nd, fake_nd, real, fake, chunk)
    low, high = np.nanquantile(estimates[1:], ENDS)
    return float(estimates[0]), Interval(low=float(low), high=float(high))


def _mean_kernel(
    x_nd: np.ndarray, y_md: np.ndarray, x_weights_bn: np.ndarray, y_weights_bm: np.ndarray, chunk: int
) -> np.ndarray:
    """Mean of the kernel over pairs for each row of weights, without the pairs of an image with itself: float64 [b]."""
    same, total = x_nd is y_md, np.zeros(len(x_weights_bn))
    y = y_md.astype(np.float64)
    for first in range(0, len(x_nd), chunk):
        rows = slice(first, first + chunk)
        kernel = x_nd[rows].astype(np.float64) @ y.T / y.shape[1] + 1
        kernel = kernel * kernel * kernel
        if same:
            kernel[np.arange(len(kernel)), np.arange(first, first + len(kernel))] = 0
        total += ((y_weights_bm @ kernel.T) * x_weights_bn[:, rows]).sum(axis=1)
    pairs = x_weights_bn.sum(axis=1) * y_weights_bm.sum(axis=1)
    if same:
        pairs -= (x_weights_bn * y_weights_bm).sum(axis=1)
    return np.divide(
        total, pairs, out=np.full_like(total, np.nan), where=pairs > 0
    )  # one image drawn n times has no pair


def fid(real_nd: np.ndarray, fake_nd: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to the features. Biased upwards for few images."""
    means = real_nd.mean(axis=0) - fake_nd.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False)) for x in (real_nd, fake_nd))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # the trace of sqrt(C1 C2) is that of sqrt(C1^1/2 C2 C1^1/2), which is symmetric
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(max(means @ means + np.trace(first) + np.trace(second) - 2 * cross, 0.0))


def precision_recall_density_coverage(
    real_nd: np.ndarray, fake_nd: np.ndarray, nearest_k: int = NUM_NEIGHBOURS, chunk: int = 1024
) -> dict[str, float]:
    """The four manifold measures, in pieces of ``chunk`` rows."""
    real_radius = _radii(real_nd, nearest_k, chunk)
    fake_radius = _radii(fake_nd, nearest_k, chunk)
    inside_real = np.zeros(len(fake_nd))  # number of real balls around each fake
    covered_real = np.zeros(len(real_nd), dtype=bool)
    recalled = np.zeros(len(real_nd), dtype=bool)
    for first in range(0, len(real_nd), chunk):
        rows = slice(first, first + chunk)
        distance = _distances(real_nd[rows], fake_nd)
        within = distance < real_radius[rows, None]
        inside_real += within.sum(axis=0)
        covered_real[rows] = distance.min(axis=1) < real_radius[rows]
        recalled[rows] = (distance < fake_radius[None, :]).any(axis=1)
    return {
        "precision": float((inside_real > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside_real.mean() / nearest_k),
        "coverage": float(covered_real.mean()),
    }


def _distances(a_nd: np.ndarray, b_md: np.ndarray) -> np.ndarray:
    a, b = a_nd.astype(np.float64), b_md.astype(np.float64)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def _radii(x_nd: np.ndarray, nearest_k: int, chunk: int) -> np.ndarray:
    """Distance of each row to its k-th neighbour, itself not counted."""
    pieces = [_distances(x_nd[i : i + chunk], x_nd) for i in range(0, len(x_nd), chunk)]
    return np.concatenate([np.partition(piece, nearest_k, axis=1)[:, nearest_k] for piece in pieces])


def edit_distances(pool: Pool, sources: dict[str, np.ndarray], fake_nd: np.ndarray) -> tuple[list[float], list[float]]:
    """Cosine distance of each variant to its source, and of the variants of one source among themselves."""
    rows = normalised(fake_nd)
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(pool.samples):
        groups.setdefault(sample.source_id, []).append(i)
    to_source = [
        1 - float(rows[i] @ sources[sample.source_id])
        for i, sample in enumerate(pool.samples)
        if sample.source_id in sources
    ]
    within = []
    for members in groups.values():
        similarity = rows[members] @ rows[members].T
        within += (1 - similarity[np.triu_indices(len(members), k=1)]).tolist()
    return to_source, within


def linear_probe(train_nd: np.ndarray, train_labels: Sequence[int], test_nd: np.ndarray) -> np.ndarray:
    """Class of each test row by logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = train_nd.mean(axis=0), np.maximum(train_nd.std(axis=0), 1e-6)
    probe = LogisticRegression(max_iter=500).fit((train_nd - mean) / scale, np.asarray(train_labels))
    return probe.predict((test_nd - mean) / scale)


def macro_accuracy(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean over the classes present in ``target`` of the share that was hit."""
    return float(np.mean([(predicted[target == c] == c).mean() for c in np.unique(target)]))


def lpips_measures(pool: Pool, dataset: Dataset) -> dict[str, list[float]]:
    """LPIPS of each variant to its source, and of neighbouring variants of one source.

    Raises:
        GenaugError: if the weights cannot be had.
    """
    sources = {sample.id: sample for sample in dataset.train}
    groups = pool.by_source()
    found = {
        "LPIPS to source": [(sources[s.source_id], s) for s in pool.samples if s.source_id in sources],
        "LPIPS within source": [pair for members in groups.values() for pair in itertools.pairwise(members)],
    }
    return {name: lpips_distances(pairs) for name, pairs in found.items() if pairs}


def measure(pool: Pool, dataset: Dataset, store: Store, backbone: str, lpips: bool = False) -> dict[str, Any]:
    """Every measure that this pool and its data allow, as ``{"value", "low", "high"}`` by name.

    Without ``lpips``, which needs AlexNet's weights, distances are cosine distances of the features and named so.

    Real images are those of the validation split where the measure compares distributions (the generator has seen the training
    images), training images where it compares with the source. Without a validation split they are test images, and
    ``real_split`` says so: nothing may then be selected by these measures.
    """
    held_out = dataset.val or dataset.test
    real = features_of(held_out, backbone, store.root)
    fake = features_of(pool.samples, backbone, store.root)
    source_rows = normalised(features_of(dataset.train, backbone, store.root))
    sources = {sample.id: row for sample, row in zip(dataset.train, source_rows, strict=True)}
    measures: dict[str, dict[str, float]] = {}
    if min(len(real), len(fake)) > NUM_NEIGHBOURS:
        distance, interval = kid(real, fake)
        measures["kid"] = {"value": distance, "low": interval.low, "high": interval.high}
        measures["fid"] = {"value": fid(real, fake)}
        measures |= {k: {"value": v} for k, v in precision_recall_density_coverage(real, fake).items()}
    to_source, within = edit_distances(pool, sources, fake)
    distances = {"distance to source": to_source, "distance within source": within}
    if lpips:
        distances |= lpips_measures(pool, dataset)
    for name, values in distances.items():
        if values:
            low, high = np.quantile(values, [0.05, 0.95])
            measures[name] = {"value": float(np.mean(values)), "low": float(low), "high": float(high)}
    measures |= _with_labels(pool.samples, fake, held_out, real)
    return {
        "features": backbone,
        "num_synthetic": len(fake),
        "num_real": len(real),
        "real_split": "val" if dataset.val else "test",
        "measures": measures,
    }


def _with_labels(
    samples: Sequence[SyntheticSample], fake: np.ndarray, held_out: Sequence[Sample], real: np.ndarray
) -> dict[str, dict[str, float]]:
    """Train on synthetic, test on real; and whether a probe of other real images agrees with the synthetic labels."""
    if not samples or not samples[0].label or not held_out:
        return {}
    synthetic = np.asarray([sample.class_index for sample in samples])
    target = np.asarray([sample.class_index for sample in held_out])
    found = {}
    if len(np.unique(synthetic)) > 1:
        found["synthetic to real"] = {"value": macro_accuracy(linear_probe(fake, synthetic.tolist(), real), target)}
    if len(np.unique(target)) > 1:
        found["label agreement"] = {"value": float((linear_probe(real, target.tolist(), fake) == synthetic).mean())}
    return found
