"""DreamDA (Fu, Chen, Qiao, Yu, arXiv 2403.12803): invert a real image, then denoise it again with a noisy U-Net bottleneck.

The layout of the source is kept by the inversion's noise codes; the noise on the bottleneck changes its semantics. What the
paper leaves open, or says differently from its released code, is an option here. ``process.py`` is the mathematics.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, probability
from genaug.core.identity import CONTENT, DRAWN, NOT_IDENTITY, content_digest
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import TRAIN_STEPS, Generated, Generator, Variant, check_first_step, steps_taken
from genaug.generators.sentences import pick, read_sentences, sentences_of
from genaug.generators.tokens.prompts import check_prompts, readable

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "dreamda")
@dataclass(kw_only=True, slots=True)
class DreamDA(Generator):
    """Variants of each source by noise on the bottleneck of the reverse process."""

    sigma: float = bounded(1.0, 0, 1e4)
    """sigma_h, the strength of the bottleneck noise; 0 adds none. The released code: 3, absolute, for Stable Diffusion 1.5."""
    sigma_mode: str = choice("relative", ("absolute", "relative"))
    """``absolute``: standard deviation of the noise. ``relative``: multiple of the bottleneck's own standard deviation, per
    image and step, which carries over from one model to another (ours)."""
    sigma_unit: float = bounded(1.0, 0, 1e4, above=True)
    """Multiple of the bottleneck's standard deviation that sigma=1 means in the ``relative`` mode; priors whose up blocks
    react little to the bottleneck need a large one."""
    process: str = choice("symmetric", ("symmetric", "asymmetric"))
    """``symmetric`` (the released code): the perturbed noise estimate enters both terms of a step. ``asymmetric`` (the paper's
    figure): only the predicted clean image; for one sigma about 13 times as strong at 100 steps."""
    noise_rows: str = choice("independent", ("independent", "shared"))
    """``independent`` (the released code): the unconditional and the conditional row get their own noise, which guidance w
    enlarges by sqrt((w - 1)^2 + w^2). ``shared``: one noise for both (ours)."""
    t_edit: int = count(0, 0, TRAIN_STEPS)
    """Perturb only while t >= t_edit, 0 to 1000 (Asyrp's window); 0 perturbs every step, as the released code."""

    num_steps: int = count(50, 1, TRAIN_STEPS)
    """N, steps of the whole schedule; a divisor of 1000. ``floor(N t0)`` are taken. The released code: 100."""
    t0: float = bounded(0.8, 0, 1, above=True)
    """Strength in (0, 1]: the share of the schedule to which the source is inverted."""
    eta: float = probability(1.0)
    """Stochasticity of the process: 1 as in the released code. Above 0 for ``cycle`` and ``edit_friendly``, 0 for ``ddim``."""
    guidance: float = bounded(7.5, 0, 100)
    """w of classifier-free guidance for the variants. With an empty prompt the noise alone tells the two rows apart."""
    source_guidance: float = bounded(1.5, 0, 100)
    """w for the source; without effect while ``source_prompt`` is empty."""
    inversion: str = choice("cycle", ("cycle", "edit_friendly", "ddim", "none"))
    """``cycle``: CycleDiffusion's posterior encoder (arXiv 2210.05559), as the released code. ``edit_friendly``: DDPM inversion
    (arXiv 2304.06140). ``ddim``: deterministic. ``none``: SDEdit's start, the source plus noise."""
    source_codes: str = choice("shared", ("shared", "fresh"))
    """``shared``: one inversion per source for all its variants. ``fresh`` (the released code): one per variant, more diverse
    and about half as much work again."""
    start: str = choice("per_source", ("per_source", "per_variant"))
    """Noise of the most noisy latent: one per source (the released code), or ``per_variant``."""

    class_names: bool = II("leakage.class_names")
    """Whether prompts may name the class."""
    prompts: str = choice("template", ("template", "file", "none"))
    """``template``, ``file`` (sentences of ``prompts_file``) or ``none``: the empty prompt."""
    prompt: str = field(default="a photo of a {name}", metadata=DRAWN)
    """The template where class names are allowed; ``{name}`` is the class name with the article that fits."""
    prompt_without_name: str = field(default="", metadata=DRAWN)
    """The template under data-centric leakage prevention. If empty, sigma=0 gives the source back."""
    prompts_file: str | None = field(default=None, metadata=DRAWN | CONTENT)
    """JSONL rows ``{"class": name, "text": sentence}``, one of a class drawn per image, or ``{"file_name": id, "text":
    sentence}`` for one image; or a CSV file with such columns. Its content counts for the identity, not its place."""
    prompt_per_variant: bool = field(default=False, metadata=DRAWN)
    """Draw a sentence for each variant; false gives all variants of an image the same one, as the released code."""
    source_prompt: str = choice("empty", ("empty", "same"))
    """Prompt of the inversion: ``empty`` (the released code), or the ``same`` as the variants'."""

    encode: str = choice("mean", ("mean", "sample"))
    """Source latent: the ``mean`` of the VAE's posterior, or a ``sample`` of it (the released code)."""
    resize: str = choice("crop", ("crop", "squash"))
    """``crop`` the centre square, or ``squash`` to a square (the released code)."""
    allow_strong: bool = field(default=False, metadata=NOT_IDENTITY)
    """Permit process=asymmetric with an absolute sigma above 1, which leaves nothing of the source."""
    batch_size: int = count(16, metadata=NOT_IDENTITY)
    """Variants denoised at once, and sources inverted at once."""

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if TRAIN_STEPS % self.num_steps:
            near = min(
                (n for n in range(1, TRAIN_STEPS + 1) if TRAIN_STEPS % n == 0), key=lambda n: abs(n - self.num_steps)
            )
            raise GenaugError(f"generator.num_steps={self.num_steps} must divide {TRAIN_STEPS}: write e.g. {near}.")
        check_first_step("num_steps", self.num_steps, self.t0)
        if self.num_taken < 1:
            raise GenaugError(
                f"generator.t0={self.t0} of generator.num_steps={self.num_steps} is less than one step: "
                f"write generator.t0={1 / self.num_steps:g} or more, or more steps."
            )
        if self.inversion in ("cycle", "edit_friendly") and self.eta == 0:
            raise GenaugError(
                f"generator.eta={self.eta} must lie in (0, 1] for generator.inversion={self.inversion}, whose noise codes are "
                "undefined without noise. For a deterministic process write generator.inversion=ddim generator.eta=0."
            )
        if self.inversion == "ddim" and self.eta != 0:
            raise GenaugError(
                f"generator.inversion=ddim is deterministic: write generator.eta=0 instead of {self.eta}."
            )
        if self.source_codes == "shared" and self.start == "per_variant":
            raise GenaugError(
                "generator.start=per_variant needs its own inversion of the source per variant: "
                "write generator.source_codes=fresh, or generator.start=per_source."
            )
        if self.process == "asymmetric" and self.sigma_mode == "absolute" and self.sigma > 1 and not self.allow_strong:
            raise GenaugError(
                f"generator.sigma={self.sigma} is an absolute value for the symmetric process; the asymmetric one is about 13 "
                "times as strong, so nothing of the source would remain. Write generator.sigma=0.23 for the effect of the "
                "released 3, or generator.allow_strong=true."
            )
        self._check_prompts_file()

    def _check_prompts_file(self) -> None:
        if (self.prompts == "file") != (self.prompts_file is not None):
            raise GenaugError(
                f"generator.prompts={self.prompts} and generator.prompts_file={self.prompts_file} do not go together: "
                "write both generator.prompts=file and generator.prompts_file=FILE.jsonl, or neither."
            )
        if self.prompts_file is not None and not Path(self.prompts_file).expanduser().is_file():
            raise GenaugError(f"generator.prompts_file={self.prompts_file} is not a file.")

    @property
    def num_taken(self) -> int:
        """K: steps of the inversion and of the reverse process."""
        return steps_taken(self.num_steps, self.t0)

    def check(self, task: str) -> None:
        """Also whether the prompts agree with leakage prevention."""
        if task != "classification":
            raise GenaugError(
                f"generator={self.name} changes where things are in an image, so the boxes of {task} data would not hold. "
                "Choose a generator that keeps them, or classification data."
            )
        if self.prompts == "file" and not self.class_names:
            raise GenaugError(
                "generator.prompts=file describes classes in words, which leakage=data_centric forbids. "
                "Write leakage=none, or generator.prompts=none."
            )

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's prompt."""
        if self.prompts == "none":
            return {"prompt": ""}
        name = readable(dataset.class_names[source.class_index])
        if self.prompts == "template":
            return {"prompt": with_name(self.prompt, name) if self.class_names else self.prompt_without_name}
        assert self.prompts_file is not None
        known = read_sentences(
            self.prompts_file, content_digest(Path(self.prompts_file).expanduser()), "generator.prompts_file"
        )
        if found := sentences_of(known, source, name):
            return {"prompt": pick(found, self.seed, source.digest, *([index] if self.prompt_per_variant else []))}
        raise GenaugError(
            f"generator.prompts_file={self.prompts_file} has no sentence for the class '{name}'. "
            f'Add a line such as {{"class": "{name}", "text": "a photo of ..."}}.'
        )

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.dreamda.batches import perturbed_images

        assert prior is not None
        if prior.compiled not in (None, "repeated_blocks") and self.sigma > 0:
            raise GenaugError(
                f"generator={self.name} changes the inside of the U-Net, which a graph compiled as a whole does not allow. "
                "Write prior.compile_mode=repeated_blocks, or prior.compile=false."
            )
        if not self.class_names:
            names = [readable(dataset.class_names[v.source.class_index]) for v in variants]
            check_prompts([v.draws["prompt"] for v in variants], names, prior.word_ids)
        yield from perturbed_images(prior, variants, self)

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """Those of the inversions and of the reverse processes."""
        total = 0
        sources: set[str] = set()
        window = sum(k * (TRAIN_STEPS // self.num_steps) + 1 >= self.t_edit for k in range(self.num_taken))
        perturbed = window if self.sigma > 0 else 0
        for variant in variants:
            pair = 2 if variant.draws["prompt"] else 1
            noisy = 1 if pair == 1 and self.noise_rows == "shared" else 2
            total += (
                perturbed * (noisy + (pair if self.process == "asymmetric" else 0))
                + (self.num_taken - perturbed) * pair
            )
            inverted = variant.source.digest if self.source_codes == "shared" else variant.fingerprint
            if self.inversion != "none" and inverted not in sources:
                sources.add(inverted)
                total += self.num_taken * (pair if self.source_prompt == "same" else 1)
        return ForwardPasses(network="U-Net", count=total)


def with_name(template: str, name: str) -> str:
    """The template with the class name, after "an" instead of "a" where it begins with a vowel."""
    if name[:1].lower() in "aeiou":
        template = template.replace("a {name}", "an {name}").replace("A {name}", "An {name}")
    return template.replace("{name}", name)
