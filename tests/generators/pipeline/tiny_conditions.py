"""What conditions a pipeline or judges its images, with random weights in the layouts of the published ones."""

from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.generators.pipeline.tiny_pipelines import TINY


def save_clip(folder: Path, prior: Path = TINY) -> Path:
    """A CLIP with the tokenizer of a prior."""
    tokenizer = CLIPTokenizer.from_pretrained(prior, subfolder="tokenizer")
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path, width: int = 24) -> Path:
    """An IP-Adapter of the tiny prior, in the layout of h94/IP-Adapter."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(TINY / "unet")
    text = unet.config["cross_attention_dim"]
    torch.manual_seed(2)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
            projection_dim=width,
        )
    ).save_pretrained(folder / "models" / "image_encoder")  # fmt: skip
    weights = {
        "image_proj.proj.weight": torch.randn(4 * text, width), "image_proj.proj.bias": torch.zeros(4 * text),
        "image_proj.norm.weight": torch.ones(text), "image_proj.norm.bias": torch.zeros(text),
    }  # fmt: skip
    across = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    for place, name in enumerate(across):
        keys = unet.get_submodule(name).to_k.out_features  # type: ignore[union-attr]
        for kind in "kv":
            weights[f"ip_adapter.{2 * place + 1}.to_{kind}_ip.weight"] = torch.randn(keys, text)
    save_file(weights, folder / "models" / "ip-adapter_sd15.safetensors")
    return folder


def awake(network: nn.Module) -> nn.Module:
    """With random numbers for weights that start at zero."""
    torch.manual_seed(1)
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.5)
    return network


def save_controlnet(family: str, model: Path, folder: Path) -> Path:
    """A ControlNet for the pipeline in the folder ``model``."""
    if family == "flux":
        transformer = diffusers.FluxTransformer2DModel.from_pretrained(model / "transformer")
        small = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
        network = diffusers.FluxControlNetModel.from_transformer(transformer, **small)
    elif family == "sd3":
        shape = diffusers.SD3Transformer2DModel.load_config(model / "transformer")
        network = diffusers.SD3ControlNetModel.from_config(shape)
    else:
        unet = diffusers.UNet2DConditionModel.from_pretrained(model / "unet")
        channels = (16, 32, 64, 64) if family == "sd" else (16, 32)  # one halving less than the VAE's
        network = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels)
    awake(network).save_pretrained(folder)
    return folder
