"""What a generator may know about the classes beforehand (DA-Fusion, section 4.1: preventing leakage of internet data).

Data-centric prevention keeps class names out of prompts and initialisations; model-centric prevention erases each class
from a copy of the U-Net (ESD, arXiv 2303.07345) before tokens are learned and images are made with it. Textual inversion
can bring back an erased concept (arXiv 2308.01508), so model-centric prevention with learned tokens is a weak guarantee.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from genaug.core.cost import LEARNING, ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, seed
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component
from genaug.core.seeding import choice as pick

NUM_TIMESTEPS = 1000
PARAMETERS = (
    "xattn",
    "noxattn",
    "selfattn",
    "full",
    "notime",
    "xlayer",
    "selflayer",
    "esd-x",
    "esd-u",
    "esd-all",
    "esd-x-strict",
)


@component("leakage/erasure", "esd")
@dataclass(kw_only=True, slots=True)
class Erasure:
    """How a concept is erased: the U-Net's noise prediction for the concept's prompt is moved away from the concept."""

    parameters: str = choice("xattn", PARAMETERS)
    """Trained weights. 2023: ``xattn``, ``noxattn``, ``selfattn``, ``full``, ``notime``, ``xlayer``, ``selflayer``; 2024,
    without norms: ``esd-x``, ``esd-u``, ``esd-all``, ``esd-x-strict``."""
    target: str = choice("esd2024", ("esd2023", "esd2024"))
    """``esd2023``: eps_0 - eta (eps_c - eps_0); ``esd2024``: eps_c - eta (eps_c - eps_0), the same with eta one larger."""
    eta: float = bounded(2.0, 0, 1000, above=True)
    """Strength of the negative guidance in the target; above 0."""
    guidance: float = bounded(3.0, -1000, 1000)
    """w of the trajectories on which the predictions are compared."""
    iterations: int = count(200)
    """Optimiser steps (Adam)."""
    learning_rate: float = bounded(5e-5, 0, 100, above=True)
    """Of Adam."""
    batch_size: int = count(1)
    """States per step; 1 in both releases."""
    num_steps: int = count(50, most=NUM_TIMESTEPS)
    """DDIM steps of a whole trajectory."""
    sampler_model: str = choice("base", ("base", "student"))
    """Which model walks the trajectories: the ``base`` (2024) or the ``student`` being trained (2023)."""
    level_match: str = choice("exact", ("exact", "ref2023"))
    """``exact``: the state at timestep t is predicted at t. ``ref2023``: as the 2023 release, whose states are less noisy
    than the t that they are predicted at."""
    trajectories: int | None = count(None)
    """Walk this many trajectories once and draw all states from them (only with ``sampler_model=base``); null walks a new
    one for every state."""
    seed: int = seed(0)
    """Noise and levels. Not the trial's: all trials share the erased U-Nets."""
    storage: str = choice("float16", ("float16", "bfloat16", "float32"))
    """Number format of the stored change of weights."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.num_steps == NUM_TIMESTEPS and self.level_match == "exact":
            raise GenaugError(
                f"leakage.erasure.num_steps={self.num_steps} begins at timestep {NUM_TIMESTEPS}, one beyond the U-Net's "
                f"training: write {NUM_TIMESTEPS // 2} or fewer."
            )
        if self.trajectories is not None and self.sampler_model == "student":
            raise GenaugError(
                f"leakage.erasure.trajectories={self.trajectories} needs leakage.erasure.sampler_model=base: "
                "trajectories of the student change while it learns. Write null to walk a new one for every state."
            )

    def level(self, k: int, seed_words: Sequence[object]) -> tuple[int, int]:
        """(number of DDIM steps walked, timestep t of the predictions) of the k-th of ``num_steps`` levels.

        With N = 50: exact walks N - 1 - k of the steps 981, 961, …, 1 and predicts at the timestep reached, 20k + 1. ref2023
        starts at 961, walks 50 - k of the 49 steps left (all of them for k = 0) and predicts at t ~ U[20k, 20k + 20).
        """
        width = NUM_TIMESTEPS // self.num_steps
        if self.level_match == "exact":
            return self.num_steps - 1 - k, width * k + 1
        return min(self.num_steps - k, self.num_steps - 1), width * k + pick(width, *seed_words, "t")

    def state(self, concept: str, iteration: int, i: int) -> tuple[tuple[object, ...], int, int]:
        """Seed words, steps walked and timestep of the i-th noisy latent of an iteration."""
        words = (self.seed, concept, iteration, i)
        return words, *self.level(pick(self.num_steps, *words, "level"), words)

    def forward_passes(self, concept: str) -> ForwardPasses:
        """Those of ``erase``: the walks, the frozen model's two predictions, the student's with its gradient."""
        per_step = 2 if self.guidance != 1 else 1
        states = [(i, b) for i in range(self.iterations) for b in range(self.batch_size)]
        if self.trajectories is None:
            walked = sum(self.state(concept, *state)[1] for state in states)
        else:
            walked = self.trajectories * self.num_steps
        count = walked * per_step + 3 * len(states)
        return ForwardPasses(network="U-Net", count=count, relative_cost=1 + (LEARNING - 1) * len(states) / count)


@component("leakage", "default")
@dataclass(kw_only=True, slots=True)
class Leakage:
    """Leakage prevention. Generators read these keys by interpolation (``${leakage.class_names}``)."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    class_names: bool = False
    """Whether class names may reach prompts and initialisations. False is the data-centric protocol."""
    erasure: Erasure | None = None
    """How each class is erased from the U-Net that makes its images and learns its token; null erases nothing."""
