"""Priors with another VAE, a merged LoRA, or samplers of few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import save_file

from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.priors.config import PriorConfig
from genaug.priors.loading import load_prior
from genaug.priors.random_weights import save_random_prior


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_prior(tmp_path_factory.mktemp("prior"))


def test_taesd_takes_the_vaes_place_with_latents_of_the_same_shape(folder: Path, tmp_path: Path) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(tmp_path)
    config = PriorConfig(path=str(folder), vae_path=str(tmp_path), image_size=32)
    prior = load_prior(config, "cpu")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = prior.encode_moments(images)
    assert mean.shape == (2, 4, 4, 4) and not std.any()
    assert prior.vae_factor == 8
    assert prior.decode(mean).shape == images.shape
    assert config.identity() != PriorConfig(path=str(folder), image_size=32).identity()


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_lora_is_merged_into_the_weights_that_it_names(folder: Path, tmp_path: Path, layout: str) -> None:
    plain = load_prior(PriorConfig(path=str(folder), image_size=32), "cpu").unet
    layers = {name: layer for name, layer in plain.named_modules() if name.endswith(("attn2.to_k", "conv1"))}
    random = torch.Generator().manual_seed(0)
    tensors, rank, alpha = {}, 2, 4.0
    for name, layer in layers.items():
        down = torch.randn((rank, *layer.weight.shape[1:]), generator=random)
        up = torch.randn((len(layer.weight), rank, *[1] * (layer.weight.dim() - 2)), generator=random)
        if layout == "kohya":
            flat = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.alpha": torch.tensor(alpha),
            }
        else:
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    config = PriorConfig(path=str(folder), lora_path=str(tmp_path / "lora.safetensors"), lora_scale=0.5, image_size=32)
    merged = dict(load_prior(config, "cpu").unet.named_parameters())
    strength = 0.5 * (alpha / rank if layout == "kohya" else 1.0)
    for name, p in plain.named_parameters():
        change = merged[name] - p
        if name.removesuffix(".weight") not in layers:
            assert not change.any()
            continue
        key = name.removesuffix(".weight")
        flat = f"lora_unet_{key.replace('.', '_')}"
        down = tensors[f"{flat}.lora_down.weight" if layout == "kohya" else f"unet.{key}.lora_A.weight"]
        up = tensors[f"{flat}.lora_up.weight" if layout == "kohya" else f"unet.{key}.lora_B.weight"]
        expected = strength * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).view_as(p)
        assert torch.allclose(change, expected, atol=1e-5)  # float32 rounding of weights of size 1


def test_a_lora_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"lora_te_text_model.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(GenaugError, match="lora_te_text_model"):
        load_prior(PriorConfig(path=str(folder), lora_path=str(tmp_path / "lora.safetensors"), image_size=32), "cpu")


def test_a_prior_without_options_keeps_its_identity(folder: Path) -> None:
    identity = PriorConfig(path=str(folder), image_size=32).identity()
    assert not {"vae_path", "lora_path", "lora_scale"} & set(identity)


@pytest.mark.parametrize("scheduler", ["lcm", "ddim_trailing"])
def test_samplers_of_few_steps_give_each_image_its_own_noise_whatever_the_batch(folder: Path, scheduler: str) -> None:
    prior = load_prior(PriorConfig(path=str(folder), image_size=32), "cpu")
    random = np.random.default_rng(0)
    samples = []
    for i in range(3):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        samples.append(Sample(id=str(i), digest=digest_bytes(pixels.tobytes()), image=pixels, label={0: 1.0}))
    dataset = Dataset(name="n", task="classification", class_names=("cat",), train=tuple(samples), val=(), test=())

    def images(batch_size: int) -> list[np.ndarray]:
        fields = {"num_steps": 4, "t0": 0.75, "guidance": 1.0, "scheduler": scheduler, "batch_size": batch_size}
        generator = RealGuidance(name="rg", seed=0, class_names=True, **fields)  # type: ignore[arg-type]
        variants = [generator.variant_of(source, 0, dataset, "f") for source in samples]
        return [np.asarray(g.image).astype(int) for g in generator.generate(variants, dataset, prior, None)]

    for one, all_together in zip(images(1), images(3), strict=True):
        assert abs(one - all_together).max() <= 1  # rounding to 8 bits


def test_a_size_is_brought_down_to_what_the_model_was_trained_for_and_must_suit_its_autoencoder():
    assert [PriorConfig(image_size=size, max_image_size=64).image_size for size in (32, 64, 512)] == [32, 64, 64]
    with pytest.raises(GenaugError, match=r"prior\.image_size=36 is not a multiple of 8"):
        PriorConfig(image_size=36).check()
