"""The loop against the golden numbers of the method card: a closed-form stub network in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from genaug.generators.base import steps_taken
from genaug.generators.dreamda.process import (
    Guided,
    Perturbation,
    invert_cycle,
    invert_ddim,
    invert_edit_friendly,
    make_steps,
    no_inversion,
    noised,
    reverse,
)

SHAPE = (1, 4, 4, 4)
GOLDEN = 1e-8  # the numbers are given with eight decimals
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)
NULL, TARGET = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)


def wave(shape, amplitude, frequency, phase):
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (amplitude * torch.sin(frequency * k + phase)).view(*shape)


def stub(x, t, cond, perturb):
    """tanh(.6 z + .2 roll(z) + .3 nearest_up2(h + dh) + .1 c) (.5 + .5 t / 1000), h = 2x2 average pooling."""
    h = F.avg_pool2d(x, 2)
    if perturb is not None:
        h = perturb(h)
    inner = 0.6 * x + 0.2 * x.roll(1, dims=-1) + 0.3 * F.interpolate(h, scale_factor=2, mode="nearest") + 0.1 * cond
    return torch.tanh(inner) * (0.5 + 0.5 * t / 1000)


X0 = wave(SHAPE, 1, 0.71, 0.3)
START = wave(SHAPE, 1.2, 0.53, 1.1)


def posterior(k):
    return wave(SHAPE, 1, 0.37 + 0.01 * k, 0.5 * k)


def xi(k, row, shape):
    return wave((1, *shape), 1, 0.9 + 0.1 * k, row + 0.2 * k)


def run(sigma=0.0, num_steps=10, t0=0.8, cond=TARGET, keep=None, source=None, **choices):
    """The final latent of one variant, after ``keep`` steps or all of them."""
    steps = make_steps(ALPHAS, num_steps, t0, eta=1.0)
    inversion = invert_cycle(steps, X0, START, posterior, source or Guided(stub, NULL))
    target = Guided(stub, NULL, cond, guidance=7.5)
    return reverse(steps[:keep], inversion, target, Perturbation(sigma=sigma, noise=xi, **choices))


@pytest.mark.parametrize(
    ("sigma", "choices", "first", "norm", "total", "four"),
    [
        (
            0.0,
            {},
            (6.10776153, -15.11111626),
            8.73323881,
            -54.56900350,
            [-0.67309404, 0.06841172, 0.13222521, -0.44584870],
        ),
        (
            0.5,
            {},
            (6.54389386, -16.87525877),
            9.91394842,
            -58.29960042,
            [-1.55626639, -0.64164922, 0.69681545, 0.06681130],
        ),
        (
            3.0,
            {},
            (15.24320186, -25.69410584),
            27.73055450,
            -84.52533744,
            [-4.07353452, -2.22516569, 2.71898306, 1.46677017],
        ),
        (
            0.5,
            {"shared_rows": True},
            (6.15489992, -14.65202770),
            8.87534243,
            -54.91905504,
            [-0.73574441, 0.04830358, 0.14289953, -0.47918600],
        ),
        (
            0.5,
            {"asymmetric": True},
            (7.63760321, -18.43389386),
            11.96057286,
            -61.98179535,
            [-2.24029897, -1.24254891, 1.07708243, 0.30464191],
        ),
    ],
)
def test_the_loop_reproduces_the_golden_table(sigma, choices, first, norm, total, four):
    one, final = run(sigma, keep=1, **choices), run(sigma, **choices)
    measured = [one.norm(), one.sum(), final.norm(), final.sum(), *final.flatten()[:4]]
    assert [float(value) for value in measured] == pytest.approx([*first, norm, total, *four], abs=GOLDEN)


def test_a_hundred_steps_reproduce_the_golden_numbers():
    final = run(num_steps=100)
    assert (float(final.norm()), float(final.sum())) == pytest.approx((8.46314467, -53.03786395), abs=GOLDEN)


def test_the_first_perturbed_step_differs_between_the_processes_by_one_factor():
    clean = run(0.0, keep=1)
    ratio = (run(0.5, keep=1, asymmetric=True) - clean) / (run(0.5, keep=1) - clean)
    assert torch.allclose(ratio, torch.full_like(ratio, 1.88350860), atol=GOLDEN, rtol=0)


def test_without_noise_both_processes_are_equal():
    assert torch.equal(run(0.0), run(0.0, asymmetric=True))


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("cond", [None, NULL])
def test_equal_prompts_and_no_noise_give_the_source_back(cond, asymmetric):
    assert (run(0.0, cond=cond, asymmetric=asymmetric) - X0).abs().max() < 1e-12


def test_the_step_agrees_with_diffusers_ddim_with_variance_noise():
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(10)
    for step in make_steps(ALPHAS, 10, 0.8, eta=0.7):
        e, noise = stub(START, step.t, TARGET, None), posterior(3)
        theirs = scheduler.step(e, step.t, START, eta=0.7, variance_noise=noise).prev_sample
        # diffusers keeps its schedule in float32
        assert torch.allclose(step.mean(START, e) + step.s * noise, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("t", "symmetric", "asymmetric", "deterministic"),
    [
        (791, -0.0876, -1.0228, -0.0448),
        (591, -0.0642, -0.9383, -0.0327),
        (391, -0.0486, -0.7628, -0.0247),
        (191, -0.0405, -0.4869, -0.0207),
        (51, -0.0487, -0.2236, -0.0258),
        (11, -0.0862, -0.1027, -0.0615),
        (1, -0.0207, -0.0413, -0.0121),
    ],
)
def test_the_weight_of_a_changed_estimate_follows_the_coefficient_table(t, symmetric, asymmetric, deterministic):
    by_t = [{step.t: step for step in make_steps(ALPHAS, 100, 0.8, eta)}[t] for eta in (1.0, 0.0)]
    measured = [by_t[0].symmetric_gain, by_t[0].asymmetric_gain, by_t[1].symmetric_gain]
    assert measured == pytest.approx([symmetric, asymmetric, deterministic], abs=1e-4)


def test_the_asymmetric_process_is_thirteen_times_stronger_over_all_steps():
    steps = make_steps(ALPHAS, 100, 0.8, eta=1.0)
    variance = {"symmetric": 0.0, "asymmetric": 0.0}
    for step in steps:  # x_p = (dx_p/dx_t) x_t + gain * unit change, no feedback through the network
        carry = math.sqrt(step.a_p / step.a_t)
        variance["symmetric"] = carry**2 * variance["symmetric"] + step.symmetric_gain**2
        variance["asymmetric"] = carry**2 * variance["asymmetric"] + step.asymmetric_gain**2
    symmetric, asymmetric = (math.sqrt(variance[key]) for key in ("symmetric", "asymmetric"))
    assert (symmetric, asymmetric, asymmetric / symmetric) == pytest.approx((1.367, 17.75, 12.98), rel=1e-3)


@pytest.mark.parametrize(
    ("num_steps", "t0", "count", "first", "amplitude"),
    [
        (100, 0.8, 80, 791, 0.1997),
        (50, 0.8, 40, 781, 0.2085),
        (25, 0.8, 20, 761, 0.2266),
        (10, 0.8, 8, 701, 0.2862),
        (50, 0.5, 25, 481, 0.5498),
    ],
)
def test_strength_decides_the_timesteps(num_steps, t0, count, first, amplitude):
    steps = make_steps(ALPHAS, num_steps, t0, eta=1.0)
    assert (len(steps), steps[0].t, steps[-1].t) == (count, first, 1)
    assert math.sqrt(steps[0].a_t) == pytest.approx(amplitude, abs=1e-4)


@pytest.mark.parametrize(
    ("num_steps", "t0", "count"), [(100, 0.29, 29), (100, 0.57, 57), (100, 0.58, 58), (50, 0.58, 29)]
)
def test_rounding_loses_no_step(num_steps, t0, count):
    assert steps_taken(num_steps, t0) == count > int(num_steps * t0)


def test_source_guidance_has_no_effect_with_an_empty_source_prompt_and_its_rows_may_be_merged():
    merged = run(0.5, source=Guided(stub, NULL))
    separate = run(0.5, source=Guided(stub, NULL, NULL, guidance=1.5))
    assert torch.equal(merged, separate)


@pytest.mark.parametrize("cond", [TARGET, None], ids=["prompt", "empty prompt"])
def test_independent_rows_amplify_the_noise_by_the_guidance_and_shared_rows_do_not(cond):
    """On a linear network: sqrt(6.5^2 + 7.5^2) = 9.9247 against 1."""

    def linear(x, t, cond, perturb):
        h = torch.zeros(len(x), 4096, dtype=torch.float64)
        return (h if perturb is None else perturb(h)).view(len(x), 1, 64, 64)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 1, 4096, generator=generator, dtype=torch.float64)
    noise /= noise.square().mean(dim=2, keepdim=True).sqrt()
    noise[1] -= (noise[0] * noise[1]).mean() * noise[0]  # exactly uncorrelated, so that the closed form is exact
    noise[1] /= noise[1].square().mean().sqrt()
    steps = make_steps(ALPHAS, 10, 0.1, eta=1.0)
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    inversion = invert_cycle(steps, x, x, lambda k: x, Guided(linear, NULL))
    changes = {}
    for shared in (False, True):
        perturbation = Perturbation(sigma=1.0, noise=lambda k, row, shape: noise[row], shared_rows=shared)
        final = reverse(steps, inversion, Guided(linear, NULL, cond, guidance=7.5), perturbation)
        changes[shared] = float(final.square().mean().sqrt()) / abs(steps[0].symmetric_gain)
    assert (changes[False], changes[True]) == pytest.approx((9.9247, 1.0), abs=1e-4)


@pytest.mark.parametrize("choices", [{}, {"asymmetric": True}, {"shared_rows": True}])
def test_an_empty_prompt_merges_its_rows_only_where_that_is_exact(choices):
    assert torch.equal(run(0.0, cond=None, **choices), run(0.0, cond=NULL, **choices))
    assert torch.allclose(run(0.5, cond=None, **choices), run(0.5, cond=NULL, **choices), atol=1e-12)


def test_edit_friendly_inversion_is_exact_and_its_states_are_independent_draws():
    steps = make_steps(ALPHAS, 10, 0.8, eta=1.0)
    inversion = invert_edit_friendly(steps, X0, START, posterior, Guided(stub, NULL))
    assert (reverse(steps, inversion, Guided(stub, NULL)) - X0).abs().max() < 1e-12
    # one step down, the process stands at q(x_t | x0) with that step's own draw
    assert torch.allclose(
        reverse(steps[:1], inversion, Guided(stub, NULL)), noised(steps[1], X0, posterior(0)), atol=1e-12
    )


def test_a_schedule_of_all_timesteps_is_inverted_exactly():
    steps = make_steps(ALPHAS[:20], 20, 0.95, eta=1.0)
    assert [step.p for step in steps[-2:]] == [1, 0]
    for invert in (invert_cycle, invert_edit_friendly):
        inversion = invert(steps, X0, START, posterior, Guided(stub, NULL))
        assert (reverse(steps, inversion, Guided(stub, NULL)) - X0).abs().max() < 1e-10


def test_ddim_inversion_asks_at_the_lower_end_of_each_step_and_the_perturbation_ends_with_its_last_timestep():
    asked = []

    def watched(x, t, cond, perturb):
        asked.append((t, perturb is not None))
        return stub(x, t, cond, perturb)

    steps = make_steps(ALPHAS, 10, 0.4, eta=0.0)
    inversion = invert_ddim(steps, X0, Guided(watched, NULL))
    assert [t for t, _ in asked] == [0, 1, 101, 201]
    asked.clear()
    reverse(steps, inversion, Guided(watched, NULL), Perturbation(sigma=0.5, noise=xi, t_edit=201))
    assert asked == [(301, True), (201, True), (101, False), (1, False)]


def test_ddim_inversion_comes_closer_to_the_source_with_more_steps():
    def error(num_steps):
        steps = make_steps(ALPHAS, num_steps, 0.8, eta=0.0)
        inversion = invert_ddim(steps, X0, Guided(stub, NULL))
        return float((reverse(steps, inversion, Guided(stub, NULL)) - X0).abs().mean())

    errors = [error(n) for n in (10, 50, 250, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_no_inversion_is_sdedit_with_fresh_noise():
    steps = make_steps(ALPHAS, 10, 0.8, eta=1.0)
    inversion = no_inversion(steps, X0, START, posterior)
    x = noised(steps[0], X0, START)
    assert torch.equal(inversion.start, x)
    for k, step in enumerate(steps):
        x = step.mean(x, stub(x, step.t, NULL, None)) + step.s * posterior(k)
    assert torch.allclose(reverse(steps, inversion, Guided(stub, NULL)), x, atol=1e-12)


def test_steps_below_t_edit_are_left_alone():
    assert torch.equal(run(0.5, t_edit=1000), run(0.0))
    assert not torch.equal(run(0.5, t_edit=500), run(0.5))


def test_the_step_index_runs_once_from_the_first_to_the_last():
    seen = []

    def noise(k, row, shape):
        seen.append((k, row))
        return xi(k, row, shape)

    steps = make_steps(ALPHAS, 10, 0.8, eta=1.0)
    inversion = invert_cycle(steps, X0, START, posterior, Guided(stub, NULL))
    reverse(steps, inversion, Guided(stub, NULL, TARGET, 7.5), Perturbation(sigma=1.0, noise=noise))
    assert seen == [(k, row) for k in range(8) for row in (0, 1)]


def test_three_variants_in_one_batch_equal_three_single_runs():
    steps = make_steps(ALPHAS, 10, 0.8, eta=1.0)
    x0 = torch.cat([X0, 0.5 * X0, -X0])
    three = invert_cycle(steps, x0, START.repeat(3, 1, 1, 1), posterior, Guided(stub, NULL))
    target = Guided(stub, NULL, TARGET.repeat(3, 1, 1, 1), 7.5)
    perturbation = Perturbation(sigma=0.5, noise=lambda k, row, shape: xi(k, row, shape).repeat(3, 1, 1, 1))
    together = reverse(steps, three, target, perturbation)
    assert torch.allclose(together[:1], run(0.5), atol=1e-12)
    single = invert_cycle(steps, x0[2:], START, posterior, Guided(stub, NULL))
    alone = reverse(steps, single, Guided(stub, NULL, TARGET, 7.5), Perturbation(sigma=0.5, noise=xi))
    assert torch.allclose(together[2:], alone, atol=1e-12)
