"""DreamDA's two halves as mathematics: invert a source latent, then run the reverse process with a perturbed bottleneck.

Fu, Chen, Qiao, Yu, "DreamDA: Generative Data Augmentation with Diffusion Models" (arXiv 2403.12803); the inversion is
CycleDiffusion's posterior encoder (Wu, De la Torre, arXiv 2210.05559). Notation: a = cumulative noise product,
p = t - T/N the next timestep, e = predicted noise,

    X0(x, e) = (x - sqrt(1 - a_t) e) / sqrt(a_t)
    s_t^2    = eta^2 (1 - a_p) / (1 - a_t) (1 - a_t / a_p)
    d_t      = sqrt(1 - a_p - s_t^2)

The network and all noise come in as callables; arithmetic is in the dtype of the latents.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genaug.generators.base import steps_taken
from genaug.generators.dreamda.bottleneck import BottleneckNoise

Perturb = Callable[[Tensor], Tensor]
"""Changes the bottleneck [R, ...] of one network call."""

Predict = Callable[[Tensor, int, Tensor, Perturb | None], Tensor]
"""Noise estimate e [R, c, h, w] of latents [R, c, h, w] at timestep t, with conditions [R, ...]."""

StepNoise = Callable[[int], Tensor]
"""Standard normal noise like the latents for step 0 … K-1."""


@dataclass(frozen=True, slots=True)
class Step:
    """Coefficients of one step from timestep t to p."""

    t: int
    p: int
    a_t: float
    a_p: float
    s: float
    """s_t, the standard deviation of the step's noise."""
    d: float
    """d_t, the weight of the direction term."""

    def x0(self, x: Tensor, e: Tensor) -> Tensor:
        """X0(x, e), the clean latent that the noise estimate e implies."""
        return (x - math.sqrt(1 - self.a_t) * e) / math.sqrt(self.a_t)

    def mean(self, x: Tensor, e: Tensor, e_direction: Tensor | None = None) -> Tensor:
        """sqrt(a_p) X0(x, e) + d_t e_direction; the direction uses e itself unless another estimate is given."""
        return math.sqrt(self.a_p) * self.x0(x, e) + self.d * (e if e_direction is None else e_direction)

    @property
    def asymmetric_gain(self) -> float:
        """Change of x_p per unit change of the noise estimate in the X0 term alone."""
        return -math.sqrt(self.a_p * (1 - self.a_t) / self.a_t)

    @property
    def symmetric_gain(self) -> float:
        """Change of x_p per unit change of the noise estimate in both terms."""
        return self.asymmetric_gain + self.d


def make_steps(alphas_cumprod: Tensor, num_steps: int, t0: float, eta: float) -> list[Step]:
    """The K executed steps: t = (K-1) T/N + 1, …, T/N + 1, 1 (DDIM, leading spacing, offset 1).

    Args:
        alphas_cumprod: float64 [T]; beyond its start the product of timestep 0 is used (``set_alpha_to_one`` false).
        num_steps: N, a divisor of T.
        t0: share of the N steps that is executed, in (0, 1].
        eta: 0 (deterministic) to 1 (as much noise as DDPM).
    """
    stride = len(alphas_cumprod) // num_steps
    a = alphas_cumprod.tolist()
    steps = []
    for k in reversed(range(steps_taken(num_steps, t0))):
        t = k * stride + 1
        p = t - stride
        a_t, a_p = a[t], a[max(p, 0)]
        s = eta * math.sqrt((1 - a_p) / (1 - a_t) * (1 - a_t / a_p))
        steps.append(Step(t=t, p=p, a_t=a_t, a_p=a_p, s=s, d=math.sqrt(1 - a_p - s * s)))
    return steps


@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """Where the reverse process starts, and the noise that it adds."""

    start: Tensor
    """x_T, [S, c, h, w]."""
    noise: Tensor | None
    """s_t z for every step, [K, S, c, h, w]; None where the process is deterministic."""

    def rows(self, index: Sequence[int]) -> "Inversion":
        """The inversion of variants: row v is that of source ``index[v]``."""
        chosen = torch.as_tensor(index, device=self.start.device)
        return Inversion(self.start[chosen], None if self.noise is None else self.noise[:, chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """A guided noise estimate: e_u + w (e_c - e_u), both rows in one call.

    ``cond`` None is the empty prompt: both rows are the same and merged into one, which is exact. Only independent noise on the
    bottleneck tells them apart; then there are two rows, and w enlarges the difference that the noise makes.
    """

    predict: Predict
    null: Tensor
    """Condition of the empty prompt, [1, ...]."""
    cond: Tensor | None = None
    """Condition per row, [B, ...]."""
    guidance: float = 1.0
    """w."""
    made: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    """Stacked conditions by number of rows of each kind, and kinds: the network gets the same tensor at every step."""

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """The clean estimate, [B, c, h, w]."""
        b = len(x)
        if self.cond is None:
            return self.predict(x, t, self.stacked(b, "u"), None)
        return self.combine(self.predict(torch.cat([x, x]), t, self.stacked(b, "uc"), None), b)

    def stacked(self, b: int, kinds: str) -> Tensor:
        """Conditions [b len(kinds), ...]: of the empty prompt for each ``u``, the rows' own for each ``c``."""
        if (b, kinds) not in self.made:
            null = self.null.expand(b, *self.null.shape[1:])
            parts = [null if kind == "u" or self.cond is None else self.cond for kind in kinds]
            self.made[b, kinds] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.made[b, kinds]

    def combine(self, out: Tensor, b: int) -> Tensor:
        """e_u + w (e_c - e_u) of stacked rows [2B, ...]; single rows [B, ...] as they are."""
        if len(out) == b:
            return out
        e_u, e_c = out.chunk(2)
        return e_u + self.guidance * (e_c - e_u)


def noised(step: Step, x0: Tensor, noise: Tensor) -> Tensor:
    """q(x_t | x0) at the step's t."""
    return math.sqrt(step.a_t) * x0 + math.sqrt(1 - step.a_t) * noise


def invert_cycle(
    steps: Sequence[Step], x0: Tensor, start_noise: Tensor, posterior: StepNoise, source: Guided
) -> Inversion:
    """CycleDiffusion: walk down by q(x_p | x_t, x0) and record the noise code that would have led the model there.

    Running the same model over the codes returns x0 exactly. Needs eta > 0.
    """
    x = start = noised(steps[0], x0, start_noise)
    codes = []
    for k, step in enumerate(steps):
        e = source(x, step.t)
        if step.p <= 0:
            following = x0
        else:
            residual = (x - math.sqrt(step.a_t) * x0) / math.sqrt(1 - step.a_t)
            following = math.sqrt(step.a_p) * x0 + step.d * residual + step.s * posterior(k)
        codes.append(following - step.mean(x, e))
        x = following
    return Inversion(start, torch.stack(codes))


def invert_edit_friendly(
    steps: Sequence[Step], x0: Tensor, start_noise: Tensor, posterior: StepNoise, source: Guided
) -> Inversion:
    """Edit-friendly DDPM inversion (arXiv 2304.06140): every x_t is drawn independently from q(x_t | x0).

    Their code sets the last noise code to zero; it is kept here, so that the inversion is exact.
    """
    x = start = noised(steps[0], x0, start_noise)
    codes = []
    for k, step in enumerate(steps):
        following = x0 if step.p <= 0 else noised(steps[k + 1], x0, posterior(k))
        codes.append(following - step.mean(x, source(x, step.t)))
        x = following
    return Inversion(start, torch.stack(codes))


def invert_ddim(steps: Sequence[Step], x0: Tensor, source: Guided) -> Inversion:
    """DDIM inversion: the deterministic process run upwards, each estimate taken at the lower end of the step.

    Exact only in the limit of many steps.
    """
    x = x0
    for step in reversed(steps):
        e = source(x, max(step.p, 0))
        clean = (x - math.sqrt(1 - step.a_p) * e) / math.sqrt(step.a_p)
        x = math.sqrt(step.a_t) * clean + math.sqrt(1 - step.a_t) * e
    return Inversion(x, None)


def no_inversion(steps: Sequence[Step], x0: Tensor, start_noise: Tensor, fresh: StepNoise) -> Inversion:
    """SDEdit's start: the noised source, and fresh noise at every step (none with eta = 0)."""
    start = noised(steps[0], x0, start_noise)
    if all(step.s == 0 for step in steps):
        return Inversion(start, None)
    return Inversion(start, torch.stack([step.s * fresh(k) for k, step in enumerate(steps)]))


@dataclass(frozen=True, slots=True, eq=False)
class Perturbation:
    """Gaussian noise on the bottleneck at every step of the reverse process."""

    sigma: float
    noise: Callable[[int, int, Sequence[int]], Tensor]
    """(step index, row kind: 0 unconditional, 1 conditional, shape of one row's bottleneck) to [V, *shape]."""
    relative: bool = False
    """Whether sigma is a multiple of each row's own std(h)."""
    shared_rows: bool = False
    """The unconditional and the conditional row get the same noise. Independent noise changes the guided estimate by
    sqrt((w - 1)^2 + w^2) times a single row's change, shared noise by about 1."""
    asymmetric: bool = False
    """Only the X0 term sees the perturbed estimate, the direction term the clean one (the paper's figure). False: both terms
    see it (the released code)."""
    t_edit: int = 0
    """Perturb while t >= t_edit."""
    std: list[Tensor] = field(default_factory=list)
    """std(h) of the perturbed rows, [V] per perturbed step; filled while the process runs."""


def reverse(
    steps: Sequence[Step], inversion: Inversion, target: Guided, perturbation: Perturbation | None = None
) -> Tensor:
    """The reverse process from ``inversion.start`` [V, c, h, w] to x0 [V, c, h, w]."""
    x = inversion.start
    for k, step in enumerate(steps):
        if perturbation is None or perturbation.sigma == 0 or step.t < perturbation.t_edit:
            x_next = step.mean(x, target(x, step.t))
        else:
            x_next = step.mean(x, *_perturbed(k, step, x, target, perturbation))
        x = x_next if inversion.noise is None else x_next + inversion.noise[k]
    return x


def _perturbed(
    k: int, step: Step, x: Tensor, target: Guided, perturbation: Perturbation
) -> tuple[Tensor, Tensor | None]:
    """The perturbed guided estimate, and the clean one if the process is asymmetric, from one network call.

    Rows: [clean | perturbed], each [unconditional | conditional], or one row per variant where the two are equal: an empty
    prompt without noise, or with the same noise.
    """
    b = len(x)
    changed = "u" if target.cond is None and perturbation.shared_rows else "uc"
    clean = "" if not perturbation.asymmetric else "u" if target.cond is None else "uc"
    mask = torch.tensor([False] * (b * len(clean)) + [True] * (b * len(changed)))

    def draw(shape: Sequence[int]) -> Tensor:
        kinds = [0 if perturbation.shared_rows else kind for kind in range(len(changed))]
        return torch.cat([perturbation.noise(k, kind, shape) for kind in kinds])

    change = BottleneckNoise(mask, perturbation.sigma, perturbation.relative, draw)
    kinds = clean + changed
    out = target.predict(x.repeat(len(kinds), *[1] * (x.ndim - 1)), step.t, target.stacked(b, kinds), change)
    assert change.std is not None
    perturbation.std.append(change.std.view(len(changed), b).mean(dim=0))
    e_clean = target.combine(out[: b * len(clean)], b) if clean else None
    return target.combine(out[b * len(clean) :], b), e_clean
