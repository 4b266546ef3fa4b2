"""DA-Fusion (Trabucco et al., arXiv 2302.07944): SDEdit of every training image under a learned token of its class.

``fit`` learns one token per class by textual inversion on the training images; ``generate`` edits each image under
"a photo of a <class>", from a level t0 drawn per image. With ``lora`` the prior itself learns from the training images, too.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core import seeding
from genaug.core.cost import TO_INPUT, ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded
from genaug.core.identity import DRAWN, FIT, OPTIONAL
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.lora.config import LoraFit
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.prompts import check_prompts, noisy, readable, token_of

if TYPE_CHECKING:
    from genaug.priors.model import LearnedTokens, Prior


@component("generator", "da_fusion")
@dataclass(kw_only=True, slots=True)
class DAFusion(ImageToImage):
    """Textual inversion of the classes, then SDEdit under their tokens."""

    t0: Any = bounded([0.25, 0.5, 0.75, 1.0], 0, 1, above=True, metadata=DRAWN)
    """As ``ImageToImage.t0``; the paper's k = 4 levels."""
    prompt: str = "a photo of a {token}"
    """Prompt of the images; ``{token}`` is the learned token of the class."""
    tokens: TextualInversion = field(default_factory=TextualInversion, metadata=FIT)
    """How the tokens are learned."""
    lora: LoraFit | None = field(default=None, metadata={**FIT, **OPTIONAL})
    """A LoRA of the prior, learned after and with the tokens (``+generator/lora=diff_mix_tiny``); null learns none."""
    token_noise: Any = bounded(None, 0, 10, metadata={**DRAWN, **OPTIONAL})
    """Standard deviation of normal noise on the learned vectors (DIAGen, arXiv 2408.14584): a number, or a list of which one is
    drawn per image; a class has one noise for each. Null adds none."""
    class_names: bool = field(default=II("leakage.class_names"), metadata=FIT)
    """Whether class names may be known. If not, no initial word and no template may hold a word of the class name."""

    version: ClassVar[int] = 1
    fits: ClassVar[bool] = True
    fills: ClassVar[tuple[str, ...]] = ("{token}", "{name}")

    def __post_init__(self) -> None:
        ImageToImage.__post_init__(self)
        if "{token}" not in self.prompt:
            raise GenaugError(
                f"generator.prompt='{self.prompt}' lacks {{token}}: write for example 'a photo of a {{token}}'."
            )
        if not self.tokens.num_steps and self.lora is None:
            raise GenaugError(
                "generator.tokens.num_steps=0 leaves the tokens at their initial word: write a number of steps, or learn them "
                "with a LoRA (+generator/lora=diff_mix)."
            )
        if self.tokens.init == "class_name" and not self.class_names:
            raise GenaugError(
                "generator.tokens.init=class_name starts each token from the class's own name, which "
                "leakage=data_centric forbids. Write generator.tokens.init=the, or allow class names with leakage=none."
            )

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's level, its sentence and its token's noise, where there are such."""
        return {**ImageToImage.draw(self, source, index, dataset), **self.drawn_noise(source, index)}

    def drawn_noise(self, source: Sample, index: int) -> dict[str, Any]:
        """The noise of the token in this image's draws; nothing without ``token_noise``."""
        if self.token_noise is None:
            return {}
        levels = self.token_noise if isinstance(self.token_noise, list) else [self.token_noise]
        drawn = levels[seeding.choice(len(levels), self.seed, source.digest, index, "token_noise")]
        return {"token_noise": float(drawn)}

    @property
    def trains_prior(self) -> bool:
        return self.lora is not None

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses:
        """One per class, step and sample, with a gradient to the token; then one per image and step of the LoRA, whose gradient
        costs about as much: its own weights are few."""
        count = len(dataset.class_names) * self.tokens.num_steps * self.tokens.batch_size
        if self.lora is not None:
            count += self.lora.num_steps * self.lora.batch_size
        return ForwardPasses(network="U-Net", count=count, relative_cost=TO_INPUT)

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        assert prior is not None
        how: dict[str, Any] = {"class_names": self.class_names, "preset": self.name}
        if self.lora is None:
            from genaug.generators.tokens.learning import learn_tokens

            about = learn_tokens(prior, dataset, self.tokens, folder, **how)
        else:
            from genaug.generators.lora.fitting import learn_lora

            about = learn_lora(prior, dataset, self.lora, self.tokens, folder, **how)
        return {**about, **ImageToImage.fit(self, dataset, prior, folder, device)}

    def adapted(self, prior: "Prior", fitted: Path | None) -> AbstractContextManager[None]:
        if self.lora is None:
            return nullcontext()
        from genaug.priors.lora import FILES, with_lora

        assert fitted is not None
        return with_lora({"unet": prior.unet, "text_encoder": prior.text_encoder}, fitted / FILES[0])

    def prompts(
        self, names: Sequence[str], prior: "Prior", fitted: Path | None, draws: Sequence[Mapping[str, Any]] = ()
    ) -> "tuple[list[str], LearnedTokens | None]":
        from genaug.generators.tokens.learning import learned_tokens
        from genaug.generators.tokens.noise import with_noise

        assert fitted is not None
        draws = draws or [{}] * len(names)
        tokens = [noisy(token_of(name), draw.get("token_noise", 0)) for name, draw in zip(names, draws, strict=True)]
        prompts = [
            draw.get("prompt", self.prompt)
            .replace("{token}", self.tokens.in_prompt(token))
            .replace("{name}", readable(name))
            for draw, token, name in zip(draws, tokens, names, strict=True)
        ]
        if not self.class_names:
            check_prompts(prompts, names, prior.word_ids)
        learned = learned_tokens(fitted, names)
        return prompts, learned if self.token_noise is None else with_noise(learned, tokens, self.seed)
