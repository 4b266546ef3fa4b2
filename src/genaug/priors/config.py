"""Which diffusion model a generator uses, and its identity, known without loading it."""

import dataclasses
import functools
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count
from genaug.core.identity import CONTENT, NOT_IDENTITY, canonical, content_by, folder_digest
from genaug.core.registry import component
from genaug.priors.hub import cached_model, check_other, check_reachable
from genaug.priors.layout import PARTS, check_folder, check_parts, check_path, vae_factor

if TYPE_CHECKING:
    from genaug.priors.model import Prior

TINY = "tiny"
PRECISIONS = ("float32", "bfloat16", "float16")
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs", "repeated_blocks")
MOST_SIDE = 8192
"""Pixels of the longest side that a prior can be asked for."""


@component("prior", "prior")
@dataclass(kw_only=True, slots=True)
class PriorConfig:
    """A diffusion model in the diffusers layout: the shipped one, a folder, or a Hub id."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in tables."""
    path: str = field(default=TINY, metadata=content_by("weights"))
    """``tiny`` (ships with the package), a folder with the diffusers layout, or a Hub id such as ``owner/model``."""
    revision: str | None = None
    """Commit or branch of a Hub id."""
    variant: str | None = None
    """File variant, e.g. ``fp16``."""
    unet_sha256: str | None = field(default=None, metadata=NOT_IDENTITY)
    """SHA-256 of the U-Net's weights file without a variant; a Hub model with other weights is refused. Null checks nothing."""
    dtype: str = choice("float32", PRECISIONS)
    """U-Net precision: ``float32``, ``bfloat16`` or ``float16``. VAE, text encoder and schedule stay in float32."""
    vae_dtype: str = choice("float32", PRECISIONS)
    """VAE precision."""
    vae_path: str | None = field(default=None, metadata=CONTENT)
    """Another VAE of the same latents: a folder or a Hub id (``owner/model@revision``). With TAESD (``AutoencoderTiny``),
    previews in a fraction of the time; not for methods that differentiate through the VAE. Null takes the model's own."""
    lora_path: str | None = field(default=None, metadata=CONTENT)
    """A LoRA, merged into the weights: a .safetensors file of kohya's, diffusers' or PEFT's layout, its folder, or a Hub id
    (``owner/model@revision``)."""
    lora_scale: float = bounded(1.0, -100, 100)
    """Share of the LoRA that is merged."""
    image_size: int = count(II("dataset.image_size"), 8, MOST_SIDE)
    """Side in pixels at which images are encoded and generated; a multiple of the VAE's factor (8)."""
    max_image_size: int | None = count(None, 8, MOST_SIDE)
    """Side that the model was trained for: a larger ``image_size`` is brought down to it. Null takes every size."""
    compile: bool = field(default=False, metadata=NOT_IDENTITY)
    """Compile the networks (torch.compile; the U-Net with a constant batch shape). Pays for thousands of images on a GPU."""
    compile_mode: str = choice("default", COMPILE_MODES, metadata=NOT_IDENTITY)
    """``default``; ``max-autotune-no-cudagraphs`` tries several kernels for each product first, for minutes; or
    ``repeated_blocks``: the U-Net's transformer blocks alone, ready in seconds."""
    fuse_qkv: bool = field(default=False, metadata=NOT_IDENTITY)
    """With ``compile``: query, key and value of each attention by one product. Not where weights change: under
    ``leakage=model_centric``, or with a LoRA that is learned."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.max_image_size is not None:
            self.image_size = min(self.image_size, self.max_image_size)

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a Hub id."""
        if self.path == TINY:
            return Path(str(files("genaug.priors") / "assets" / "tiny"))
        path = Path(self.path).expanduser()
        return path if path.is_dir() else None

    def check(self) -> None:
        """Raise ``GenaugError`` for a folder that lacks a part, or a size that the VAE cannot encode."""
        if self.folder is None:
            check_path(self.path)
            return
        check_parts(self.path, self.folder)
        factor = vae_factor(self.path, self.folder)
        if self.image_size % factor:
            raise GenaugError(
                f"prior.image_size={self.image_size} is not a multiple of {factor}, the factor of this VAE."
            )

    def weights(self) -> str:
        """What ``path`` is to an identity: the content of a folder's parts; a Hub id as it is written."""
        if self.folder is None:
            return self.path
        files = [file for part in PARTS for file in sorted((self.folder / part).iterdir()) if file.is_file()]
        return folder_digest(self.folder, files)

    def identity(self) -> Any:
        """Fields and weights: files and folders by their content, a Hub id by its revision."""
        self.check()
        fields = canonical(self)
        for key in ("vae_path", "lora_path"):
            if getattr(self, key) is None:
                fields.pop(key)  # a prior as it always was keeps its identity
        if self.lora_path is None:
            fields.pop("lora_scale")
        return fields

    def check_available(self) -> None:
        """Raise ``GenaugError``, without slow imports or downloads, if the model can neither be found nor fetched."""
        self.check()
        for key in ("vae_path", "lora_path"):
            if getattr(self, key) is not None:
                check_other(f"prior.{key}", getattr(self, key), f"prior.{key}=null")
        if self.folder is not None:
            check_folder(self.path, self.folder)
        elif cached_model(self.path, self.revision, self.variant) is None:
            check_reachable(self.path, self.revision)

    def load(self, device: str) -> "Prior":
        """The model on ``device``, loaded once per process."""
        self.check_available()
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "name"}
        return _load(tuple(fields.items()), device)


@functools.lru_cache(maxsize=1)
def _load(fields: tuple[tuple[str, Any], ...], device: str) -> "Prior":
    from genaug.priors.loading import load_prior

    return load_prior(PriorConfig(**dict(fields)), device)
