"""The solver against numbers of the released code (golden/psld.json), finite differences and a closed form."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genaug.core.errors import GenaugError
from genaug.generators.psld.config import Solver
from genaug.generators.psld.ladder import Row, ladder
from genaug.generators.psld.operators import Inpainting
from genaug.generators.psld.solver import (
    advance,
    gradient_step,
    guided,
    norms,
    predict_clean,
    projection_step,
    solve,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "psld.json").read_text())
TOLERANCE = GOLDEN["tolerance_abs"]  # the released code casts the encoder's input to float32
S = 0.18215


def wave(shape, a, b, phi):
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (a * torch.sin(b * k + phi)).view(shape)


MIX, EMIX = wave((3, 4), 1.0, 1.3, 0.2), wave((4, 3), 0.8, 0.9, 0.5)


def eps(z, t):
    return torch.tanh(0.6 * z + 0.2 * torch.roll(z, 1, 3) - 0.1 * torch.roll(z, 1, 2)) * (0.5 + 0.5 * t / 1000)


def decode(z):
    return torch.tanh(F.interpolate(0.1 * torch.einsum("oc,bchw->bohw", MIX, z) / S, scale_factor=2, mode="nearest"))


def encode(x, noise=None):
    z = S * torch.einsum("co,bohw->bchw", EMIX, F.avg_pool2d(x, 2))
    return z if noise is None else z + 0.01 * noise


def no_noise(purpose, step, shape):
    raise AssertionError("nothing here draws noise")


IMAGE = wave((1, 3, 8, 8), 0.9, 0.37, 0.1)
MASK = torch.ones(1, 1, 8, 8, dtype=torch.float64)
MASK[..., 2:6, 3:7] = 0
LATENT = wave((1, 4, 4, 4), 1.0, 0.71, 0.3)
SECOND = wave((1, 4, 4, 4), 1.0, 0.53, 1.1)
SECOND_IMAGE = wave((1, 3, 8, 8), 0.9, 0.21, 0.6)
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0).tolist()


def plain(**changes):
    """The paper's solver, without floor and clamp."""
    return Solver(**{"norm_floor": 0.0, "step_clamp": None, **changes})


def rule(**changes):
    return plain(**{"norm_eps": 0.0, "gamma": 0.1, **changes})


def row_at(steps, index):
    return ladder(ALPHAS, steps)[steps - 1 - index]


def step_of(z, row, the_rule, y=IMAGE * MASK, mask=MASK, take=gradient_step):
    return take(z, row, y, Inpainting(mask), the_rule, eps, decode, encode, no_noise, 0)


def close(value, wanted):
    return torch.allclose(
        torch.as_tensor(value, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"S{c['S']}-t{c['t']}-g{c['gamma']}-o{c['omega']}")
def test_step_equals_the_released_code(case):
    row = row_at(case["S"], case["index"])
    assert (row.t, pytest.approx(row.a, abs=1e-12), pytest.approx(row.a_prev, abs=1e-12)) == (
        case["t"], case["alpha_t"], case["alpha_prev"],
    )  # fmt: skip
    result = step_of(LATENT, row, rule(gamma=case["gamma"], omega=case["omega"]))
    assert close(result.z.norm(), case["z_prev_norm"])
    assert close(result.z.sum(), case["z_prev_sum"])
    assert close(result.z[0, 0, 0], case["z_prev_first4"])
    assert close(result.z0.norm(), case["z0hat_norm"])


@pytest.mark.parametrize("check", GOLDEN["step_checks"], ids=lambda c: f"t{c['t']}")
def test_losses_gradient_omitted_jacobian_and_projection_equal_the_golden_numbers(check):
    row = row_at(check["S"], check["index"])
    full = step_of(LATENT, row, rule())
    assert full.measurement_loss is not None and full.gluing_loss is not None and full.gradient is not None
    assert close(full.measurement_loss[0], check["L_m"]) and close(full.gluing_loss[0], check["L_g"])
    assert close(full.gradient.norm(), check["grad_norm"])
    assert close(full.gradient.flatten()[:5], check["grad_first5"])
    assert close((full.z + full.gradient).norm(), check["z_prev_norm_unguided"])
    short = step_of(LATENT, row, rule(omit_unet_jacobian=True))
    assert short.gradient is not None
    wanted = check["omit_jacobian"]
    assert close(
        F.cosine_similarity(short.gradient.flatten(), full.gradient.flatten(), dim=0), wanted["cosine_to_full"]
    )
    assert close(short.gradient.norm() / full.gradient.norm(), wanted["norm_ratio"])
    assert close(short.z.norm(), wanted["z_prev_norm"]) and close(short.z[0, 0, 0], wanted["z_prev_first4"])
    hard = step_of(LATENT, row, rule(mode="projection"), take=projection_step)
    wanted = check["projection"]
    assert close(hard.z0.norm(), wanted["encoded_norm"]) and close(hard.z0.sum(), wanted["encoded_sum"])
    assert close(hard.z0[0, 0, 0], wanted["encoded_first4"])
    assert close(hard.z.norm(), wanted["z_prev_ddim_norm"]) and close(hard.z[0, 0, 0], wanted["z_prev_ddim_first4"])


@pytest.mark.parametrize("case", GOLDEN["trajectories"], ids=lambda c: f"S{c['S']}")
def test_whole_run_equals_the_released_code(case):
    rows = ladder(ALPHAS, case["S"])
    y = IMAGE * MASK
    args = (rows, y, Inpainting(MASK))
    run = solve(LATENT, *args, rule(gamma=case["gamma"], omega=case["omega"]), eps, decode, encode, no_noise)
    assert close(torch.cat(run.norms), case["norms"])
    assert close(run.z[0, 0, 0], case["final_first4"])
    check = next(c for c in GOLDEN["trajectory_checks"] if c["S"] == case["S"])
    free = solve(LATENT, *args, rule(guide_stop=0.0), eps, decode, encode, no_noise)
    assert close((MASK * decode(run.z) - y).norm(), check["measurement_error_guided"])
    assert close((MASK * decode(free.z) - y).norm(), check["measurement_error_unguided"])


def test_joint_norm_couples_the_batch_and_per_sample_norms_do_not():
    check = GOLDEN["batch_check"]
    row = row_at(50, 25)
    z, y = torch.cat([LATENT, SECOND]), torch.cat([IMAGE, SECOND_IMAGE]) * MASK
    for key, joint in (("joint_norm", True), ("per_sample_norm_or_alone", False)):
        result = step_of(z, row, rule(norm_over_batch=joint), y)
        assert result.gradient is not None
        assert close(result.gradient.flatten(1).norm(dim=1), check[key]["grad_norms"])
        assert close(result.z.flatten(1).norm(dim=1), check[key]["z_prev_norms"])


@pytest.mark.parametrize("mode", ["gradient", "projection"])
def test_batch_equals_loop_with_unequal_masks(mode):
    masks = torch.ones(3, 1, 8, 8, dtype=torch.float64)
    masks[0, :, 2:6, 3:7] = 0
    masks[1, :, ::2] = 0
    masks[2, :, :, 5:] = 0
    z = torch.cat([LATENT, SECOND, LATENT.flip(2)])
    images = torch.cat([IMAGE, SECOND_IMAGE, IMAGE.flip(3)])
    the_rule = plain(mode=mode, norm_floor=0.07, step_clamp=0.1)
    run = lambda i: solve(
        z[i], ladder(ALPHAS, 10), (images * masks)[i], Inpainting(masks[i]), the_rule, eps, decode, encode, no_noise
    )  # fmt: skip
    together = run(slice(None))
    for i in range(3):
        alone = run(slice(i, i + 1))
        torch.testing.assert_close(alone.z, together.z[i : i + 1], rtol=0, atol=1e-12)
        assert alone.clamped_steps[0] == together.clamped_steps[i]


def test_gradient_equals_finite_differences_of_the_loss():
    row, the_rule = row_at(50, 25), rule(gamma=0.2)

    def loss(z):
        result = step_of(z, row, the_rule)
        return the_rule.omega * result.measurement_loss[0] + the_rule.gamma * result.gluing_loss[0]

    gradient = step_of(LATENT, row, the_rule).gradient
    assert gradient is not None
    for place in ((0, 0, 0, 0), (0, 1, 2, 3), (0, 3, 3, 1)):
        bump = torch.zeros_like(LATENT)
        bump[place] = 1e-5
        slope = (loss(LATENT + bump) - loss(LATENT - bump)) / 2e-5
        assert abs(float(slope - gradient[place])) < 1e-8  # central differences: O(h^2) = 1e-10 and rounding 1e-11


def test_gradient_equals_the_closed_form_of_a_linear_model():
    n = 16
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
    K, U, V = 0.1 * draw(n, n), draw(48, n), draw(n, 48)
    linear = lambda matrix, x, shape: (x.flatten(1) @ matrix.T).view(-1, *shape)
    mask = (draw(1, 1, 4, 4) > 0).double()
    y, z, row = draw(1, 3, 4, 4) * mask, draw(1, 1, 4, 4), Row(500, 0.4, 0.5)
    omega, gamma = 0.7, 0.3
    result = gradient_step(
        z, row, y, Inpainting(mask), plain(omega=omega, gamma=gamma, norm_eps=0.0),
        lambda x, t: linear(K, x, (1, 4, 4)), lambda x: linear(U, x, (3, 4, 4)),
        lambda x, noise: linear(V, x, (1, 4, 4)),
        no_noise, 0,
    )  # fmt: skip
    eye = torch.eye(n, dtype=torch.float64)
    J = (eye - math.sqrt(1 - row.a) * K) / math.sqrt(row.a)
    M = torch.diag(mask.expand(1, 3, 4, 4).flatten())
    z0 = J @ z.flatten()
    r_m = M @ U @ z0 - y.flatten()
    outside = torch.eye(48, dtype=torch.float64) - M
    r_g = V @ (M @ y.flatten() + outside @ U @ z0) - z0
    wanted = omega * J.T @ U.T @ M @ r_m / r_m.norm() + gamma * ((V @ outside @ U - eye) @ J).T @ r_g / r_g.norm()
    assert result.gradient is not None
    torch.testing.assert_close(result.gradient.flatten(), wanted, rtol=1e-10, atol=1e-10)


def test_nothing_known_gives_no_measurement_gradient_and_everything_known_glues_the_measurement():
    row = row_at(50, 25)
    nothing = step_of(LATENT, row, rule(gamma=0.0, norm_eps=1e-8), torch.zeros_like(IMAGE), torch.zeros_like(MASK))
    assert nothing.gradient is not None and float(nothing.gradient.norm()) == 0
    x = decode(LATENT)
    assert torch.equal(Inpainting(torch.ones_like(MASK)).merge(x, IMAGE), IMAGE)


def test_residual_of_zero_has_a_finite_gradient():
    row = row_at(50, 25)
    x = decode(predict_clean(LATENT, eps(LATENT, row.t), row))
    result = step_of(LATENT, row, plain(gamma=0.0), x * MASK)
    assert result.gradient is not None and torch.isfinite(result.gradient).all()


@pytest.mark.parametrize("joint", [False, True])
def test_the_floor_of_the_measurement_grows_with_the_root_of_what_is_known(joint):
    row, known = row_at(50, 25), 3 * float(MASK.sum())
    bare, floored = (step_of(LATENT, row, rule(norm_floor=f, norm_over_batch=joint)) for f in (0.0, 0.07))
    assert bare.measurement_loss is not None and floored.measurement_loss is not None
    assert float(floored.measurement_loss**2 - bare.measurement_loss**2) == pytest.approx(0.07**2 * known)


def test_norms_of_half_precision_do_not_overflow():
    assert float(norms(torch.full((1, 3, 64, 64), 100.0, dtype=torch.float16), 0.0, False)) == pytest.approx(
        100 * math.sqrt(3 * 64 * 64)
    )


@pytest.mark.parametrize("clips", [False, True])
def test_the_glued_image_is_clipped_where_that_is_asked_for(clips):
    row, y = row_at(50, 25), 2 * IMAGE * MASK
    z0 = predict_clean(LATENT, eps(LATENT, row.t), row)
    glued = Inpainting(MASK).merge(decode(z0), y)
    wanted = encode(glued.clamp(-1, 1) if clips else glued)
    step = step_of(LATENT, row, rule(clip_xstar=clips), y)
    assert step.gluing_loss is not None and close(step.gluing_loss[0], float((wanted - z0).norm()))
    assert close(
        step_of(LATENT, row, rule(mode="projection", clip_xstar=clips), y, take=projection_step).z0, wanted.tolist()
    )


@pytest.mark.parametrize("renoise", ["ddim", "ddpm", "full"])
def test_a_projected_estimate_is_mixed_and_renoised_as_asked(renoise):
    row = row_at(50, 25)
    e = eps(LATENT, row.t)
    z0 = predict_clean(LATENT, e, row)
    mixed = row.a_prev * encode(Inpainting(MASK).merge(decode(z0), IMAGE * MASK)) + (1 - row.a_prev) * z0
    sigma = math.sqrt((1 - row.a_prev) / (1 - row.a) * (1 - row.a / row.a_prev))
    wanted = (
        math.sqrt(row.a_prev) * mixed
        + {
            "ddim": math.sqrt(1 - row.a_prev) * e,
            "ddpm": math.sqrt(1 - row.a_prev - sigma**2) * e + sigma * SECOND,
            "full": math.sqrt(1 - row.a_prev) * SECOND,
        }[renoise]
    )
    the_rule = rule(mode="projection", project_mix="alpha_prev", renoise=renoise)
    noise = lambda purpose, step, shape: SECOND
    step = projection_step(LATENT, row, IMAGE * MASK, Inpainting(MASK), the_rule, eps, decode, encode, noise, 0)
    torch.testing.assert_close(step.z, wanted, rtol=0, atol=1e-12)


def test_step_clamp_bounds_the_step():
    result = step_of(LATENT, row_at(50, 49), rule(omega=10.0, step_clamp=0.1))
    assert result.gradient is not None and result.clamped is not None and bool(result.clamped[0])
    assert float(result.gradient.norm()) == pytest.approx(0.1 * float(LATENT.norm()), rel=1e-12)


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 200, 250, 500])
def test_ladder_equals_diffusers(steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    rows = ladder(ALPHAS, steps)
    assert [row.t for row in rows] == scheduler.timesteps.tolist()
    wanted = [float(scheduler.alphas_cumprod[row.t]) for row in rows]
    assert [row.a for row in rows] == pytest.approx(wanted, abs=1e-6)  # diffusers multiplies in float32
    z, e = LATENT.float(), SECOND.float()
    ours = advance(predict_clean(z, e, rows[3]), e, rows[3], 0.0, lambda: z)
    theirs = scheduler.step(e, rows[3].t, z).prev_sample  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # rounding of that float32 table
    ours = advance(predict_clean(z, e, rows[3]), e, rows[3], 0.7, lambda: z)
    theirs = scheduler.step(e, rows[3].t, z, eta=0.7, variance_noise=z).prev_sample  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_ladder_equals_the_golden_grids():
    for grid in GOLDEN["schedule"]["grids"]:
        assert [row.t for row in reversed(ladder(ALPHAS, grid["S"]))] == grid["timesteps_ascending"]
    for t, a in GOLDEN["schedule"]["alpha_at"].items():
        assert ALPHAS[int(t)] == pytest.approx(a, abs=1e-12)


def test_ladder_of_1000_steps_is_the_released_shift_and_otherwise_refused():
    rows = ladder(ALPHAS, 1000, reference_shift=True)
    assert (rows[0].t, rows[0].a, rows[0].a_prev) == (1000, ALPHAS[999], ALPHAS[998])
    assert (rows[-1].t, rows[-1].a, rows[-1].a_prev) == (1, ALPHAS[0], ALPHAS[0])
    assert [row.t for row in ladder(ALPHAS, 999)] == list(range(999, 0, -1))
    assert [row.t for row in ladder(ALPHAS, 8, trailing=True)] == [999, 874, 749, 624, 499, 374, 249, 124]
    for steps, hint in ((1000, "reference_shift"), (300, "250"), (30, "25")):
        with pytest.raises(GenaugError, match=hint):
            ladder(ALPHAS, steps)


def test_ladder_at_a_lower_strength_takes_its_last_steps():
    assert ladder(ALPHAS, 25, t0=0.6) == ladder(ALPHAS, 25)[10:]
    assert ladder(ALPHAS, 1000, t0=0.25, reference_shift=True) == ladder(ALPHAS, 1000, reference_shift=True)[750:]
    assert [row.t for row in ladder(ALPHAS, 8, t0=0.3, trailing=True)] == [249, 124]
    with pytest.raises(GenaugError, match=r"write generator\.t0=0\.125 or more"):
        ladder(ALPHAS, 8, t0=0.1)


def test_last_step_is_guided_whatever_the_stride():
    assert guided(plain(guide_every=3), 10) == [True, False, False, True, False, False, True, False, False, True]
    assert [i for i, enters in enumerate(guided(plain(guide_every=3), 12)) if enters] == [2, 5, 8, 11]
    assert guided(plain(guide_start=0.1, guide_stop=0.5), 10) == [False, *[True] * 4, *[False] * 5]


def test_latent_that_is_not_finite_is_refused_with_image_and_timestep():
    with pytest.raises(GenaugError, match=r"image-7 is not finite after t=901"):
        solve(
            LATENT, ladder(ALPHAS, 10), IMAGE * MASK, Inpainting(MASK), plain(), lambda z, t: z * float("nan"),
            decode, encode, no_noise, ["image-7"],
        )  # fmt: skip
