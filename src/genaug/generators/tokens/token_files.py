"""Files of learned tokens: what genaug writes, and every format that others write.

Written: per class ``word/learned_embeds.safetensors`` with one key ``<word>`` [v, d], which diffusers'
``load_textual_inversion`` reads, and for all classes ``class_tokens.safetensors`` with ``class_tokens.json`` beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import read_json, write_json
from genaug.generators.tokens.prompts import class_tokens, token_of

ALL_TOKENS, ABOUT_TOKENS, ONE_TOKEN = "class_tokens.safetensors", "class_tokens.json", "learned_embeds.safetensors"


def write_tokens(folder: Path, vectors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Write ``{"<word>": [v, d]}`` per class and together; ``about`` becomes ``class_tokens.json``."""
    cpu = {name: vector.detach().cpu().contiguous() for name, vector in vectors.items()}
    if broken := [name for name, vector in cpu.items() if not torch.isfinite(vector).all()]:
        raise GenaugError(
            f"The token {broken[0]} became NaN or infinite while it was learned: write a smaller "
            "generator.tokens.learning_rate."
        )
    for name, vector in cpu.items():
        (folder / name.strip("<>")).mkdir(parents=True, exist_ok=True)
        save_file({name: vector}, folder / name.strip("<>") / ONE_TOKEN, metadata={"format": "pt"})
    save_file(cpu, folder / ALL_TOKENS, metadata={"format": "pt"})
    write_json(folder / ABOUT_TOKENS, about)


def read_tokens(folder: Path, class_names: Sequence[str]) -> dict[str, Tensor]:
    """The tokens of these classes from a folder that ``write_tokens`` filled.

    Raises:
        GenaugError: if there is none for some class, or it has fewer vectors than were learned; it lists the classes.
    """
    path = folder / ALL_TOKENS
    vectors = read_embeddings(path) if path.is_file() else {}
    about = read_json(folder / ABOUT_TOKENS) or {}
    tokens = dict(zip(class_tokens(class_names), class_names, strict=True))
    wrong = [name for token, name in tokens.items() if len(vectors.get(token, ())) != about.get("num_vectors")]
    if wrong:
        raise GenaugError(
            f"{path} holds no complete token for: {', '.join(wrong)}. "
            f"Delete {folder} and run again: the tokens are learned again."
        )
    return {token: vectors[token] for token in tokens}


def read_embeddings(path: Path, class_names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Learned embeddings ``{token: float32 [v, d]}`` of a file in any of the known formats.

    * ``{token: [d] | [1, d] | [v, d]}`` for one or many tokens (diffusers, DA-Fusion), safetensors or pickled tensors;
    * ``string_to_param["*"]`` (A1111 and the original code): the token is called after its ``name``, else the file;
    * ``learned_embeds`` [C, d] or [C, v, d] in class order (DiffDA-Eval), which needs ``class_names``.

    Raises:
        GenaugError: for a file that is none of these, or belongs to SDXL.
    """
    with boundary(
        f"{path} cannot be read as learned embeddings", "Write a .safetensors file, or one of plain tensors."
    ):
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise GenaugError(f"{path} holds a {type(content).__name__}, not a mapping from token to embedding.")
    if "string_to_param" in content:
        name = str(content.get("name") or path.stem)
        with boundary(f"{path} holds no embedding under string_to_param"):
            content = {token_of(name): next(iter(content["string_to_param"].values()))}
    elif "learned_embeds" in content:
        table = content["learned_embeds"]
        if class_names is None or len(class_names) != len(table):
            raise GenaugError(f"{path} holds {len(table)} embeddings without names: give its class list, in order.")
        content = dict(zip(class_tokens(class_names), table, strict=True))
    elif {"clip_l", "clip_g"} & content.keys():
        raise GenaugError(
            f"{path} holds embeddings of SDXL's two text encoders; learn tokens with Stable Diffusion 1 or 2."
        )
    vectors = {}
    for token, vector in content.items():
        if not isinstance(vector, Tensor) or vector.ndim not in (1, 2):
            raise GenaugError(f"{path}: '{token}' is no embedding [d] or [v, d].")
        vectors[token] = vector.detach().float().reshape(-1, vector.shape[-1])
    return vectors
