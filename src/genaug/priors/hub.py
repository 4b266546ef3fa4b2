"""Models on the Hugging Face Hub: from the local cache, else downloaded, else a message. Imports no torch."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from genaug.errors import GenaugError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
HUB_TIMEOUT = 5.0  # seconds for the first answer of the Hub


def model_folder(path: str, revision: str | None, variant: str | None) -> Path:
    """The snapshot of a Stable-Diffusion-shaped model with all its ``PARTS``."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    suffix = f".{variant}.safetensors" if variant else ".safetensors"
    patterns = [f"{part}/*.{ending}" for part in PARTS for ending in ("json", "txt")]
    patterns += [f"{part}/{name}{suffix}" for part in PARTS for name in ("model", "diffusion_pytorch_model")]
    with contextlib.suppress(LocalEntryNotFoundError):
        cached = snapshot_download(path, revision=revision, allow_patterns=patterns, local_files_only=True)
        if all((Path(cached) / part).is_dir() for part in PARTS):
            return Path(cached)
    command = f"hf download {path}" + (f" --revision {revision}" if revision else "")
    try:
        HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT)
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the Hub's client raises its transport's own errors, which change between releases
        raise GenaugError(
            f"prior.path={path} is not in the local cache and the Hub did not give it ({first_line(error)}). "
            f"On a machine with network run `{command}` and copy the cache here, correct the id, name a folder in the "
            "diffusers layout with prior.path=FOLDER, or use the shipped model with prior=tiny."
        ) from error


def other_folder(key: str, path: str, patterns: Sequence[str]) -> Path:
    """The folder of a path or Hub id that ``prior.<key>`` names."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(path, allow_patterns=list(patterns), local_files_only=True))
    try:
        HfApi().model_info(path, timeout=HUB_TIMEOUT)
        return Path(snapshot_download(path, allow_patterns=list(patterns)))
    except Exception as error:  # as above
        raise GenaugError(
            f"prior.{key}={path} is neither a file or folder nor in the local cache, and the Hub did not give it "
            f"({first_line(error)}). On a machine with network run `hf download {path}` and copy the cache here, or "
            f"write prior.{key}=null."
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
