"""Noise of the diffusion process: draws from seeds, and the schedulers that take it away again."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler, PNDMScheduler, UniPCMultistepScheduler
from torch import Tensor


def draw_noise(seeds: Iterable[int], shape: Sequence[int]) -> Tensor:
    """Standard normal float32 [b, *shape], row i from seed i alone, drawn on the CPU: the same on every device."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def make_scheduler(name: str, betas: Tensor) -> Any:
    """A diffusers scheduler on the prior's noise schedule, for noise predictions (``Prior`` converts v).

    Leading spacing with offset 1, as Stable Diffusion's own configuration: for ``ddim`` the first timestep is
    (1000/N)(K - 1) + 1. ``pndm_ref`` duplicates an entry, so that its first timestep is (1000/N) K + 1 for K <= N - 2;
    on a sliced schedule it still makes the correction meant for the entry that was cut, hence its latents are one step
    noisier than t says from the third call on. That is what DA-Fusion's released code does; use it for comparisons only.
    """
    common: dict[str, Any] = {
        "num_train_timesteps": len(betas),
        "trained_betas": betas.tolist(),
        "prediction_type": "epsilon",
    }
    common |= {"timestep_spacing": "leading", "steps_offset": 1}
    if name == "ddim":
        return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False)
    if name == "ddim_trailing":  # starts at the very last timestep, as models distilled to few steps expect
        trailing = common | {"timestep_spacing": "trailing", "steps_offset": 0}
        return DDIMScheduler(**trailing, clip_sample=False, set_alpha_to_one=False)
    if name == "lcm":
        return LCMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)
    if name == "unipc":
        return UniPCMultistepScheduler(**common, solver_order=2)
    return PNDMScheduler(**common, skip_prk_steps=True, set_alpha_to_one=False)
