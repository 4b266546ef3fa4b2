"""Interpolation of pairs: the loss identities, partners, weights, and one online step."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from torchvision.transforms.v2.functional import to_image

from genaug.core.errors import GenaugError
from genaug.generators.latent_interpolation.mixing import (
    Interpolation,
    draw_partners,
    midpoint_cdf,
    mix,
    mix_labels,
    mix_uniform,
)
from genaug.generators.latent_interpolation.sections import Mixing

LOGITS = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)


def loss(*weights: float) -> float:
    return F.cross_entropy(LOGITS, torch.tensor([weights], dtype=torch.float64)).item()


def online(encode=lambda x: x, decode=lambda z: z, lam: float | str = 0.3, **options) -> Interpolation:
    code_range = options.pop("code_range", None)
    mixing = Mixing(**{"lam": lam, "classes": "any", **options})
    return Interpolation(encode=encode, decode=decode, mixing=mixing, seed=1, image_size=4, code_range=code_range)


def batch(size: int = 6, classes: int = 3):
    images = torch.rand(size, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return images, F.one_hot(torch.arange(size) % classes, classes).float()


def test_two_losses_weighted_by_lambda_are_one_loss_with_weighted_labels():
    first, second = loss(1, 0, 0), loss(0, 0, 1)
    assert (first, second) == pytest.approx((0.169846, 3.169846), abs=1e-6)
    for lam, value in ((0.3, 2.269846), (0.5, 1.669846)):
        assert loss(lam, 0, 1 - lam) == pytest.approx(value, abs=1e-6)
        assert lam * first + (1 - lam) * second == pytest.approx(value, abs=1e-6)


def test_two_hot_is_exactly_twice_the_half_and_half_loss_and_ours_is_normalised():
    assert loss(1, 0, 1) == pytest.approx(3.339692, abs=1e-6)
    assert loss(1, 0, 1) == 2 * loss(0.5, 0, 0.5)
    assert mix_labels({0: 1.0}, {2: 1.0}, 0.5) == {0: 0.5, 2: 0.5}


def test_class_weights_sum_to_one_and_one_class_stays_single():
    assert mix_labels({1: 1.0}, {1: 1.0}, 0.3) == {1: 1.0}
    assert mix_labels({0: 0.4, 1: 0.6}, {1: 1.0}, 0.5) == pytest.approx({0: 0.2, 1: 0.8})
    assert mix_labels({0: 1.0}, {1: 1.0}, 1.0) == {0: 1.0}


def test_lambda_outside_its_range_and_images_of_two_sizes_are_refused():
    a = torch.zeros(2, 3, 4, 4)
    with pytest.raises(GenaugError, match="leaves \\[0, 1\\]"):
        mix(a, a, torch.tensor([0.5, 1.2]))
    with pytest.raises(GenaugError, match="sizes"):
        mix(a, torch.zeros(2, 3, 8, 8), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("lam", [0.5, 0.3, "uniform", "beta"])
def test_variance_of_mixed_uniform_codes(lam):
    rng = np.random.default_rng(0)
    u, v = torch.from_numpy(rng.uniform(-1, 1, (2, 100_000, 1)))
    weights = torch.from_numpy(Mixing(lam=lam, beta=2.0).weight(rng.random(100_000), 0))
    # (lambda^2 + (1-lambda)^2) / 3; its mean is 2/9 for uniform lambda and (a+1)/(3(2a+1)) for Beta(a, a)
    expected = {0.5: 1 / 6, 0.3: 0.58 / 3, "uniform": 2 / 9, "beta": 0.2}[lam]
    assert mix(u, v, weights).var().item() == pytest.approx(expected, abs=0.002)


def test_distribution_function_of_midpoints():
    s, lam = torch.tensor([0.5, 0.5, 0.0, -1.0, 1.0]), torch.tensor([0.5, 0.3, 0.3, 0.3, 0.3])
    assert midpoint_cdf(s.double(), lam.double()).tolist() == pytest.approx([0.875, 0.851190, 0.5, 0, 1], abs=1e-6)


@pytest.mark.parametrize("lam", [0.5, 0.3, 0.05])
def test_codes_mapped_back_are_uniform(lam):
    rng = np.random.default_rng(0)
    u, v = torch.from_numpy(rng.uniform(-1, 1, (2, 100_000, 1)))
    mixed = mix_uniform(u, v, torch.full((100_000,), lam, dtype=torch.float64))
    assert kstest(mixed[:, 0].numpy(), "uniform", (-1, 2)).statistic < 0.01  # chance: .004


def test_codes_of_a_wider_range_are_mapped_back_within_it():
    u, v, lam = *(2 * torch.rand(2, 50, 5) - 1), torch.full((50,), 0.3)
    torch.testing.assert_close(mix_uniform(3 * u, 3 * v, lam, code_range=3.0), 3 * mix_uniform(u, v, lam))


def test_codes_at_the_ends_stay_as_they_are():
    u, v = torch.rand(2, 3, 5)
    assert torch.equal(mix_uniform(u, v, torch.tensor([1.0, 0.0, 1.0])), torch.stack([u[0], v[1], u[2]]))


def test_grid_weights_are_equally_spaced():
    mixing = Mixing(lam="grid", num_interp=3)
    assert [float(mixing.weight(0.9, k)) for k in range(4)] == [0.25, 0.5, 0.75, 0.25]


def test_partners_are_a_permutation_of_the_batch():
    assert sorted(draw_partners(np.zeros(16, dtype=int), seed=3)) == list(range(16))


def test_a_derangement_has_no_fixed_point():
    for seed in range(50):
        partners = draw_partners(np.zeros(5, dtype=int), seed, pairing="derangement")
        assert (partners != np.arange(5)).all() and sorted(partners) == list(range(5))


def test_kinds_of_pairs():
    classes = np.arange(32) % 3
    for seed in range(20):
        inter = draw_partners(classes, seed, kinds="inter")
        intra = draw_partners(classes, seed, kinds="intra")
        assert (classes[inter] != classes).all() and (classes[intra] == classes).all()
        apart = draw_partners(classes, seed, pairing="derangement", kinds="intra")
        assert (classes[apart] == classes).all() and (apart != np.arange(32)).all()


def test_a_row_without_a_fitting_partner_is_paired_with_itself():
    assert draw_partners(np.zeros(4, dtype=int), 0, kinds="inter").tolist() == [0, 1, 2, 3]


def test_share_of_pairs_within_a_class():
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(200):
        classes = rng.integers(0, 10, 128)
        partners = draw_partners(classes, seed)
        shares.append((classes[partners] == classes).mean())
    # 1/B + (1 - 1/B)/C = .107; the binomial standard error over 25,600 rows is .0019
    assert np.mean(shares) == pytest.approx(0.107, abs=0.007)


def test_a_batch_of_one_has_no_pair():
    with pytest.raises(GenaugError, match="batch of one"):
        online()(*batch(1), step=0)


def test_without_an_autoencoder_it_is_mixup_bit_for_bit():
    images, weights = batch()
    interpolation = online(keep_real=False)
    partners, lam = interpolation.draw(weights.argmax(1).numpy(), step=5)
    mixed, labels = interpolation(images, weights, step=5)
    # torchvision's MixUp: second.mul_(1 - lambda).add_(first.mul(lambda))
    expected = images[partners].mul(1 - lam[0]).add(images.mul(lam[0]))
    assert torch.equal(mixed, to_image(expected)) and torch.equal(labels, 0.3 * weights + 0.7 * weights[partners])


def test_an_affine_autoencoder_mixes_its_reconstructions():
    torch.manual_seed(0)
    images, weights = batch()
    encoder, decoder = torch.nn.Linear(48, 7), torch.nn.Linear(7, 48)

    def encode(x):
        return encoder(x.flatten(1))

    def decode(z):
        return decoder(z).unflatten(1, (3, 4, 4))

    interpolation = online(encode, decode, keep_real=False, lam_per="sample", lam="uniform")
    partners, lam = interpolation.draw(weights.argmax(1).numpy(), step=2)
    mixed, _ = interpolation(images, weights, step=2)
    with torch.no_grad():
        r = decode(encode(images))
    share = torch.from_numpy(lam.copy()).float()[:, None, None, None]
    torch.testing.assert_close(mixed, share * r + (1 - share) * r[partners], atol=1e-6, rtol=0)
    assert len(set(lam.tolist())) == len(images)


def test_lambda_one_gives_reconstructions_with_their_own_labels():
    images, weights = batch()
    mixed, labels = online(decode=lambda z: z / 2, lam=1.0, keep_real=False)(images, weights, step=0)
    assert torch.equal(mixed, images / 2) and torch.equal(labels, weights)


def test_real_images_stay_behind_the_mixed_ones():
    images, weights = batch()
    mixed, labels = online(num_interp=2, lam="grid", keep_real=True)(images, weights, step=0)
    assert mixed.shape == (18, 3, 4, 4) and torch.equal(mixed[12:], images) and torch.equal(labels[12:], weights)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(18))


def test_a_grid_lies_on_one_line_between_the_same_images():
    interpolation = online(num_interp=3, lam="grid")
    classes = np.arange(6)
    draws = [interpolation.draw(classes, step=4, k=k) for k in range(3)]
    assert all((partners == draws[0][0]).all() for partners, _ in draws)
    assert [lam[0] for _, lam in draws] == [0.25, 0.5, 0.75]


def test_a_step_repeats_itself_and_differs_from_the_next():
    images, weights = batch()
    first, again, other = (online(lam="uniform")(images, weights, step)[0] for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    classes, one = np.arange(6), online()
    draws = [tuple(one.draw(classes, step, k)[0]) for step in range(5) for k in range(2)]
    assert len(set(draws)) == 10  # other partners at each step and in each of its interpolations
    lams = [online(lam="uniform").draw(classes, step, k)[1][0] for step in range(5) for k in range(2)]
    assert len(set(lams)) == 10
    same = online(lam="uniform").draw(classes, 3)[1]
    each = online(lam="uniform", lam_per="sample").draw(classes, 3)[1]
    assert len(set(same)) == 1 and len(set(each)) == 6


def test_images_of_another_size_than_the_autoencoder_are_refused():
    with pytest.raises(GenaugError, match=r"4 px.*8x8.*downstream.image_size"):
        online()(torch.rand(2, 3, 8, 8), torch.eye(2), step=0)
