"""One LoRA in every published layout changes the same weights by the same amount."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genaug.core.errors import GenaugError
from genaug.priors.config import PriorConfig
from genaug.priors.lora import lora_file, merge_lora
from genaug.priors.random_weights import random_parts

RANK = 2
QUERY, OUT, CONV = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "down_blocks.0.resnets.0.conv1",
)


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    parts = random_parts()
    return {name: parts[name] for name in ("unet", "text_encoder")}


def text_layer(models: dict[str, nn.Module]) -> str:
    return next(
        name for name, _ in models["text_encoder"].named_modules() if name.endswith("layers.0.self_attn.q_proj")
    )


def factors(layer: nn.Module, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    down = torch.randn((RANK, *weight.shape[1:]), generator=random)
    return torch.randn((len(weight), RANK, *[1] * (weight.dim() - 2)), generator=random), down


LAYOUTS = {
    "kohya": lambda part, name, up, down: {
        f"lora_{'te' if part == 'text_encoder' else 'unet'}_{flat(part, name)}.lora_up.weight": up,
        f"lora_{'te' if part == 'text_encoder' else 'unet'}_{flat(part, name)}.lora_down.weight": down,
    },
    "diffusers": lambda part, name, up, down: {
        f"{part}.{name}.lora_B.weight": up,
        f"{part}.{name}.lora_A.weight": down,
    },
    "diffusers before": lambda part, name, up, down: {
        f"{part}.{name}.lora.up.weight": up,
        f"{part}.{name}.lora.down.weight": down,
    },
    "peft": lambda part, name, up, down: {
        f"base_model.model.{name}.lora_B.weight": up,
        f"base_model.model.{name}.lora_A.weight": down,
    },
    "peft in memory": lambda part, name, up, down: {
        f"base_model.model.{name}.lora_B.default.weight": up,
        f"base_model.model.{name}.lora_A.default.weight": down,
    },
    "old attention processors": lambda part, name, up, down: {
        f"{old_name(name)}_lora.up.weight": up,
        f"{old_name(name)}_lora.down.weight": down,
    },
}


def flat(part: str, name: str) -> str:
    return ("text_model." if part == "text_encoder" and not name.startswith("text_model") else "").replace(".", "_") + (
        name.replace(".", "_")
    )


def old_name(name: str) -> str:
    block, _, layer = name.removesuffix(".0").rpartition(".")
    return f"{block}.processor.{layer}"


def changes(models, path, scale=1.0) -> dict[str, torch.Tensor]:
    """What the LoRA in ``path`` adds to each weight that it changes; the models are as they were afterwards."""
    before = {(m, n): p.detach().clone() for m, model in models.items() for n, p in model.named_parameters()}
    try:
        merge_lora(models, path, scale)
        after = {(m, n): p.detach().clone() for m, model in models.items() for n, p in model.named_parameters()}
        return {key[1]: after[key] - before[key] for key in before if not torch.equal(after[key], before[key])}
    finally:
        with torch.no_grad():
            for m, model in models.items():
                for n, p in model.named_parameters():
                    p.copy_(before[m, n])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_changes_the_same_weights(models, tmp_path, layout):
    layers = dict(models["unet"].named_modules())
    names = (QUERY, OUT) if layout == "old attention processors" else (QUERY, OUT, CONV)
    tensors = {}
    for i, name in enumerate(names):
        tensors |= LAYOUTS[layout]("unet", name, *factors(layers[name], i))
    save_file(tensors, tmp_path / "lora.safetensors")
    found = changes(models, tmp_path / "lora.safetensors", 0.5)
    assert set(found) == {f"{name}.weight" for name in names}
    for i, name in enumerate(names):
        up, down = factors(layers[name], i)
        expected = 0.5 * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).view_as(found[f"{name}.weight"])
        assert torch.allclose(found[f"{name}.weight"], expected, atol=1e-5)


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "diffusers before"])
def test_the_text_encoders_layers_are_merged_into_it(models, tmp_path, layout):
    name = text_layer(models)
    up, down = factors(dict(models["text_encoder"].named_modules())[name], 7)
    save_file(LAYOUTS[layout]("text_encoder", name, up, down), tmp_path / "lora.safetensors")
    found = changes(models, tmp_path / "lora.safetensors")
    assert set(found) == {f"{name}.weight"}
    assert torch.allclose(found[f"{name}.weight"], up @ down, atol=1e-5)


def test_alpha_counts_wherever_it_stands(models, tmp_path):
    up, down = factors(dict(models["unet"].named_modules())[QUERY], 0)
    path = tmp_path / "adapter_model.safetensors"
    kohya = {**LAYOUTS["kohya"]("unet", QUERY, up, down), f"lora_unet_{flat('unet', QUERY)}.alpha": torch.tensor(8.0)}
    save_file(kohya, path)
    assert torch.allclose(changes(models, path)[f"{QUERY}.weight"], 4 * (up @ down), atol=1e-4)
    save_file(LAYOUTS["diffusers"]("unet", QUERY, up, down), path, {"lora_adapter_metadata": '{"unet.lora_alpha": 6}'})
    assert torch.allclose(changes(models, path)[f"{QUERY}.weight"], 3 * (up @ down), atol=1e-4)
    save_file(LAYOUTS["peft"]("unet", QUERY, up, down), path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": RANK}))
    assert torch.allclose(changes(models, path)[f"{QUERY}.weight"], 4 * (up @ down), atol=1e-4)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": RANK, "use_rslora": True}))
    assert torch.allclose(changes(models, path)[f"{QUERY}.weight"], 8 / 2**0.5 * (up @ down), atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"unet.{QUERY}.lora_magnitude_vector": torch.zeros(2)}, "is a DoRA adapter"),
        ({"lora_unet_down_blocks_0.hada_w1_a": torch.zeros(2)}, "is a LoHa adapter"),
        ({"lora_unet_down_blocks_0.lokr_w1": torch.zeros(2)}, "is a LoKr adapter"),
        ({"transformer.blocks.0.lora_A.weight": torch.zeros(2, 2)}, "no known layout"),
        ({"lora_unet_input_blocks_1_1_proj_in.lora_up.weight": torch.zeros(2, 2)}, "this model has no layer"),
        ({f"unet.{QUERY}.lora_A.weight": torch.zeros(2, 16)}, "no other half"),
        (
            {f"unet.{QUERY}.lora_A.weight": torch.zeros(2, 640), f"unet.{QUERY}.lora_B.weight": torch.zeros(640, 2)},
            "made for another model",
        ),
    ],
)
def test_what_is_no_lora_of_this_model_is_named(models, tmp_path, tensors, message):
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(GenaugError, match=message):
        changes(models, tmp_path / "lora.safetensors")


def test_a_damaged_file_is_named(models, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(GenaugError, match=r"prior\.lora_path=.*cannot be read"):
        changes(models, tmp_path / "lora.safetensors")


def test_a_file_that_is_not_there_is_named_before_any_work(tmp_path):
    for path in (tmp_path / "not_here.safetensors", tmp_path / "folder", "loras/mine.safetensors"):
        with pytest.raises(GenaugError, match=r"prior\.lora_path=.*no such file or folder"):
            PriorConfig(lora_path=str(path), image_size=32).check_available()


@pytest.mark.parametrize("key", ["prior.lora_path", "generator.lora.path"])
def test_the_file_of_a_folder_is_found_where_there_is_one(tmp_path, key):
    with pytest.raises(GenaugError, match=rf"{key}=.* holds no \.safetensors file"):
        lora_file(key, str(tmp_path))
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(GenaugError, match=rf"{key}=.* holds a.safetensors, b.safetensors"):
        lora_file(key, str(tmp_path))
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    assert lora_file(key, str(tmp_path)).name == "adapter_model.safetensors"
