"""How the tokens of classes are learned: the settings of textual inversion (arXiv 2208.01618)."""

from dataclasses import dataclass, field
from typing import ClassVar

from genaug.core import fields
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import section


@section("generator.tokens", "generator/tokens")
@dataclass(kw_only=True, slots=True)
class TextualInversion:
    """How the class tokens are learned."""

    seed: int = fields.seed()
    """Images, noise and templates of every step. Follows the trial's seed."""
    init: str = "the"
    """Word whose embedding every vector starts from; ``class_name`` takes the class's own, which leaks it."""
    init_pieces: str = choice("mean", ("mean", "last", "first"))
    """Which embedding a word of several pieces gives: their ``mean``, the ``last`` or the ``first``."""
    num_vectors: int = count(1, 1, 75)
    """v: vectors per token."""
    batch_size: int = count(4, 1, 4096)
    """Samples per class and step; the loss is their mean."""
    num_steps: int = count(1000, least=0)
    """Optimiser steps of each class; 0 where tokens learn with a LoRA alone (``generator.lora``)."""
    learning_rate: float = bounded(2e-3, 0, 1, above=True)
    """Of AdamW, final: the papers' 5e-4 is multiplied by the batch size."""
    weight_decay: float = bounded(1e-2, 0, 1)
    """Of AdamW, on the learned rows alone."""
    flip: bool = True
    """Train on each image and its mirror image, half of the samples each, as the papers do. ``false`` where a mirror image
    is of no class (digits, letters, signs): a token of sevens and mirrored sevens is that of neither."""
    resize: str = choice("squash", ("squash", "crop", "tile"))
    """``squash``, ``crop`` or ``tile``, as ``generator.resize``."""
    reference_bugs: bool = False
    """The two faults of DA-Fusion's released path of several vectors, for comparing with the camera-ready alone: training
    prompts hold the first vector, so the others only decay; prompts of images hold the text ``R R_1 R_2 R_3`` (R: all)."""
    allow_reference_bugs: bool = field(default=False, metadata=NOT_IDENTITY)
    """Say that those faults are wanted."""
    groups_per_batch: int = count(4, metadata=NOT_IDENTITY)
    """Classes in one U-Net call. Changes speed and memory only: classes are independent."""
    checkpoint_every: int = count(100, metadata=NOT_IDENTITY)
    """Steps between the states that an interrupted run resumes from."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.reference_bugs and not self.allow_reference_bugs:
            raise GenaugError(
                "generator.tokens.reference_bugs=true learns tokens with the faults of DA-Fusion's released code. Write "
                "generator.tokens.allow_reference_bugs=true if that is meant, or generator/tokens=ti_iclr for the right form."
            )

    def in_prompt(self, token: str) -> str:
        """What a prompt of an image says for a learned token."""
        if not self.reference_bugs:
            return token
        return " ".join([token, *(f"{token}_{i}" for i in range(1, self.num_vectors))])
