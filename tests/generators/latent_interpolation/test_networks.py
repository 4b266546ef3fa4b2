"""The adversarial autoencoder: losses, players, shapes, and the traps of the public code nearest to the paper."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genaug.core.errors import GenaugError
from genaug.core.files import PARTIAL
from genaug.data.sample import Sample
from genaug.data.sources.digits import Digits
from genaug.generators.latent_interpolation import networks
from genaug.generators.latent_interpolation.networks import (
    AdversarialAutoencoder,
    Critic,
    Decoder,
    Encoder,
    LatentDiscriminator,
    adversarial_loss,
    collapsed,
    critic_loss,
    discriminator_loss,
    draw_prior,
    num_halvings,
    reconstruction_loss,
)
from genaug.generators.latent_interpolation.sections import Networks, Training
from genaug.generators.latent_interpolation.training import WEIGHTS, Batches, fit_autoencoder


def players(
    seed: int = 0, critic: bool = False, norm: str = "none", code: str = "tanh", **training
) -> AdversarialAutoencoder:
    torch.manual_seed(seed)
    return AdversarialAutoencoder(
        encoder=Encoder(16, 4, 4, 1.0 if code == "tanh" else None),
        decoder=Decoder(16, 4, 8),
        discriminator=LatentDiscriminator(4, (16, 8), norm),
        critic=Critic(16, 4, 4) if critic else None,
        networks=Networks(code=code),
        training=Training(**{"lr": 1e-3, "seed": 0, "warmup": 0.0, **training}),
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_losses_at_zero_logits():
    zero = torch.zeros(8)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert adversarial_loss(zero).item() == pytest.approx(math.log(2), abs=1e-6)
    assert adversarial_loss(zero, "minimax").item() == pytest.approx(-math.log(2), abs=1e-6)


def test_a_discriminator_that_tells_codes_from_draws_of_the_prior_loses_nothing():
    sure = torch.full((8,), 20.0)
    assert discriminator_loss(sure, -sure).item() < 1e-6
    assert discriminator_loss(sure, sure).item() == discriminator_loss(-sure, -sure).item() == pytest.approx(20)


def test_each_step_draws_from_the_prior_anew(monkeypatch):
    seeds = []
    real = networks.draw_prior
    monkeypatch.setattr(networks, "draw_prior", lambda *args, seed: seeds.append(seed) or real(*args, seed=seed))
    aae = players()
    for step in (0, 1, 1):
        aae.play(step, torch.rand(8, 3, 16, 16), aae.configure_optimizers(), lambda loss: loss.backward())
    assert seeds[0] != seeds[1] == seeds[2]


def test_both_adversarial_losses_push_the_codes_towards_the_prior():
    for kind in ("nonsaturating", "minimax"):
        logits = torch.zeros(3, requires_grad=True)
        adversarial_loss(logits, kind).backward()
        assert (logits.grad < 0).all()


def test_a_sum_of_squares_is_the_mean_with_a_rescaled_adversarial_weight():
    torch.manual_seed(0)
    aae = players()
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    gradients = []
    for scale in (1.0, 3.0 * 16 * 16):
        z = aae.encoder(x)
        mean = reconstruction_loss(x, aae.decoder(z))
        loss = scale * mean + scale * 0.1 * adversarial_loss(aae.discriminator(z))
        gradient = torch.autograd.grad(loss, list(aae.encoder.parameters()))
        gradients.append(torch.cat([g.flatten() for g in gradient]))
    # one direction, so only the learning rate of a plain gradient step differs
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("lambda_adv, reaches", [(0.0, False), (0.1, True)])
def test_the_adversarial_term_reaches_the_encoder_if_and_only_if_it_has_a_weight(lambda_adv, reaches):
    aae = players()
    x = torch.rand(8, 3, 16, 16)
    loss = lambda_adv * adversarial_loss(aae.discriminator(aae.encoder(x)))
    gradient = torch.autograd.grad(loss, list(aae.encoder.parameters()))
    assert (sum(g.abs().sum() for g in gradient) > 0) == reaches


def test_each_optimiser_moves_only_its_own_player():
    aae = players(critic=True)
    optimizers = aae.configure_optimizers()
    owned = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in optimizers]
    assert owned == [{id(p) for p in player.parameters()} for player in aae.players()]
    moved: list[set[int]] = []

    def watch(optimizer: torch.optim.Optimizer) -> None:
        step = optimizer.step

        def watched(*args, **kwargs):
            before = {id(p): p.detach().clone() for p in aae.parameters()}
            step(*args, **kwargs)
            moved.append({id(p) for p in aae.parameters() if not torch.equal(p, before[id(p)])})

        optimizer.step = watched

    for optimizer in optimizers:
        watch(optimizer)
    aae.play(0, torch.rand(8, 3, 16, 16) * 2 - 1, optimizers, lambda loss: loss.backward())
    discriminator, encoder, decoder, critic = moved
    assert encoder and encoder <= owned[0]
    assert decoder and decoder <= owned[1]
    assert discriminator and discriminator <= owned[2]
    assert critic and critic <= owned[3]
    assert all(p.requires_grad for p in aae.parameters())


def test_without_adversarial_weight_the_discriminator_is_not_trained():
    aae = players(lambda_adv=0.0)
    before = [p.clone() for p in aae.discriminator.parameters()]
    aae.play(0, torch.rand(8, 3, 16, 16), aae.configure_optimizers(), lambda loss: loss.backward())
    assert all(torch.equal(a, b) for a, b in zip(before, aae.discriminator.parameters(), strict=True))


def test_the_adversarial_weight_rises_linearly():
    training = Training(lambda_adv=0.1, warmup=0.5, num_steps=8)
    assert [training.adversarial_weight(step) for step in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


@pytest.mark.parametrize("prior, std", [("uniform", 2 / math.sqrt(3)), ("gaussian", 2.0)])
def test_prior_draws_have_their_range_and_repeat_by_seed(prior, std):
    networks = Networks(prior=prior, prior_range=2.0, code="linear")
    u = draw_prior(networks, 20_000, 2, seed=5)
    assert u.std().item() == pytest.approx(std, rel=0.02)  # 4 standard errors of 40,000 draws
    assert prior == "gaussian" or u.abs().max() <= 2
    assert torch.equal(u, draw_prior(networks, 20_000, 2, seed=5))


@pytest.mark.parametrize("size, depth, side", [(32, 3, 4), (64, 4, 4), (128, 5, 4), (224, 5, 7)])
def test_depth_and_map_size(size, depth, side):
    assert num_halvings(size) == depth
    encoder, decoder = Encoder(size, 3, 1, 1.0), Decoder(size, 3, 2 ** (depth + 1))
    z = encoder(torch.rand(2, 3, size, size))
    assert encoder.linear.in_features == 2 ** (depth - 1) * side**2 and z.shape == (2, 3)
    x = decoder(z)
    assert x.shape == (2, 3, size, size) and x.abs().max() <= 1 and z.abs().max() <= 1


@pytest.mark.parametrize(
    "size, z_dim, channels, decoder_channels, encoder_size, decoder_size",
    # computed from the layers: 25 a b + b per convolution, rounded as in the method's table
    [(32, 50, 64, 512, 1.2, 4.8), (32, 16, 16, 128, 0.08, 0.31), (128, 50, 64, 1024, 18.2, 18.3)],
)
def test_parameter_counts(size, z_dim, channels, decoder_channels, encoder_size, decoder_size):
    digits = 2 if encoder_size < 1 else 1
    with torch.device("meta"):
        encoder, decoder = Encoder(size, z_dim, channels, 1.0), Decoder(size, z_dim, decoder_channels)
    assert round(count(encoder) / 1e6, digits) == encoder_size
    assert round(count(decoder) / 1e6, digits) == decoder_size


@pytest.mark.parametrize("norm, blind", [("separate_bn", True), ("none", False), ("layer", False)])
def test_only_separate_batch_statistics_blind_the_discriminator_to_shift_and_scale(norm, blind):
    torch.manual_seed(1)
    discriminator = LatentDiscriminator(8, (64, 32, 16), norm)
    z = torch.rand(512, 8) * 2 - 1
    with torch.no_grad():
        logits, moved = discriminator(z), discriminator(0.5 * z + 0.1)
        # the discriminator is untrained, so "sees" means: by more than 1e-2 of its own spread
        difference = ((logits - moved).abs().max() / logits.std()).item()
    assert (difference < 1e-2) == blind


def test_joint_batch_statistics_see_the_shift_of_the_codes():
    torch.manual_seed(1)
    discriminator = LatentDiscriminator(8, (64, 32, 16), "joint_bn")
    u, z = torch.rand(512, 8) * 2 - 1, torch.rand(512, 8) * 2 - 1
    with torch.no_grad():
        before, after = (discriminator.logits(u, code)[1] for code in (z, 0.5 * z + 0.1))
    assert (before - after).abs().max() > 0.1 * before.std()


def test_acai_losses_with_a_constant_critic():
    alpha = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) / 2
    zero, quarter = torch.zeros_like(alpha), torch.full_like(alpha, 0.25)
    # E alpha^2 = 1/12 and E (alpha - 1/4)^2 = 1/48 for alpha uniform on [0, 1/2]; 5 standard errors of the mean
    assert critic_loss(zero, alpha, zero).item() == pytest.approx(1 / 12, abs=8e-4)
    assert critic_loss(quarter, alpha, zero).item() == pytest.approx(1 / 48, abs=3e-4)
    assert critic_loss(quarter, alpha, quarter).item() == pytest.approx(1 / 48 + 1 / 16, abs=3e-4)


def digit_batches(max_shift: int = 0) -> Batches:
    dataset = Digits(name="digits", image_size=16, shots=2, seed=0).load()
    return Batches(dataset.train, 16, 8, seed=3, max_shift=max_shift, flip_prob=0.5)


def test_batches_are_functions_of_the_step():
    whole, rest = digit_batches(2).between(0, 6), digit_batches(2).between(4, 6)
    for a, b in zip((whole[4], whole[5]), (rest[0], rest[1]), strict=True):
        assert a[0] == b[0] and torch.equal(a[1], b[1])
    assert not torch.equal(whole[0][1], whole[1][1])


class Interrupted(Exception):
    """The power goes off."""


def test_batches_follow_from_their_seed_and_images_are_shifted_along_both_axes_apart():
    rows, columns = np.mgrid[0:16, 0:16].astype(np.uint8)
    pixels = np.stack([rows, columns, np.zeros_like(rows)], axis=2)
    samples = [Sample(id=str(i), digest=str(i), image=pixels + np.uint8([0, 0, i]), label={0: 1.0}) for i in range(8)]
    one, other = (
        [((image[:, 8, 8] + 1) * 127.5).round().tolist() for image in Batches(samples, 16, 8, seed, max_shift=2)[0][1]]
        for seed in (0, 1)
    )  # row, column and number of the pixel that has come to the middle of each image
    assert [number for *_, number in one] != [number for *_, number in other]
    assert sorted(number for *_, number in one) == list(range(8))
    assert any(row != column for row, column, _ in one) and {row for row, *_ in one} <= {6, 7, 8, 9, 10}


def test_a_resumed_fit_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    def fit(folder, stop_at=None, every=4):
        folder.mkdir(exist_ok=True)
        aae = players(critic=True)
        if stop_at is not None:
            play = aae.play

            def failing(step, *args):
                if step == stop_at:
                    raise Interrupted
                return play(step, *args)

            aae.play = failing
        fit_autoencoder(aae, digit_batches(), 10, folder, checkpoint_every=every, device="cpu", say=lambda text: None)
        return aae

    whole = fit(tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", stop_at=6)
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").exists()
    (tmp_path / "cut" / "checkpoints" / f".last.ckpt.host-1-2-3{PARTIAL}").touch()  # the end of a later attempt
    resumed = fit(tmp_path / "cut", every=3)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "cut" / WEIGHTS).read_bytes()
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole.history]
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.mark.parametrize(
    "code, hint", [("tanh", r"lr, or write generator\.networks\.code=linear"), ("linear", r"lr\.$")]
)
def test_codes_that_say_nothing_of_their_images_stop_the_fit_with_a_hint(tmp_path, code, hint):
    aae = players(code=code)
    aae.check_collapse_after = 1
    with torch.no_grad():
        aae.encoder.linear.weight.zero_()
        aae.encoder.linear.bias.fill_(10.0)
    with pytest.raises(GenaugError, match=rf"collapsed after 1 steps: 100%.*Lower generator\.training\.{hint}"):
        fit_autoencoder(aae, digit_batches(), 4, tmp_path, device="cpu", say=lambda text: None)


def test_an_encoder_comes_back_from_codes_beyond_the_range_of_the_prior_unless_they_pass_a_tanh():
    found = {}
    for code in ("tanh", "linear"):
        aae = players(code=code, lr=3e-3)
        with torch.no_grad():
            aae.encoder.linear.bias.fill_(10.0)
        optimizers, batches = aae.configure_optimizers(), digit_batches()
        for step in range(240):
            losses = aae.play(step, batches.between(step, step + 1)[0][1], optimizers, lambda loss: loss.backward())
        found[code] = collapsed(aae.networks, losses)
    assert found == {"tanh": True, "linear": False}


def test_relative_errors_are_those_of_images_of_full_contrast():
    torch.manual_seed(0)
    x, found = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    faint = [reconstruction_loss(0.1 * x, 0.1 * found, kind) for kind in ("relative", "mse")]
    full = [reconstruction_loss(x, found, kind) for kind in ("relative", "mse")]
    assert faint[0].item() == pytest.approx(full[0].item(), rel=1e-4) and faint[1].item() < 0.02 * full[1].item()
    assert reconstruction_loss(x, x.mean(dim=0).expand_as(x), "relative").item() == pytest.approx(1, rel=1e-5)
    assert torch.isfinite(reconstruction_loss(torch.ones(2, 3, 8, 8), found[:2], "relative"))


def test_an_output_that_has_gone_beyond_black_comes_back_unless_it_is_a_tanh():
    gradients = []
    for output in ("tanh", "leaky_tanh"):
        torch.manual_seed(0)
        decoder = Decoder(16, 4, 8, output=output)
        with torch.no_grad():
            decoder.convolutions[-2].bias.fill_(-20.0)
        (decoder(torch.randn(3, 4)) - 0.5).square().mean().backward()
        gradients.append(float(decoder.convolutions[-2].bias.grad.abs().max()))
        assert decoder.eval()(torch.randn(3, 4)).min() >= -1
    assert gradients[0] < 1e-6 < gradients[1]


@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_what_comes_before_silent_units_is_still_learned_if_and_only_if_they_leak(leak):
    torch.manual_seed(0)
    decoder = Decoder(16, 4, 8, leak)
    with torch.no_grad():
        decoder.convolutions[-4].bias.fill_(-10.0)  # of the last but one convolution
    decoder(torch.randn(3, 4)).square().mean().backward()
    assert (decoder.linear.weight.grad.abs().max() > 0) == (leak > 0)


def test_a_damaged_checkpoint_is_named_and_counts_as_absent(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"not a checkpoint")
    said: list[str] = []
    fit_autoencoder(players(), digit_batches(), 4, tmp_path, device="cpu", say=said.append)
    assert "last.ckpt cannot be read" in said[0] and (tmp_path / WEIGHTS).exists()
