"""Posterior sampling with latent diffusion (PSLD, arXiv 2307.00619), its equations on callables and tensors alone.

One gradient step from z_t, with a = alpha_bar (``psld.py`` l.188-268 of LituRout/PSLD, commit d734647):

    e   = eps(z_t, t)
    z0  = (z_t - sqrt(1 - a_t) e) / sqrt(a_t)
    z'  = sqrt(a_prev) z0 + sqrt(1 - a_prev - sig^2) e + sig n            DDIM
    x   = D(z0)
    L_m = || A x - y ||_2                                                 measurement
    x*  = A^+ y + x - A^+ A x                                             for inpainting: y + (1 - M) x
    L_g = || E(x*) - z0 ||_2                                              gluing
    z_{t-1} = z' - d(omega L_m + gamma L_g) / d z_t                       through U-Net, decoder and encoder

The norms are plain (not squared): omega and gamma are step lengths. They are taken per sample, so that a batch equals a
loop; the reference takes one norm over the batch (``norm_over_batch``).

The projection step needs no gradient: z0 <- E(x*), then the DDIM or DDPM update (TReg, LATINO).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genaug.core.errors import GenaugError
from genaug.generators.psld.config import Solver
from genaug.generators.psld.ladder import Row
from genaug.generators.psld.operators import Operator

Eps = Callable[[Tensor, int], Tensor]
"""(z_t [b, c, h, w], t of the U-Net) -> e [b, c, h, w]."""
Decode = Callable[[Tensor], Tensor]
"""z [b, c, h, w] -> x [b, 3, H, W], differentiable."""
Encode = Callable[[Tensor, Tensor | None], Tensor]
"""(x [b, 3, H, W], noise [b, c, h, w] or None) -> z [b, c, h, w], differentiable; None gives the posterior's mean."""
Noise = Callable[[str, int, Sequence[int]], Tensor]
"""(purpose, step, shape of one sample) -> N(0, 1) [b, *shape], drawn per sample."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step computed."""

    z: Tensor
    z0: Tensor
    gradient: Tensor | None = None
    measurement_loss: Tensor | None = None
    """[b], or [1] with one norm over the batch."""
    gluing_loss: Tensor | None = None
    clamped: Tensor | None = None
    """bool [b]: the step clamp acted."""


@dataclass(slots=True, eq=False)
class Solution:
    """The end of a run of the sampler."""

    z: Tensor
    clamped_steps: Tensor
    """[b]: number of steps at which the clamp acted."""
    norms: list[Tensor] = field(default_factory=list)
    """Norm of z [b] after each step."""


def guided(solver: Solver, num_steps: int) -> list[bool]:
    """For each step of the ladder, in sampling order, whether the measurement enters."""
    chosen = []
    for i in range(num_steps):
        inside = solver.guide_start * num_steps <= i < solver.guide_stop * num_steps
        chosen.append(inside and (num_steps - 1 - i) % solver.guide_every == 0)
    return chosen


def predict_clean(z: Tensor, e: Tensor, row: Row) -> Tensor:
    """z0 of Tweedie's formula."""
    return (z - math.sqrt(1 - row.a) * e) / math.sqrt(row.a)


def advance(z0: Tensor, e: Tensor, row: Row, eta: float, noise: Callable[[], Tensor]) -> Tensor:
    """DDIM's z' from a clean estimate and a noise estimate; eta = 1 is DDPM."""
    sigma = eta * math.sqrt((1 - row.a_prev) / (1 - row.a)) * math.sqrt(max(1 - row.a / row.a_prev, 0.0))
    z = math.sqrt(row.a_prev) * z0 + math.sqrt(max(1 - row.a_prev - sigma**2, 0.0)) * e
    return z + sigma * noise() if sigma > 0 else z


def norms(residual: Tensor, delta: Tensor | float, over_batch: bool) -> Tensor:
    """sqrt(||r||^2 + delta^2) per sample [b], or one over the batch [1]; at least float32."""
    squares = residual.float() if residual.dtype in (torch.float16, torch.bfloat16) else residual
    squares = squares.flatten(1).square().sum(1)
    floor = torch.as_tensor(delta, dtype=squares.dtype, device=squares.device) ** 2
    if over_batch:
        return (squares.sum() + floor.max()).sqrt().view(1)
    return (squares + floor).sqrt()


def gradient_step(
    z: Tensor,
    row: Row,
    y: Tensor,
    operator: Operator,
    solver: Solver,
    eps: Eps,
    decode: Decode,
    encode: Encode,
    noise: Noise,
    step: int,
) -> Step:
    """One PSLD step of ``mode=gradient``; see the head of this file."""
    latent = z.shape[1:]
    with torch.enable_grad():
        z_t = z.detach().requires_grad_(True)
        if solver.omit_unet_jacobian:
            with torch.no_grad():
                e = eps(z_t, row.t)
        else:
            e = eps(z_t, row.t)
        z0 = predict_clean(z_t, e, row)
        x = decode(z0)
        total = z_t.new_zeros(1)
        measurement = gluing = None
        if solver.omega > 0:
            predicted = operator.apply(x)
            if solver.prediction_noise > 0:
                predicted = predicted + solver.prediction_noise * noise("prediction", step, predicted.shape[1:]).to(
                    predicted
                )
            delta = solver.norm_floor * operator.num_measured(y).sqrt() if solver.norm_floor > 0 else solver.norm_eps
            measurement = norms(predicted - y, delta, solver.norm_over_batch)
            total = total + solver.omega * measurement
        if solver.gamma > 0:
            glued = operator.merge(x, y)
            glued = glued.clamp(-1, 1) if solver.clip_xstar else glued
            z_glued = encode(glued, noise("encode", step, latent).to(z_t) if solver.encode == "sample" else None)
            gluing = norms(z_glued - z0, solver.norm_eps, solver.norm_over_batch)
            total = total + solver.gamma * gluing
        gradient = torch.autograd.grad(total.sum(), z_t)[0]
    z0, e = z0.detach(), e.detach()
    clamped = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    if solver.step_clamp is not None:
        length = gradient.flatten(1).norm(dim=1)
        limit = solver.step_clamp * z.flatten(1).norm(dim=1)
        clamped = length > limit
        gradient = gradient * torch.where(clamped, limit / length.clamp(min=1e-30), 1.0).view(-1, 1, 1, 1)
    following = advance(z0, e, row, solver.eta, lambda: noise("eta", step, latent).to(z))
    return Step(
        following - gradient,
        z0,
        gradient,
        None if measurement is None else measurement.detach(),
        None if gluing is None else gluing.detach(),
        clamped,
    )


@torch.no_grad()
def projection_step(
    z: Tensor,
    row: Row,
    y: Tensor,
    operator: Operator,
    solver: Solver,
    eps: Eps,
    decode: Decode,
    encode: Encode,
    noise: Noise,
    step: int,
) -> Step:
    """One step of ``mode=projection``: the decoded estimate is made to explain y, encoded again and renoised."""
    latent = z.shape[1:]
    e = eps(z, row.t)
    z0 = predict_clean(z, e, row)
    glued = operator.merge(decode(z0), y)
    glued = glued.clamp(-1, 1) if solver.clip_xstar else glued
    projected = encode(glued, noise("encode", step, latent).to(z) if solver.encode == "sample" else None)
    if solver.project_mix == "alpha_prev":
        projected = row.a_prev * projected + (1 - row.a_prev) * z0
    return Step(_renoise(projected, e, row, solver, noise, step), projected)


@torch.no_grad()
def plain_step(z: Tensor, row: Row, solver: Solver, eps: Eps, noise: Noise, step: int) -> Step:
    """A step into which the measurement does not enter."""
    e = eps(z, row.t)
    z0 = predict_clean(z, e, row)
    return Step(_renoise(z0, e, row, solver, noise, step), z0)


def _renoise(z0: Tensor, e: Tensor, row: Row, solver: Solver, noise: Noise, step: int) -> Tensor:
    fresh = lambda: noise("eta", step, z0.shape[1:]).to(z0)
    if solver.mode == "projection" and solver.renoise == "full":
        return math.sqrt(row.a_prev) * z0 + math.sqrt(1 - row.a_prev) * fresh()
    ddpm = solver.mode == "projection" and solver.renoise == "ddpm"
    return advance(z0, e, row, 1.0 if ddpm else solver.eta, fresh)


def solve(
    z: Tensor,
    rows: Sequence[Row],
    y: Tensor,
    operator: Operator,
    solver: Solver,
    eps: Eps,
    decode: Decode,
    encode: Encode,
    noise: Noise,
    names: Sequence[str] = (),
) -> Solution:
    """All steps of the ladder from z [b, c, h, w]; the image is ``decode(solution.z)``.

    Raises:
        GenaugError: if a latent is no longer finite, with the name of the image and the timestep.
    """
    take = gradient_step if solver.mode == "gradient" else projection_step
    solution = Solution(z, torch.zeros(len(z), dtype=torch.int64, device=z.device))
    for i, (row, enters) in enumerate(zip(rows, guided(solver, len(rows)), strict=True)):
        if enters:
            result = take(solution.z, row, y, operator, solver, eps, decode, encode, noise, i)
        else:
            result = plain_step(solution.z, row, solver, eps, noise, i)
        size = result.z.flatten(1).norm(dim=1)
        if not torch.isfinite(size).all():
            bad = int(torch.isfinite(size).logical_not().nonzero()[0])
            raise GenaugError(
                f"PSLD: the latent of {names[bad] if names else f'sample {bad}'} is not finite after t={row.t}. "
                "Lower generator.solver.omega and generator.solver.gamma, set generator.solver.step_clamp=0.1, or write "
                "prior.vae_dtype=float32."
            )
        solution.z = result.z
        solution.norms.append(size)
        if result.clamped is not None:
            solution.clamped_steps += result.clamped
    return solution
