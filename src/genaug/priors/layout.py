"""What a prior's folder must hold, read from its small files: what is wrong is said before weights are read or images made."""

import json
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError, boundary

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
CONFIGS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "scheduler": "scheduler_config.json",
}
WEIGHTS = (".safetensors", ".bin")
SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
PREDICTIONS = ("epsilon", "v_prediction")
AGAIN = "Copy or download the model again, or name another folder."


def check_path(path: str) -> None:
    """Raise ``GenaugError`` for a path that is neither a folder nor a Hub id; a single file is answered with the way out."""
    file = Path(path).expanduser()
    if file.is_file():
        raise GenaugError(
            f"prior.path={path} is a single file, and a prior is a folder in the diffusers layout. Convert it once, e.g. "
            f"`python -c \"from diffusers import StableDiffusionPipeline as P; P.from_single_file('{path}')"
            ".save_pretrained('FOLDER')\"`, and write prior.path=FOLDER. A LoRA belongs in prior.lora_path."
        )
    if file.suffix in SINGLE_FILES or path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise GenaugError(
            f"prior.path={path} is neither a folder nor a Hub id. Write a folder in the diffusers layout "
            f"({', '.join(f'{part}/' for part in PARTS)}) or an id such as owner/model."
        )


def check_parts(path: str, folder: Path) -> None:
    """Raise ``GenaugError`` for a folder that lacks a part."""
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise GenaugError(
            f"prior.path={path} lacks {', '.join(f'{part}/' for part in missing)}: a prior is a folder in the "
            f"diffusers layout with {', '.join(f'{part}/' for part in PARTS)}."
        )


def vae_factor(path: str, folder: Path) -> int:
    """Pixels per latent, along each side."""
    with boundary(f"prior.path={path}: vae/config.json says nothing of the VAE's blocks", AGAIN):
        return 2 ** (len(read_config(path, folder, "vae")["block_out_channels"]) - 1)


def read_config(path: str, folder: Path, part: str) -> dict[str, Any]:
    """The JSON object that describes a part.

    Raises:
        GenaugError: if it is absent or damaged.
    """
    return _read_object(path, folder, part, CONFIGS[part])


def _read_object(path: str, folder: Path, part: str, name: str) -> dict[str, Any]:
    with boundary(f"prior.path={path}: {part}/{name} cannot be read", AGAIN):
        content = json.loads((folder / part / name).read_bytes())
        if not isinstance(content, dict):
            raise TypeError(f"it holds {type(content).__name__}")
        return content


def check_folder(path: str, folder: Path) -> None:
    """Raise ``GenaugError`` unless the parts are those of a Stable Diffusion 1 or 2 and fit each other.

    Args:
        path: as the user wrote it.
        folder: where it is.
    """
    unet, vae, text, schedule = (read_config(path, folder, part) for part in CONFIGS)
    for part, config, known in (
        ("unet", unet, ("UNet2DConditionModel",)),
        ("vae", vae, ("AutoencoderKL", "AutoencoderTiny")),
    ):
        if config.get("_class_name", known[0]) not in known:
            raise GenaugError(
                f"prior.path={path}: {part}/config.json is of a {config['_class_name']}, and {' or '.join(known)} is needed: "
                "choose a text-to-image model of Stable Diffusion 1 or 2."
            )
    if not str(text.get("model_type", "clip")).startswith("clip"):
        raise GenaugError(
            f"prior.path={path}: text_encoder/config.json is of a {text['model_type']}, and a CLIP text encoder is needed: "
            "choose a text-to-image model of Stable Diffusion 1 or 2."
        )
    _check_schedule(path, schedule)
    width = unet.get("cross_attention_dim")
    if isinstance(width, int) and width != text.get("hidden_size"):
        raise GenaugError(
            f"prior.path={path}: unet/config.json says cross_attention_dim={width}, and text_encoder/config.json "
            f"hidden_size={text.get('hidden_size')}: they are parts of different models. {AGAIN}"
        )
    for part in ("unet", "vae", "text_encoder"):
        if not any(file.suffix in WEIGHTS and file.stat().st_size for file in (folder / part).iterdir()):
            raise GenaugError(f"prior.path={path}: {part}/ holds no weights ({' or '.join(WEIGHTS)}). {AGAIN}")
    _check_tokenizer(path, folder, text)


def _check_schedule(path: str, schedule: dict[str, Any]) -> None:
    where = f"prior.path={path}: scheduler/scheduler_config.json"
    name = str(schedule.get("_class_name", ""))
    predicts = "flow" if "FlowMatch" in name else schedule.get("prediction_type", "epsilon")
    if predicts not in PREDICTIONS:
        raise GenaugError(
            f"{where} is of a {name or 'scheduler'}, whose U-Net predicts {predicts}: models that predict "
            f"{' or '.join(PREDICTIONS)} work, flow matching does not. Choose a model of Stable Diffusion 1 or 2."
        )
    missing = [key for key in ("beta_start", "beta_end", "beta_schedule") if key not in schedule]
    if missing and not schedule.get("trained_betas"):
        raise GenaugError(f"{where} lacks {', '.join(missing)}: the noise that the model was trained with. {AGAIN}")


def _check_tokenizer(path: str, folder: Path, text: dict[str, Any]) -> None:
    """Its words must have rows in the text encoder's table, the start and end of a prompt among them."""
    if (folder / "tokenizer" / "tokenizer.json").is_file():
        content = _read_object(path, folder, "tokenizer", "tokenizer.json")
        with boundary(f"prior.path={path}: tokenizer/tokenizer.json holds no vocabulary", AGAIN):
            words = dict(content["model"]["vocab"]) | {word["content"]: word["id"] for word in content["added_tokens"]}
    elif (folder / "tokenizer" / "vocab.json").is_file() and (folder / "tokenizer" / "merges.txt").is_file():
        words = _read_object(path, folder, "tokenizer", "vocab.json")
    else:
        raise GenaugError(
            f"prior.path={path}: tokenizer/ holds no vocabulary (tokenizer.json, or vocab.json and merges.txt), so that every "
            f"prompt would mean nothing. {AGAIN}"
        )
    largest = max(words.values(), default=-1)
    table = text.get("vocab_size", largest + 1)
    if largest < 1 or largest >= table:
        raise GenaugError(
            f"prior.path={path}: the ids of tokenizer/ end at {largest}, and text_encoder/ has {table} words: they are "
            f"parts of different models. {AGAIN}"
        )
