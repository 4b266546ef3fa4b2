"""Models on the Hugging Face Hub: from the local cache, else downloaded, else a message. Imports no torch."""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from genaug.core.errors import GenaugError, boundary
from genaug.priors.layout import PARTS

HUB_TIMEOUT = 5.0  # seconds for the first answer of the Hub
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(?<!\.safetensors)(@[\w./-]+)?$")


def model_folder(path: str, revision: str | None, variant: str | None) -> Path:
    """The snapshot of a Stable-Diffusion-shaped model with all its ``PARTS``."""
    from huggingface_hub import snapshot_download

    if (cached := cached_model(path, revision, variant)) is not None:
        return cached
    check_reachable(path, revision)
    with _explained(path, revision):
        return Path(snapshot_download(path, revision=revision, allow_patterns=_patterns(variant)))


def cached_model(path: str, revision: str | None, variant: str | None) -> Path | None:
    """The snapshot in the local cache, or None if parts of it are missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        patterns = _patterns(variant)
        cached = Path(snapshot_download(path, revision=revision, allow_patterns=patterns, local_files_only=True))
        return cached if all((cached / part).is_dir() for part in PARTS) else None
    return None


def check_reachable(path: str, revision: str | None) -> None:
    """Raise ``GenaugError`` unless the Hub answers, within seconds, that it has the model."""
    from huggingface_hub import HfApi

    with _explained(path, revision):
        HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT)


def _patterns(variant: str | None) -> list[str]:
    suffix = f".{variant}.safetensors" if variant else ".safetensors"
    patterns = [f"{part}/*.{ending}" for part in PARTS for ending in ("json", "txt")]
    return patterns + [f"{part}/{name}{suffix}" for part in PARTS for name in ("model", "diffusion_pytorch_model")]


def _explained(path: str, revision: str | None) -> contextlib.AbstractContextManager[None]:
    return boundary(
        f"prior.path={path} is not in the local cache and the Hub did not give it",
        f"On a machine with network run `{download_command(path, revision)}` and copy the cache here, correct the id, name a "
        "folder in the diffusers layout with prior.path=FOLDER, or use the shipped model with prior=tiny.",
    )


def check_unet(folder: Path, sha256: str) -> None:
    """Raise ``GenaugError`` unless the U-Net's weights in ``folder`` are those of this SHA-256."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise GenaugError(
            f"{file} has the SHA-256 {found}, but prior.unet_sha256={sha256}: the download is damaged, or another model. "
            "Download it again, or write prior.unet_sha256=null if these weights are meant."
        )


def check_other(key: str, path: str, instead: str) -> None:
    """Raise ``GenaugError`` for a path of ``key`` that is neither here nor the Hub's ``owner/model@revision``."""
    if not Path(path).expanduser().exists() and not HUB_ID.match(path):
        raise GenaugError(
            f"{key}={path}: there is no such file or folder, and a Hub id is written owner/model or "
            f"owner/model@revision. Correct it, or write {instead}."
        )


def other_folder(key: str, path: str, patterns: Sequence[str], instead: str) -> Path:
    """The folder of a path or Hub id, with or without ``@revision``, that ``key`` names.

    Args:
        key: of the configuration, e.g. ``prior.vae_path``.
        path: as it is written there.
        patterns: files that are wanted of the Hub's.
        instead: what to write where neither the cache nor the Hub has it, e.g. ``prior.vae_path=null``.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    check_other(key, path, instead)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    model, _, commit = path.partition("@")
    revision = commit or None
    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns), local_files_only=True))
    with boundary(
        f"{key}={path} is neither a file or folder nor in the local cache, and the Hub did not give it",
        f"On a machine with network run `{download_command(model, revision)}` and copy the cache here, or write {instead}.",
    ):
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))


def check_model(key: str, path: str, revision: str | None = None, file: str = "config.json") -> None:
    """Raise ``GenaugError`` unless ``path``, the value of ``key``, is a folder, in the local cache, or known to the Hub.

    Args:
        file: of the model, by which the cache is asked for it.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    if Path(path).expanduser().is_dir():
        return
    if not HUB_ID.match(path) or path.startswith((".", "~")):
        raise GenaugError(f"{key}={path} is neither a folder nor a Hub id: write one of them.")
    if try_to_load_from_cache(path, file, revision=revision):
        return
    with boundary(
        f"{key}={path} is no folder, not in the local cache, and the Hub did not give it",
        f"On a machine with network run `{download_command(path, revision)}` and copy the cache here.",
    ):
        HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT)


def download_command(path: str, revision: str | None) -> str:
    """What to type on a machine with network."""
    return f"hf download {path}" + (f" --revision {revision}" if revision else "")
