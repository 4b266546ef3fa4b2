"""What a generator may know about the classes beforehand (DA-Fusion, section 4.1: preventing leakage of internet data).

Data-centric prevention keeps class names out of prompts and initialisations; model-centric prevention erases each class
from a copy of the U-Net (ESD, arXiv 2303.07345) before tokens are learned and images are made with it. Textual inversion
can bring back an erased concept (arXiv 2308.01508), so model-centric prevention with learned tokens is a weak guarantee.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from genaug.errors import GenaugError
from genaug.identity import NOT_IDENTITY
from genaug.registry import component

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
CHOICES = {
    "parameters": PARAMETERS,
    "target": ("esd2023", "esd2024"),
    "sampler_model": ("base", "student"),
    "level_match": ("exact", "ref2023"),
    "storage": ("float16", "bfloat16", "float32"),
}


@component("leakage/erasure", "esd")
@dataclass(kw_only=True, slots=True)
class Erasure:
    """How a concept is erased: the U-Net's noise prediction for the concept's prompt is moved away from the concept."""

    parameters: str = "xattn"
    """Trained weights. 2023: ``xattn``, ``noxattn``, ``selfattn``, ``full``, ``notime``, ``xlayer``, ``selflayer``; 2024,
    without norms: ``esd-x``, ``esd-u``, ``esd-all``, ``esd-x-strict``."""
    target: str = "esd2024"
    """``esd2023``: eps_0 - eta (eps_c - eps_0); ``esd2024``: eps_c - eta (eps_c - eps_0), the same with eta one larger."""
    eta: float = 2.0
    """Strength of the negative guidance in the target; above 0."""
    guidance: float = 3.0
    """w of the trajectories on which the predictions are compared."""
    iterations: int = 200
    """Optimiser steps (Adam)."""
    learning_rate: float = 5e-5
    """Of Adam."""
    batch_size: int = 1
    """States per step; 1 in both releases."""
    num_steps: int = 50
    """DDIM steps of a whole trajectory."""
    sampler_model: str = "base"
    """Which model walks the trajectories: the ``base`` (2024) or the ``student`` being trained (2023)."""
    level_match: str = "exact"
    """``exact``: the state at timestep t is predicted at t. ``ref2023``: as the 2023 release, whose states are less noisy
    than the t that they are predicted at."""
    trajectories: int | None = None
    """Walk this many trajectories once and draw all states from them (only with ``sampler_model=base``); null walks a new
    one for every state."""
    seed: int = 0
    """Noise and levels. Not the trial's: all trials share the erased U-Nets."""
    storage: str = field(default="float16")
    """Number format of the stored change of weights."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise GenaugError(
                    f"leakage.erasure.{key}={getattr(self, key)} is unknown: write one of {', '.join(known)}."
                )
        for key in ("iterations", "batch_size", "num_steps"):
            if getattr(self, key) < 1:
                raise GenaugError(f"leakage.erasure.{key}={getattr(self, key)} must be at least 1.")
        for key in ("eta", "learning_rate"):
            if getattr(self, key) <= 0:
                raise GenaugError(f"leakage.erasure.{key}={getattr(self, key)} must be above 0.")
        if self.trajectories is not None and (self.trajectories < 1 or self.sampler_model == "student"):
            raise GenaugError(
                f"leakage.erasure.trajectories={self.trajectories} must be at least 1 and needs sampler_model=base: "
                "trajectories of the student change while it learns. Write null to walk a new one for every state."
            )


@component("leakage", "default")
@dataclass(kw_only=True, slots=True)
class Leakage:
    """Leakage prevention. Generators read these keys by interpolation (``${leakage.class_names}``)."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    class_names: bool = False
    """Whether class names may reach prompts and initialisations. False is the data-centric protocol."""
    erasure: Erasure | None = None
    """How each class is erased from the U-Net that makes its images and learns its token; null erases nothing."""
