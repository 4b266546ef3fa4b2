"""LoRAs of a prior, added to its weights for good or for a while, in every layout in which they are published.

=======================================  ====================================================================
layout                                   names of one layer
=======================================  ====================================================================
kohya, LCM-LoRA, Civitai                 ``lora_unet_<layer, dots as underscores>.lora_up.weight`` with ``.alpha``
diffusers (``save_lora_weights``)        ``unet.<layer>.lora_B.weight``, or ``.lora.up.weight``
PEFT (``save_pretrained``)               ``base_model.model.<layer>.lora_B.weight``; alpha in ``adapter_config.json``
diffusers' old attention processors      ``<block>.processor.to_q_lora.up.weight``
=======================================  ====================================================================

The text encoder's layers (``text_encoder.``, ``lora_te_``) are merged into it likewise.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from genaug.core.errors import GenaugError, boundary
from genaug.priors.deltas import applied
from genaug.priors.hub import other_folder

FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Names under which diffusers and PEFT write a LoRA into a folder."""
UP_OR_DOWN = re.compile(
    r"^(?P<layer>.+?)(?:\.lora_(?P<peft>up|down|A|B)(?:\.default)?|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<old>up|down))\.weight$"
)
UNET = re.compile(r"^(?:base_model\.model\.)?(?:unet\.|lora_unet_|(?=(?:down_blocks|up_blocks|mid_block|conv_|time_)))")
TEXT = re.compile(r"^(?:base_model\.model\.)?(?:text_encoder\.|lora_te1?_|(?=text_model))(?:text_model[._])?")
OLD_TEXT_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
OTHER_KINDS = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude": "DoRA",
    "lora_mid": "LoCon with CP",
}
"""Pieces of names that belong to other adapters than LoRA."""


def lora_file(key: str, path: str) -> Path:
    """The file of the LoRA that ``key`` names: itself, or the one in a folder or in the Hub's ``owner/model@revision``.

    Raises:
        GenaugError: if there is none, or one of several is meant.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    folder = other_folder(key, path, ("*.safetensors", "adapter_config.json"), f"{key}=null")
    found = [folder / name for name in FILES if (folder / name).is_file()] or sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "no .safetensors file"
        raise GenaugError(f"{key}={path} holds {listed}: write {key}={path}/FILE.safetensors.")
    return found[0]


@dataclass(kw_only=True, slots=True)
class Layer:
    """The tensors of one layer."""

    up: Tensor | None = None
    """[out, rank] or [out, rank, 1, 1]."""
    down: Tensor | None = None
    """[rank, in] or [rank, in, k, k]."""
    alpha: float | None = None
    name: str = ""
    """One of their names in the file."""


def merge_lora(models: Mapping[str, nn.Module], path: Path, scale: float) -> None:
    """Add ``scale`` times the change of a LoRA to the weights of ``unet`` and ``text_encoder``; raises as ``lora_changes``."""
    for part, changes in lora_changes(models, path).items():
        own = dict(models[part].named_parameters())
        with torch.no_grad():
            for name, change in changes.items():
                own[name].add_(scale * change.to(own[name]))


@contextlib.contextmanager
def with_lora(models: Mapping[str, nn.Module], path: Path) -> Iterator[None]:
    """``unet`` and ``text_encoder`` with a LoRA in their weights, which are restored exactly afterwards."""
    with contextlib.ExitStack() as stack:
        for part, changes in lora_changes(models, path).items():
            stack.enter_context(applied(models[part], changes))
        yield


def lora_changes(models: Mapping[str, nn.Module], path: Path) -> dict[str, dict[str, Tensor]]:
    """By model, the change alpha / rank * up @ down of each weight that a LoRA names; alpha is the rank unless the file has it.

    Args:
        models: ``unet`` and ``text_encoder``.
        path: a .safetensors file; PEFT's ``adapter_config.json`` beside it is read.

    Raises:
        GenaugError: if the file cannot be read, holds another kind of adapter, or names layers that these models do not have.
    """
    with boundary(f"prior.lora_path={path} cannot be read", "Copy or download the file again."):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            facts = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        config = path.with_name("adapter_config.json")
        facts |= json.loads(config.read_text()) if config.is_file() else {}
    for piece, kind in OTHER_KINDS.items():
        if found := next((name for name in tensors if piece in name), None):
            raise GenaugError(
                f"prior.lora_path={path} is a {kind} adapter ({found}), a layout that is not read: choose a plain LoRA, or "
                "merge it with the tool that made it and name the merged model with prior.path."
            )
    targets = {
        (part, _flat(part, name)): (name, layer)
        for part, model in models.items()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    changes: dict[str, dict[str, Tensor]] = {}
    for place, layer in _layers(tensors, path).items():
        name, target = targets.get(place, ("", None))
        if target is None or layer.up is None or layer.down is None:
            raise GenaugError(
                f"prior.lora_path={path} names {layer.name}, to which this model has no layer (or the file no other half): "
                "choose a LoRA in one of the layouts of kohya, diffusers or PEFT that was made for this model."
            )
        rank = layer.down.shape[0]
        change = layer.up.float().flatten(1) @ layer.down.float().flatten(1)
        if change.numel() != target.weight.numel() or len(change) != len(target.weight):
            raise GenaugError(
                f"prior.lora_path={path}: {layer.name} changes {tuple(change.shape)} weights, and the layer of this model has "
                f"{tuple(target.weight.shape)}: the LoRA was made for another model."
            )
        strength = _strength(layer.alpha, rank, facts)
        changes.setdefault(place[0], {})[f"{name}.weight"] = strength * change.view_as(target.weight)
    return changes


def _flat(part: str, name: str) -> str:
    """A layer's name without the difference between dots and underscores, which kohya's names do not have."""
    return (name.removeprefix("text_model.") if part == "text_encoder" else name).replace(".", "_")


def _layers(tensors: Mapping[str, Tensor], path: Path) -> dict[tuple[str, str], Layer]:
    """The layers of a file by model and flat name."""
    layers: dict[tuple[str, str], Layer] = {}
    for name, tensor in tensors.items():
        match = UP_OR_DOWN.match(name)
        stem = match.group("layer") if match else name.removesuffix(".alpha")
        prefix = TEXT.match(stem) or UNET.match(stem)
        if prefix is None or (match is None and not name.endswith(".alpha")):
            raise GenaugError(
                f"prior.lora_path={path} names {name}, which no known layout of a LoRA has: choose a LoRA of Stable Diffusion "
                "in the layout of kohya, diffusers or PEFT."
            )
        part = "text_encoder" if TEXT.match(stem) else "unet"
        words = stem[prefix.end() :].replace(".processor", "").split(".")
        if match and match.group("old") and words[-1] in OLD_TEXT_LAYERS:  # old names of the layers themselves
            words[-1:] = [OLD_TEXT_LAYERS[words[-1]]] if part == "text_encoder" else words[-1:]
            words += ["0"] if words[-1] == "to_out" else []
        layer = layers.setdefault((part, "_".join(words)), Layer(name=name))
        if match is None:
            layer.alpha = float(tensor)
        elif (match.group("peft") or match.group("old")) in ("up", "B"):
            layer.up = tensor
        else:
            layer.down = tensor
    return layers


def _strength(alpha: float | None, rank: int, facts: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) where PEFT's configuration says so; alpha from the file, else from there."""
    plain = {key.removeprefix("unet."): value for key, value in facts.items()}
    if alpha is None:
        alpha = float(plain.get("lora_alpha", rank))
    return alpha / (rank**0.5 if plain.get("use_rslora") else rank)
