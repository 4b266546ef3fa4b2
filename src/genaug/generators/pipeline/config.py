"""Any image-to-image, inpainting or editing pipeline of diffusers as a generator: SDXL, SD 3.5, FLUX, Qwen-Image, Z-Image …

The four papers' methods stay on the Stable Diffusion prior, where their equations are written out. Here the pipeline's own
code does the work, and genaug adds what an experiment needs: one random generator per image, strengths drawn per image,
batches that change nothing, labels that stay true, identity and resumption.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II, MISSING

from genaug.core.cost import LEARNING, ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, positive
from genaug.core.identity import CONTENT, DRAWN, FIT, NOT_IDENTITY, OPTIONAL, canonical, fingerprint
from genaug.core.registry import component, section
from genaug.core.seeding import choice as choose
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.pipeline.lora_fit import PipelineLora
from genaug.generators.sdedit.config import EditsSource
from genaug.generators.sentences import plain_words
from genaug.generators.tokens.prompts import check_prompts, readable
from genaug.priors.hub import check_model, check_other

if TYPE_CHECKING:
    from genaug.generators.labelling.finish import Finish
    from genaug.priors.model import Prior


LEARNED_FOR = (
    "path", "revision", "variant", "dtype", "pipeline_class", "class_names", "prompt", "prompt_without_name", "image_size",
)  # fmt: skip
"""Fields that a learned LoRA depends on."""


@section("generator.lora", "generator/pipeline/lora")
@dataclass(kw_only=True, slots=True)
class Lora:
    """A LoRA in any layout that ``load_lora_weights`` of diffusers reads."""

    path: str | None = field(default=None, metadata=CONTENT)
    """A .safetensors file, a folder with one, or a Hub id with or without ``@revision``; null loads none."""
    scale: float = bounded(1.0, 0, 10)
    """Weight of the LoRA."""


@section("generator.ip_adapter", "generator/pipeline/ip_adapter")
@dataclass(kw_only=True, slots=True)
class IPAdapter:
    """IP-Adapter (arXiv 2308.06721): the source picture as a prompt."""

    path: str | None = field(default=None, metadata=CONTENT)
    """A folder or a Hub id, e.g. ``h94/IP-Adapter``; null loads none."""
    subfolder: str = "models"
    """Folder of the weights below ``path``."""
    weight_name: str = "ip-adapter_sd15.safetensors"
    """File of the weights."""
    scale: float = bounded(0.6, 0, 10)
    """Weight of the picture beside the text."""


@section("generator.control", "generator/pipeline/control")
@dataclass(kw_only=True, slots=True)
class Control:
    """ControlNet (arXiv 2302.05543): the source's structure as a condition."""

    kind: str = choice("none", ("none", "canny", "depth", "boxes"))
    """``canny`` edges (extra ``control``), ``depth`` estimated by ``depth_path``, or outlines of the labelled ``boxes``."""
    path: str | None = field(default=None, metadata=CONTENT)
    """The ControlNet: a folder or a Hub id."""
    depth_path: str = field(default="depth-anything/Depth-Anything-V2-Small-hf", metadata=CONTENT)
    """Depth estimator of transformers: a folder or a Hub id."""
    scale: float = bounded(1.0, 0, 10)
    """Weight of the condition."""
    low: int = count(100, 0, 255)
    """Lower threshold of canny, of 255."""
    high: int = count(200, 0, 255)
    """Upper threshold of canny, of 255."""

    def __post_init__(self) -> None:
        if self.kind != "none" and self.path is None:
            raise GenaugError(
                f"generator.control.kind={self.kind} needs a ControlNet for the chosen model: write "
                "generator.control.path=FOLDER or a Hub id such as lllyasviel/control_v11p_sd15_canny."
            )


@component("generator", "pipeline")
@dataclass(kw_only=True, slots=True)
class Pipeline(EditsSource):
    """Edits each training image with a pipeline of diffusers."""

    path: str = field(default=MISSING, metadata=CONTENT)
    """A folder with a ``model_index.json``, or a Hub id such as ``stabilityai/sdxl-turbo``."""
    revision: str | None = None
    """Commit or branch of a Hub id."""
    variant: str | None = None
    """File variant, e.g. ``fp16``."""
    dtype: str = choice("float32", ("float32", "bfloat16", "float16"))
    """Precision of all weights."""
    pipeline_class: str | None = None
    """A class of diffusers by name, for models that its auto classes do not map (``FluxFillPipeline``,
    ``SanaSprintImg2ImgPipeline``, ``StableDiffusionInstructPix2PixPipeline``); null lets diffusers choose."""
    strength: Any = bounded(0.5, 0, 1, above=True, metadata=DRAWN)
    """How much of the source is redrawn, in (0, 1]: a number, or a list of which one is drawn per image. Null for models that
    edit by instruction and have no strength (Kontext, Qwen-Image-Edit, FLUX.2, InstructPix2Pix)."""
    class_names: bool = II("leakage.class_names")
    """Whether the prompt may name the class."""
    prompt: str = "a photo of a {name}"
    """Prompt where class names are allowed; ``{name}`` is the class name, underscores as blanks."""
    prompt_without_name: str = "a photo"
    """Prompt where they are not."""
    negative_prompt: str = ""
    """What guidance moves away from, for pipelines that take one."""
    guidance: float | None = bounded(None, 0, 100)
    """``guidance_scale``; null keeps the pipeline's own default."""
    num_steps: int = count(30, most=1000)
    """Steps of the whole schedule; at strength s about ``num_steps * s`` of them are taken."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call, e.g. ``{image_guidance_scale: 1.5}``; on the command line
    ``+generator.arguments.true_cfg_scale=4.0``."""
    image_size: int = count(II("dataset.image_size"), 8, 4096)
    """Side in pixels at which the pipeline works; images with boxes keep their aspect ratio at about as many pixels."""
    lora: Lora = field(default_factory=Lora)
    lora_fit: PipelineLora | None = field(default=None, metadata={**FIT, **OPTIONAL})
    """A LoRA learned from the training images (SDXL and FLUX.1); ``+generator/lora_fit=sdxl``, or null for none."""
    ip_adapter: IPAdapter = field(default_factory=IPAdapter)
    control: Control = field(default_factory=Control)
    batch_size: int = count(4, metadata=NOT_IDENTITY)
    """Images per call. A pipeline whose images depend on their batch is found out and called with one image at a time."""
    offload: str = choice("none", ("none", "model", "sequential"), metadata=NOT_IDENTITY)
    """Keep parts of the model in main memory while they idle: ``model`` (whole networks) or ``sequential`` (layers)."""
    batch_tolerance: float = positive(2.0, metadata=NOT_IDENTITY)
    """Grey levels of 255 by which an image may differ between a batch and a call of its own."""

    version: ClassVar[int] = 1
    uses_prior: ClassVar[bool] = False
    weighs_each: ClassVar[bool] = False
    """Whether each image has its own weight of the source picture (``picture_scale``), so that none share a call."""

    def __post_init__(self) -> None:
        EditsSource.__post_init__(self)
        if isinstance(self.strength, list) and not self.strength:
            raise GenaugError("generator.strength=[] holds no value: write a number such as 0.5, a list, or null.")
        for level in self.strength if isinstance(self.strength, list) else [self.strength]:
            if level is not None and self.num_steps * level < 1 - 1e-9:
                raise GenaugError(
                    f"generator.strength={level} with generator.num_steps={self.num_steps} takes no denoising step: write "
                    f"generator.num_steps={-(-1 // level):.0f} or more."
                )

    @property
    def fits(self) -> bool:  # type: ignore[override]
        """Whether a detector is learned for the audit, or a LoRA."""
        return self.audits or self.lora_fit is not None

    def fit_fingerprint(self, dataset: Dataset, prior_identity: Any) -> str:
        own = EditsSource.fit_fingerprint(self, dataset, prior_identity)
        if self.lora_fit is None:
            return own
        every = canonical(self)  # what a LoRA is learned for stands in fields that decide single images, too
        return fingerprint(own, {key: every[key] for key in LEARNED_FOR})

    def fit(self, dataset: Dataset, prior: "Prior | None", folder: Path, device: str = "cpu") -> dict[str, Any]:
        facts = self.learn_auditor(dataset, folder, device)
        if self.lora_fit is None:
            return facts
        from genaug.generators.pipeline.images import load, unload
        from genaug.generators.pipeline.lora_training import learn_pipeline_lora

        text = self.prompt if self.class_names else self.prompt_without_name
        prompts = [text.replace("{name}", readable(dataset.class_names[s.class_index])) for s in dataset.train]
        found = learn_pipeline_lora(load(self, device), dataset, prompts, self.lora_fit, self.image_size, folder)
        unload()
        evaluations = facts.get("network_evaluations", 0) + found["network_evaluations"]
        return {**facts, "lora": found, "network_evaluations": evaluations}

    def fit_forward_passes(self, dataset: Dataset) -> ForwardPasses | None:
        if self.lora_fit is None:
            return EditsSource.fit_forward_passes(self, dataset)
        count = self.lora_fit.num_steps * self.lora_fit.batch_size
        return ForwardPasses(network=f"the denoiser of {self.path}", count=count, relative_cost=LEARNING)

    def check(self, task: str) -> None:
        EditsSource.check(self, task)
        if self.sentences is not None and self.sentences.use == "mean":
            raise GenaugError(
                "generator.sentences.use=mean needs the text features themselves, and pipelines take texts: write "
                "generator.sentences.use=draw."
            )
        folder = Path(self.path).expanduser()
        if folder.is_file():
            raise GenaugError(
                f"generator.path={self.path} is a single file. Write a folder in the diffusers layout (with model_index.json) "
                "or a Hub id; diffusers converts a single file with from_single_file(...).save_pretrained(FOLDER)."
            )
        if folder.is_dir() and not (folder / "model_index.json").is_file():
            raise GenaugError(
                f"generator.path={self.path} has no model_index.json: write the folder that save_pretrained made."
            )
        check_model("generator.path", self.path, self.revision, "model_index.json")
        if self.lora.path is not None:
            check_other("generator.lora.path", self.lora.path, "generator.lora.path=null")
        if self.ip_adapter.path is not None:
            file = f"{self.ip_adapter.subfolder}/{self.ip_adapter.weight_name}"
            check_model("generator.ip_adapter.path", self.ip_adapter.path, file=file)
        if self.control.kind != "none":
            assert self.control.path is not None
            check_model("generator.control.path", self.control.path)
        if self.control.kind == "depth":
            check_model("generator.control.depth_path", self.control.depth_path)

    def check_dataset(self, dataset: Dataset) -> None:
        EditsSource.check_dataset(self, dataset)
        if not self.class_names:
            names = [readable(name) for name in dataset.class_names]
            check_prompts([self.prompt_without_name] * len(names), names, plain_words)

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's own strength, and its sentence where there are some."""
        prompt = self.drawn_prompt(source, index, dataset)
        return prompt if self.strength is None else {"strength": self.drawn_strength(source, index), **prompt}

    def drawn_strength(self, source: Sample, index: int) -> float:
        """The strength of variant ``index`` of ``source``."""
        levels = self.strength if isinstance(self.strength, list) else [self.strength]
        return float(levels[choose(len(levels), self.seed, source.digest, index, "strength")])

    def finish(self, dataset: Dataset, fitted: Path | None, device: str) -> "Finish":
        """What becomes of the edits, with the audit's detector where there is an audit."""
        from genaug.generators.labelling.finish import Finish

        look = None
        if self.audits and dataset.task == "detection":
            assert fitted is not None
            look = self.auditor.eye(len(dataset.class_names), fitted, device)
        return Finish(self, dataset.class_names, look)

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.pipeline.images import edit_images

        return edit_images(self, variants, dataset, self.finish(dataset, fitted, device), device, fitted)

    def picture_scale(self, variant: Variant, dataset: Dataset, device: str) -> float:
        """The IP-Adapter's weight for one image, where ``weighs_each``."""
        raise AssertionError(f"{type(self).__name__} weighs all images alike")

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """Denoising steps, whatever one of them costs in this pipeline."""
        steps = sum(max(int(self.num_steps * variant.draws.get("strength", 1.0)), 1) for variant in variants)
        return ForwardPasses(network=f"the denoiser of {self.path}", count=steps)
