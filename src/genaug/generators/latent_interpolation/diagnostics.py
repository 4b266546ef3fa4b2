"""Diagnostics of the latent "hole": do the codes fill the prior, and do midpoints decode to plausible images?

Without the discriminator a path between two codes crosses regions that the decoder has never seen (Fig. 2 of the paper). A
uniform prior guarantees support along the path, not density: midpoints of uniform codes are triangular in each dimension,
and in high dimension they lie inside the shell on which the decoder was trained. Everything here is a function of codes
and images alone. Codes are divided by the prior's range first: the prior is uniform on [-1, 1].
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_PAIRS = 500  # of dimensions, for the mean share of empty cells
MAX_KS, STD_RANGE, EMPTY_FACTOR = 0.1, (0.52, 0.62), 3.0  # beyond these a latent space counts as having holes


def ks_uniform(z_nz: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of each dimension to the uniform distribution on [-1, 1]: [z]."""
    count = len(z_nz)
    cdf = (np.sort(z_nz, axis=0).clip(-1, 1) + 1) / 2
    rank = np.arange(1, count + 1)[:, None] / count
    return np.maximum((rank - cdf).max(axis=0), (cdf - rank + 1 / count).max(axis=0))


def ks_bound(count: int, z_dim: int) -> float:
    """What the largest of ``z_dim`` distances of truly uniform codes exceeds in at most 5 % of cases."""
    return math.sqrt(math.log(40 * z_dim) / (2 * count))


def max_correlation(z_nz: np.ndarray) -> float:
    """Largest absolute correlation between two dimensions; 0 for one dimension. Constant dimensions count as 0."""
    if z_nz.shape[1] < 2:
        return 0.0
    centred = z_nz - z_nz.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    correlation = centred.T @ centred / np.maximum(np.outer(scale, scale), 1e-12)
    return float(np.abs(correlation - np.diag(np.diag(correlation))).max())


def empty_cells(z_nz: np.ndarray, cells: int) -> float:
    """Share of empty cells in a ``cells`` x ``cells`` grid over [-1, 1]^2, mean over pairs of dimensions."""
    place = ((z_nz + 1) / 2 * cells).astype(int).clip(0, cells - 1)
    pairs = list(itertools.combinations(range(z_nz.shape[1]), 2))
    pairs = pairs[:: -(-len(pairs) // MAX_PAIRS)] if pairs else []
    shares = [1 - len(np.unique(place[:, a] * cells + place[:, b])) / cells**2 for a, b in pairs]
    return float(np.mean(shares)) if shares else 0.0


def expected_empty(count: int, cells: int) -> float:
    """Share of empty cells for ``count`` uniform points: (1 - 1/k^2)^N."""
    return (1 - 1 / cells**2) ** count


def grid_for(count: int) -> int:
    """Cells per side so that uniform points leave about 2 % of them empty."""
    return min(max(math.isqrt(count // 4), 2), 32)


def shell_share(z_nz: np.ndarray, partners: np.ndarray) -> float:
    """Share of midpoints whose squared norm lies below the prior's 1 % quantile (drawn, 100,000 samples)."""
    prior = np.random.default_rng(0).uniform(-1, 1, (100_000, z_nz.shape[1]))
    bound = np.quantile((prior**2).sum(axis=1), 0.01)
    return float(((((z_nz + z_nz[partners]) / 2) ** 2).sum(axis=1) < bound).mean())


def nearest_distance(queries: Tensor, references: Tensor) -> float:
    """Mean Euclidean distance of each query [n, …] to its nearest reference [m, …]."""
    return float(torch.cdist(queries.flatten(1), references.flatten(1)).min(dim=1).values.mean())


def partners_of(count: int, seed: int) -> np.ndarray:
    """A random cycle through all rows: everyone has another partner."""
    order = np.random.default_rng(seed).permutation(count)
    partners = np.empty(count, dtype=np.int64)
    partners[order] = np.roll(order, 1)
    return partners


def describe_codes(z_nz: np.ndarray) -> dict[str, float]:
    """Section "hole" of a fitted autoencoder's record: uniformity, correlation, coverage and shell of its codes."""
    count, z_dim = z_nz.shape
    cells, ks = grid_for(count), ks_uniform(z_nz)
    empty = empty_cells(z_nz, cells)
    return {
        "num_codes": count,
        "ks_mean": float(ks.mean()),
        "ks_max": float(ks.max()),
        "ks_bound": ks_bound(count, z_dim),
        "correlation_max": max_correlation(z_nz),
        "std": float(z_nz.std(axis=0).mean()),
        "saturated": float((np.abs(z_nz) > 0.95).mean()),
        "empty_cells": empty,
        "empty_cells_expected": expected_empty(count, cells),
        "coverage": 1 - empty,
        "midpoint_shell": shell_share(z_nz, partners_of(count, 0)),
    }


def has_holes(codes: dict[str, float]) -> bool:
    """Whether the codes are far from the uniform prior.

    KS above .1 (or above what so few uniform codes would show by chance), standard deviation outside [.52, .62], or more
    than three times the expected empty cells.
    """
    return (
        codes["ks_max"] > max(MAX_KS, codes["ks_bound"])
        or not STD_RANGE[0] <= codes["std"] <= STD_RANGE[1]
        or codes["empty_cells"] > EMPTY_FACTOR * codes["empty_cells_expected"]
    )


def describe_midpoints(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    queries: Tensor,
    references: Tensor,
) -> dict[str, float]:
    """Reconstruction error and midpoint gaps on images that are not among the references.

    ``gap``: mean distance to the nearest reference of decoded midpoints, minus that of reconstructions. ``gap_pixel``: of
    pixel midpoints, minus that of the images themselves. ``psnr_fitted``: of the references; far above ``psnr`` where the
    autoencoder has learned its images by heart.

    Args:
        queries, references: images [n, …] in [-1, 1] that were not fitted, and fitted ones [m, …].
    """
    partners = torch.from_numpy(partners_of(len(queries), 0))
    z = encode(queries)
    reconstructed, midpoints = decode(z), decode((z + z[partners]) / 2)
    error = float((reconstructed - queries).square().mean())
    error_fitted = float((decode(encode(references)) - references).square().mean())
    return {
        "reconstruction_mse": error,
        "psnr": 10 * math.log10(2**2 / max(error, 1e-12)),
        "psnr_fitted": 10 * math.log10(2**2 / max(error_fitted, 1e-12)),
        "gap": nearest_distance(midpoints, references) - nearest_distance(reconstructed, references),
        "gap_pixel": nearest_distance((queries + queries[partners]) / 2, references)
        - nearest_distance(queries, references),
    }


def draw_codes(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Scatter plots of two-dimensional codes side by side, with the straight path between the two most distant classes.

    Args:
        panels: (title, codes [n, 2] in units of the prior's range, class index [n]); classes only colour the points.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 4.5), layout="constrained")
    for axes, (title, z, classes) in zip(
        np.atleast_1d(np.asarray(figure.subplots(1, len(panels)))), panels, strict=True
    ):
        axes.scatter(z[:, 0], z[:, 1], c=classes, cmap="tab10", s=6, linewidths=0)
        ends = _most_distant(z, classes)
        axes.plot(ends[:, 0], ends[:, 1], "k-o", linewidth=1.5, markersize=4, markerfacecolor="white")
        axes.add_patch(_square())
        edges = (
            (-side, side) if (side := 1.05 * float(np.abs(z).max())) > 1.15 else (-1.15, 1.15)
        )  # codes are unbounded
        axes.set(title=title, xlabel="$z_1$", ylabel="$z_2$", aspect="equal", xlim=edges, ylim=edges)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _square() -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((-1, -1), 2, 2, fill=False, linestyle="--", edgecolor="grey")


def _most_distant(z: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The codes [2, 2] nearest to the means of the two classes that lie farthest apart."""
    means = np.stack([z[classes == c].mean(axis=0) for c in np.unique(classes)])
    distance = ((means[:, None] - means[None]) ** 2).sum(axis=2)
    a, b = np.unravel_index(distance.argmax(), distance.shape)
    return np.stack([z[((z - means[i]) ** 2).sum(axis=1).argmin()] for i in (a, b)])
