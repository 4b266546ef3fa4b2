"""The timesteps that PSLD takes, and at which of them the measurement enters. Plain numbers, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from genaug.core.errors import GenaugError
from genaug.generators.base import steps_taken


@dataclass(frozen=True, slots=True)
class Row:
    """One step of the ladder."""

    t: int
    """Timestep given to the U-Net."""
    a: float
    """alpha_bar at this step."""
    a_prev: float
    """alpha_bar of the next step."""


def ladder(
    alphas: Sequence[float],
    num_steps: int,
    *,
    t0: float = 1.0,
    reference_shift: bool = False,
    trailing: bool = False,
) -> list[Row]:
    """The last floor(S t0) rows of an S-step sampler in sampling order, from a float64 table of alpha_bar (T entries).

    t_k = 1 + c k with c = T // S, and alpha_bar[0] after the last. ``trailing`` has t = T - 1, T - 1 - c, … for
    few-step priors. S = T needs ``reference_shift``: the released code gives t = 1 … T to the U-Net and alpha_bar[0 … T - 1] to
    the update, one off, and its last step has a = a_prev.

    Raises:
        GenaugError: if S does not divide T (T - 1 apart): the ladder would miss the noisiest steps; or if ``t0`` leaves none.
    """
    total = len(alphas)
    if reference_shift != (num_steps == total):
        raise GenaugError(
            f"generator.num_steps={num_steps} with generator.solver.reference_shift={str(reference_shift).lower()}: the "
            f"released schedule has {total} steps, one of them outside the U-Net's training. Write "
            f"generator.num_steps={total} generator.solver.reference_shift=true for it, or at most {total - 1} steps and false."
        )
    if total % num_steps and num_steps != total - 1:
        divisors = [s for s in range(1, total) if total % s == 0]
        near = sorted(divisors, key=lambda s: abs(s - num_steps))[:3]
        raise GenaugError(
            f"generator.num_steps={num_steps} does not divide {total}: "
            f"write {', '.join(map(str, sorted(near)))} or {total - 1}."
        )
    taken = steps_taken(num_steps, t0)
    if taken < 1:
        raise GenaugError(
            f"generator.t0={t0} of generator.num_steps={num_steps} is less than one step: "
            f"write generator.t0={1 / num_steps:g} or more, or more steps."
        )
    if reference_shift:
        rows = [Row(k + 1, float(alphas[k]), float(alphas[max(k - 1, 0)])) for k in reversed(range(total))]
        return rows[-taken:]
    gap = total // num_steps
    first = total - 1 - gap * (num_steps - 1) if trailing else 1
    times = [first + gap * k for k in range(num_steps)]
    rows = [Row(t, float(alphas[t]), float(alphas[s])) for s, t in zip([0, *times], times, strict=False)]
    return rows[taken - 1 :: -1]
