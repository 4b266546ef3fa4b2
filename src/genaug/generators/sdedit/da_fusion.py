"""DA-Fusion (Trabucco et al., arXiv 2302.07944): SDEdit of every training image under a learned token of its class.

``fit`` learns one token per class by textual inversion on the training images; ``generate`` edits each image under
"a photo of a <class>", from a level t0 drawn per image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.cost import TO_INPUT, ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.identity import DRAWN, FIT, NOT_IDENTITY
from genaug.core.names import safe_name
from genaug.core.registry import component, section
from genaug.data.sample import Dataset, Sample
from genaug.data.splits import by_class
from genaug.generators.sdedit.config import RESIZES, ImageToImage
from genaug.generators.tokens.prompts import check_prompts

if TYPE_CHECKING:
    from genaug.priors.model import LearnedTokens, Prior

CHECKPOINT = "resume.safetensors"


@section("generator.tokens", "generator/tokens")
@dataclass(kw_only=True, slots=True)
class TextualInversion:
    """How the class tokens are learned."""

    seed: int = II("seed")
    """Images, noise and templates of every step. Follows the trial's seed."""
    init: str = "the"
    """Word whose embedding every vector starts from; ``class_name`` takes the class's own, which leaks it."""
    init_pieces: str = "mean"
    """Which embedding a word of several pieces gives: their ``mean``, the ``last`` or the ``first``."""
    num_vectors: int = 1
    """v: vectors per token."""
    batch_size: int = 4
    """Samples per class and step; the loss is their mean."""
    num_steps: int = 1000
    """Optimiser steps of each class."""
    learning_rate: float = 2e-3
    """Of AdamW, final: the papers' 5e-4 is multiplied by the batch size."""
    weight_decay: float = 1e-2
    """Of AdamW, on the learned rows alone."""
    resize: str = "squash"
    """``squash``, ``crop`` or ``tile``, as ``generator.resize``."""
    groups_per_batch: int = field(default=4, metadata=NOT_IDENTITY)
    """Classes in one U-Net call. Changes speed and memory only: classes are independent."""
    checkpoint_every: int = field(default=100, metadata=NOT_IDENTITY)
    """Steps between the states that an interrupted run resumes from."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for key, known in (("init_pieces", ("mean", "last", "first")), ("resize", RESIZES)):
            if getattr(self, key) not in known:
                raise GenaugError(
                    f"generator.tokens.{key}={getattr(self, key)} is unknown: write {' or '.join(known)}."
                )
        for key in ("num_vectors", "batch_size", "num_steps", "groups_per_batch", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise GenaugError(f"generator.tokens.{key}={getattr(self, key)} must be at least 1.")
        if self.learning_rate <= 0:
            raise GenaugError(f"generator.tokens.learning_rate={self.learning_rate} must be above 0.")


@component("generator", "da_fusion")
@dataclass(kw_only=True, slots=True)
class DAFusion(ImageToImage):
    """Textual inversion of the classes, then SDEdit under their tokens."""

    t0: Any = field(default_factory=lambda: [0.25, 0.5, 0.75, 1.0], metadata=DRAWN)
    """As ``ImageToImage.t0``; the paper's k = 4 levels."""
    prompt: str = "a photo of a {token}"
    """Prompt of the images; ``{token}`` is the learned token of the class."""
    tokens: TextualInversion = field(default_factory=TextualInversion, metadata=FIT)
    """How the tokens are learned."""
    class_names: bool = field(default=II("leakage.class_names"), metadata=FIT)
    """Whether class names may be known. If not, no initial word and no template may hold a word of the class name."""

    version: ClassVar[int] = 1
    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ImageToImage.__post_init__(self)
        if "{token}" not in self.prompt:
            raise GenaugError(
                f"generator.prompt='{self.prompt}' lacks {{token}}: write for example 'a photo of a {{token}}'."
            )
        if self.tokens.init == "class_name" and not self.class_names:
            raise GenaugError(
                "generator.tokens.init=class_name starts each token from the class's own name, which "
                "leakage=data_centric forbids. Write generator.tokens.init=the, or allow class names with leakage=none."
            )

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses:
        """One per class, step and sample, with a gradient to the token."""
        count = len(dataset.class_names) * self.tokens.num_steps * self.tokens.batch_size
        return ForwardPasses(network="U-Net", count=count, relative_cost=TO_INPUT)

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path) -> dict[str, Any]:
        import torch
        from rich.progress import Progress, TaskID

        from genaug.generators.tokens.textual_inversion import prepare, save_state, train_tokens
        from genaug.generators.tokens.token_files import write_tokens

        assert prior is not None
        groups, vectors, all_losses = [], {}, []
        network_evaluations, seconds_before = 0, 0.0
        for concept, part in _parts(dataset, separate=bool(prior.erasures)):
            with prior.erased(concept), Progress(transient=True) as progress:
                some, state = prepare(prior, part, self.tokens, self.class_names)
                task = progress.add_task(f"learning {len(some)} token(s) ({self.name})", total=self.tokens.num_steps)
                checkpoint = folder / (CHECKPOINT if concept is None else f"{safe_name(concept, 'token')}.{CHECKPOINT}")

                def on_step(step: int, progress: Progress = progress, task: TaskID = task) -> None:
                    progress.update(task, completed=step)

                state = train_tokens(prior, some, state, self.tokens, checkpoint, on_step)
                save_state(state, checkpoint)  # a run that is interrupted later finds this part done
            network_evaluations += state.network_evaluations
            seconds_before += state.seconds_before
            groups += some
            vectors |= {group.token: state.embeddings[list(group.rows)] for group in some}
            all_losses.append(state.losses.cpu())
        num_edge = max(1, self.tokens.num_steps // 10)
        losses = torch.cat(all_losses, dim=1)
        loss = {
            group.name: {"first_tenth": first, "last_tenth": last}
            for group, first, last in zip(
                groups, losses[:num_edge].mean(dim=0).tolist(), losses[-num_edge:].mean(dim=0).tolist(), strict=True
            )
        }
        about = {
            "preset": self.name,
            "prior": prior.weights,
            "tokens": {group.name: group.token for group in groups},
            "num_vectors": self.tokens.num_vectors,
            "init": self.tokens.init,
            "init_pieces": self.tokens.init_pieces,
            "num_steps": self.tokens.num_steps,
            "batch_size": self.tokens.batch_size,
            "learning_rate": self.tokens.learning_rate,
            "weight_decay": self.tokens.weight_decay,
            "seed": self.tokens.seed,
            "text_encoder_width": next(iter(vectors.values())).shape[1],
            "erased": bool(prior.erasures),
            "images": {name: [sample.digest for sample in samples] for name, samples in _by_name(dataset).items()},
            "templates_left_out": {group.name: group.left_out for group in groups if group.left_out},
            "loss": loss,
        }
        write_tokens(folder, vectors, about)
        _write_losses(folder / "loss.csv", [group.name for group in groups], losses.tolist())
        for checkpoint in folder.glob(f"*{CHECKPOINT}"):
            checkpoint.unlink()
        return {
            "num_steps": self.tokens.num_steps,
            "network_evaluations": network_evaluations,
            "seconds_before": round(seconds_before, 3),
            "loss": loss,
        }

    def prompts(
        self, names: Sequence[str], prior: "Prior", fitted: Path | None
    ) -> "tuple[list[str], LearnedTokens | None]":
        from genaug.generators.tokens.token_files import read_tokens
        from genaug.priors.model import LearnedTokens

        assert fitted is not None
        learned = read_tokens(fitted, list(dict.fromkeys(names)))
        prompts = [self.prompt.replace("{token}", f"<{safe_name(name, 'token')}>") for name in names]
        if not self.class_names:
            check_prompts(prompts, names, prior.word_ids)
        return prompts, LearnedTokens.of(learned)


def _parts(dataset: Dataset, separate: bool) -> Iterator[tuple[str | None, Dataset]]:
    """What is learned in one run: all classes, or one after the other where each has a U-Net of its own."""
    if not separate:
        yield None, dataset
        return
    for name, samples in _by_name(dataset).items():
        yield name, replace(dataset, train=tuple(samples))


def _by_name(dataset: Dataset) -> dict[str, list[Sample]]:
    """The training images of every class that has some."""
    groups = by_class(dataset.train, len(dataset.class_names))
    return {name: samples for name, samples in zip(dataset.class_names, groups, strict=True) if samples}


def _write_losses(path: Path, names: list[str], losses: list[list[float]]) -> None:
    """One row per step, one column per class."""
    import csv

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(safe_name(name, "csv") for name in names)])
        writer.writerows([step + 1, *row] for step, row in enumerate(losses))
