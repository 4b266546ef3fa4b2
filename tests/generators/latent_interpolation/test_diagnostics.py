"""Diagnostics of the latent space against closed forms for uniform codes."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from genaug.generators.latent_interpolation.diagnostics import (
    describe_codes,
    describe_midpoints,
    draw_codes,
    empty_cells,
    expected_empty,
    has_holes,
    ks_bound,
    ks_uniform,
    max_correlation,
    partners_of,
    shell_share,
)


def uniform_codes(count: int, z_dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, z_dim))


def test_distances_are_those_of_scipy():
    z = np.random.default_rng(0).normal(0, 0.5, (300, 3))
    expected = [kstest(column, "uniform", (-1, 2)).statistic for column in z.T]
    assert ks_uniform(z) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("lam, distance", [(0.5, 0.125), (0.3, 0.105), (0.1, 0.045)])
def test_distance_of_mixed_uniform_codes(lam, distance):
    u, v = uniform_codes(100_000, 1, 1), uniform_codes(100_000, 1, 2)
    # lambda (1 - lambda) / 2; the null mean at this size is .003
    assert ks_uniform(lam * u + (1 - lam) * v)[0] == pytest.approx(distance, abs=0.003)


def test_bound_of_the_largest_distance():
    assert ks_bound(5000, 50) == pytest.approx(0.0276, abs=1e-4)
    assert ks_uniform(uniform_codes(5000, 50)).max() < ks_bound(5000, 50)


def test_correlation():
    z = uniform_codes(5000, 4)
    assert max_correlation(z) < 0.06  # 95 % quantile of independent codes: .033
    z[:, 1] = z[:, 0]
    assert max_correlation(z) == pytest.approx(1)
    assert max_correlation(z[:, :1]) == 0


@pytest.mark.parametrize("count, cells, expected", [(1000, 16, 0.0200), (5000, 32, 0.0076)])
def test_empty_cells_of_uniform_codes(count, cells, expected):
    assert expected_empty(count, cells) == pytest.approx(expected, abs=1e-4)
    assert empty_cells(uniform_codes(count, 5), cells) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("z_dim, share, tolerance", [(50, 0.992, 0.004), (4, 0.085, 0.01)])
def test_midpoints_lie_inside_the_shell(z_dim, share, tolerance):
    z = uniform_codes(20_000, z_dim, seed=7)
    assert shell_share(z, partners_of(len(z), 0)) == pytest.approx(share, abs=tolerance)


def test_partners_are_one_cycle():
    partners, place, seen = partners_of(7, 0), 0, []
    for _ in range(7):
        seen.append(place)
        place = partners[place]
    assert place == 0 and sorted(seen) == list(range(7))


def test_uniform_codes_have_no_holes_and_narrow_ones_do():
    z = uniform_codes(309, 16)
    assert not has_holes(describe_codes(z))
    assert has_holes(describe_codes(z / 2))
    assert has_holes(describe_codes(np.repeat(z[:, :1], 16, axis=1)))


def test_gaps_of_a_perfect_autoencoder_in_one_dimension():
    references = torch.linspace(-1, 1, 201)[:, None]
    queries = references[::2]
    d = describe_midpoints(lambda x: x, lambda z: z, queries, references)
    # midpoints of points of a line lie on it, at most half a spacing away
    assert d["reconstruction_mse"] == 0 and 0 <= d["gap"] <= 0.005 and d["gap"] == d["gap_pixel"]


def test_the_picture_has_a_panel_per_latent_space(tmp_path):
    z, classes = uniform_codes(50, 2), np.arange(50) % 3
    draw_codes([("without", z / 3, classes), ("with", z, classes)], tmp_path / "codes.png")
    with Image.open(tmp_path / "codes.png") as picture:
        assert picture.width == pytest.approx(2 * picture.height, rel=0.01)
