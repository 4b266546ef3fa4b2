"""Changes of a model's weights: stored as safetensors, put in place for a while, and taken back exactly."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from genaug.core.errors import GenaugError

DELTA = "delta.safetensors"


@contextlib.contextmanager
def weights_of(unet: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put ``values`` in place of the named weights; afterwards the very same bits as before are back."""
    own = dict(unet.named_parameters())
    kept = {name: own[name].detach().clone() for name in values}
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                own[name].copy_(value)


@contextlib.contextmanager
def applied(unet: nn.Module, delta: Mapping[str, Tensor]) -> Iterator[None]:
    """The U-Net with ``delta`` added to its weights, and restored exactly afterwards."""
    own = dict(unet.named_parameters())
    changed = {name: own[name].detach().float() + change.to(own[name].device).float() for name, change in delta.items()}
    with weights_of(unet, changed):
        yield


def save_delta(path: Path, delta: Mapping[str, Tensor], storage: str, about: Mapping[str, Any]) -> None:
    """Write a change of weights in the number format ``storage``, with facts in the file's header."""
    dtype = getattr(torch, storage)
    stored = {name: change.to(dtype).contiguous() for name, change in delta.items()}
    save_file(stored, path, metadata={"format": "pt", "genaug": json.dumps(dict(about))})


def load_delta(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The change of weights and what its header says.

    Raises:
        GenaugError: if the file is absent or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("genaug", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about
    except Exception as error:  # safetensors raises its own error class for damaged files
        raise GenaugError(
            f"{path} cannot be read ({error}). Delete its folder and run again: only this is made anew."
        ) from error


def merge_lora(unet: nn.Module, path: Path, scale: float) -> None:
    """Add ``scale * alpha / rank * up @ down`` to each weight that a LoRA names.

    Reads both common layouts: ``lora_unet_<layer, dots as underscores>.lora_up.weight`` with ``.alpha`` (kohya, LCM-LoRA)
    and ``unet.<layer>.lora_B.weight`` (diffusers).

    Raises:
        GenaugError: if the file cannot be read, or names layers that this U-Net does not have.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:  # safetensors raises its own error class for damaged files
        raise GenaugError(f"prior.lora_path: {path} cannot be read ({error}).") from error
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    used: set[str] = set()
    for name, layer in layers.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        for up, down, alpha in (
            (f"{flat}.lora_up.weight", f"{flat}.lora_down.weight", f"{flat}.alpha"),
            (f"unet.{name}.lora_B.weight", f"unet.{name}.lora_A.weight", f"unet.{name}.alpha"),
        ):
            if up in tensors and down in tensors:
                rank = tensors[down].shape[0]
                strength = scale * (float(tensors[alpha]) / rank if alpha in tensors else 1.0)
                change = tensors[up].float().flatten(1) @ tensors[down].float().flatten(1)
                with torch.no_grad():
                    layer.weight += strength * change.view_as(layer.weight).to(layer.weight)
                used |= {up, down, alpha}
    unknown = sorted(set(tensors) - used)
    if unknown:
        raise GenaugError(
            f"prior.lora_path: {path} names layers that this U-Net does not have, e.g. {unknown[0]}: choose a LoRA of the "
            "U-Net alone, made for this model."
        )
