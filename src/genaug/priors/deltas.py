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

from genaug.core.errors import boundary

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
    with (
        boundary(f"{path} cannot be read", "Delete its folder and run again: only this is made again."),
        safe_open(path, framework="pt") as file,
    ):
        about = json.loads((file.metadata() or {}).get("genaug", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, about
