"""Batched SDEdit: levels of every schedule, the same images as diffusers, nothing depends on the batch."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

from genaug.core.seeding import derive
from genaug.data.sources.digits import Digits
from genaug.data.splits import few_shot
from genaug.generators.base import Variant, steps_taken
from genaug.generators.sdedit import sampler
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.sampler import edit_images, sdedit, to_pictures, to_tensor
from genaug.priors.config import PriorConfig
from genaug.priors.noise import draw_noise, make_scheduler
from tests.generators.conftest import make_dataset

TINY = Path(str(PriorConfig(image_size=32).folder))

# strength: (first timestep, U-Net calls) at N = 50, from the method card of DA-Fusion
DDIM_50 = {0.25: (221, 12), 0.5: (481, 25), 0.75: (721, 37), 1.0: (981, 50)}
PNDM_50 = {0.25: (241, 13), 0.5: (501, 26), 0.75: (741, 38), 1.0: (981, 51)}


@dataclass
class Trace:
    """What the sampler asked of the U-Net."""

    timesteps: list[int] = field(default_factory=list)
    levels: list[torch.Tensor] = field(default_factory=list)


def spy(prior, monkeypatch, eps=None) -> Trace:
    """Record each call; answer with ``eps``, the true noise, where given."""
    trace, real = Trace(), prior.predict_noise

    def predict_noise(z, t, *arguments):
        trace.timesteps.append(int(t))
        trace.levels.append(z)
        return real(z, t, *arguments) if eps is None else eps

    monkeypatch.setattr(prior, "predict_noise", predict_noise)
    return trace


def variants_of(dataset, t0s, num_variants=1):
    draws = [
        (source, j, t0s[(i + j) % len(t0s)]) for j in range(num_variants) for i, source in enumerate(dataset.train)
    ]
    return [Variant(source=s, index=j, draws={"t0": t0}, fingerprint=f"{s.digest}-{j}") for s, j, t0 in draws]


def settings(**changes) -> ImageToImage:
    return ImageToImage(**{"name": "test", "seed": 0, "num_steps": 10, "guidance": 3.0, **changes})


@pytest.mark.parametrize("scheduler", ["ddim", "pndm_ref"])
@pytest.mark.parametrize("num_steps", [10, 25, 50])
@pytest.mark.parametrize("t0", [0.25, 0.5, 0.75, 1.0])
def test_strength_gives_first_timestep_and_calls_of_the_table(prior, monkeypatch, scheduler, num_steps, t0):
    trace = spy(prior, monkeypatch)
    k = steps_taken(num_steps, t0)
    z = torch.randn(1, 4, 4, 4)
    sdedit(
        prior, z, z, prior.embed(["a photo"]), None, scheduler=scheduler, num_steps=num_steps, num_taken=k, guidance=1.0
    )
    spacing = 1000 // num_steps
    if scheduler == "ddim":
        expected = (spacing * (k - 1) + 1, k)
    else:  # one entry is duplicated: one more call, and a first timestep one step up where the slice starts behind it
        expected = (spacing * min(k, num_steps - 1) + 1, k + 1)
    assert (trace.timesteps[0], len(trace.timesteps)) == expected == (trace.timesteps[0], prior.num_evaluations)
    if num_steps == 50:
        assert expected == (DDIM_50 if scheduler == "ddim" else PNDM_50)[t0]


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("t0", [0.25, 0.5, 1.0])
def test_level_of_z_is_what_t_says_at_every_step(prior, monkeypatch, scheduler, t0):
    """with the true noise as prediction, z stays at sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps."""
    z, eps = torch.randn(2, 2, 4, 4, 4)
    trace = spy(prior, monkeypatch, eps)
    cond = prior.embed(["a photo"])
    end = sdedit(
        prior, z, eps, cond, None, scheduler=scheduler, num_steps=20, num_taken=steps_taken(20, t0), guidance=1.0
    )
    for t, level in zip(trace.timesteps, trace.levels, strict=True):
        alpha_bar = prior.alphas_cumprod[t].float()
        expected = alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * eps
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-4)  # fp32 over 20 steps
    assert (end - z).abs().max() < 0.15  # ends at alpha_bar_0 (DDIM) or at no noise


def test_the_reference_sampler_keeps_its_fault(prior, monkeypatch):
    """On a sliced schedule PNDM's third call gets a sample one step noisier than t says, and it never catches up."""
    z, eps = torch.randn(2, 1, 4, 4, 4)
    trace = spy(prior, monkeypatch, eps)
    sdedit(prior, z, eps, prior.embed([""]), None, scheduler="pndm_ref", num_steps=50, num_taken=25, guidance=1.0)

    def off(call, late):
        alpha_bar = prior.alphas_cumprod[trace.timesteps[call] + late].float()
        return (trace.levels[call] - alpha_bar.sqrt() * z - (1 - alpha_bar).sqrt() * eps).abs().max()

    assert off(2, late=20) < 1e-5  # exact in fp32; later calls start from it
    assert all(off(call, late=0) > 0.05 for call in range(2, 26))


SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "pndm_ref": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {"timestep_spacing": "leading"}),
    "unipc": (UniPCMultistepScheduler, {"timestep_spacing": "leading"}),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_images_are_those_of_diffusers(prior, dataset, scheduler):
    """Same latents, noise, prompt, steps: StableDiffusionImg2ImgPipeline, one image per call."""
    kind, other = SCHEDULERS[scheduler]
    common = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=prior.vae,
        text_encoder=prior.text_encoder,
        tokenizer=prior.tokenizer,
        unet=prior.unet,
        scheduler=kind(**common, **other),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    variants = variants_of(dataset, [0.3, 0.7])[:4]
    prompts = ["a photo of a cat", "a photo of a dog", "a photo of a cat", "a photo of a table"]
    config = settings(scheduler=scheduler, guidance=7.5, negative_prompt="a dark photo")
    made = {item.variant.fingerprint: item.image for item in edit_images(prior, variants, prompts, config)}
    for variant, prompt in zip(variants, prompts, strict=True):
        latents = prior.encode(to_tensor(variant.source.open(), 32).unsqueeze(0))
        reference = pipeline(
            prompt=prompt,
            negative_prompt="a dark photo",
            image=latents,
            strength=variant.draws["t0"],
            num_inference_steps=10,
            guidance_scale=7.5,
            generator=torch.Generator().manual_seed(derive(variant.fingerprint, "noise")),
            output_type="pil",
        ).images[0]
        difference = np.abs(np.asarray(made[variant.fingerprint], dtype=int) - np.asarray(reference, dtype=int))
        assert difference.max() <= 1  # 8-bit rounding of values that agree to fp32


@pytest.mark.parametrize("cache_interval", [None, 2])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "unipc", "pndm_ref"])
def test_batch_of_16_equals_batch_of_1_and_order_does_not_matter(prior, scheduler, cache_interval):
    """an image depends on its own identity, not on its neighbours; interleaved classes equal grouped ones."""
    variants = variants_of(make_dataset(per_class=2), [0.2, 0.6, 1.0], num_variants=3)
    prompts = [f"a photo of a {('cat', 'dog', 'table')[v.source.class_index]}" for v in variants]
    same = {"scheduler": scheduler, "cache_interval": cache_interval}
    one = edit_images(prior, variants, prompts, settings(**same, batch_size=1))
    many = edit_images(prior, variants[::-1], prompts[::-1], settings(**same, batch_size=16))
    singles = {item.variant.fingerprint: np.asarray(item.image, dtype=int) for item in one}
    batched = {item.variant.fingerprint: np.asarray(item.image, dtype=int) for item in many}
    assert singles.keys() == batched.keys() and len(singles) == 18
    for key, image in singles.items():
        assert np.abs(image - batched[key]).max() <= 1  # 8-bit rounding of values that agree to fp32


def test_the_fresh_noise_of_lcm_is_each_images_own(prior, monkeypatch):
    drawn = []
    real = sampler.sdedit
    monkeypatch.setattr(sampler, "sdedit", lambda *a, **how: drawn.extend(how["seeds"]) or real(*a, **how))
    variants = variants_of(make_dataset(per_class=2), [0.6, 1.0], num_variants=2)
    batches = [edit_images(prior, variants, ["a photo"] * 12, settings(scheduler="lcm", batch_size=n)) for n in (1, 5)]
    one, many = ({item.variant.fingerprint: np.asarray(item.image, dtype=int) for item in batch} for batch in batches)
    assert len(set(drawn)) == 12
    assert all(np.abs(one[key] - many[key]).max() <= 1 for key in one)


def test_latents_of_batch_16_and_batch_1_agree_in_fp32(prior):
    z, eps = torch.randn(2, 16, 4, 4, 4)
    cond, uncond = prior.embed(["a photo of a cat"] * 16), prior.embed([""])
    batched = sdedit(prior, z, eps, cond, uncond, num_steps=10, num_taken=5, guidance=3.0)
    alone = [
        sdedit(prior, z[i : i + 1], eps[i : i + 1], cond[i : i + 1], uncond, num_steps=10, num_taken=5, guidance=3.0)
        for i in range(16)
    ]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=1e-4, atol=1e-4)  # fp32, other matrix shapes


def test_each_source_is_encoded_once_and_each_prompt_embedded_once(prior, dataset, monkeypatch):
    encoded, embedded = [], []
    encode, embed = prior.encode, prior.embed
    monkeypatch.setattr(prior, "encode", lambda images: encoded.append(len(images)) or encode(images))
    monkeypatch.setattr(prior, "embed", lambda prompts, tokens: embedded.extend(prompts) or embed(prompts, tokens))
    variants = variants_of(dataset, [0.2, 0.4], num_variants=4)
    prompts = [f"a photo of a {('cat', 'dog', 'table')[v.source.class_index]}" for v in variants]
    images = list(edit_images(prior, variants, prompts, settings(batch_size=8)))
    assert len(images) == 36 and sum(encoded) == len(dataset.train)
    assert sorted(embedded) == ["", "a photo of a cat", "a photo of a dog", "a photo of a table"]


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "unipc", "pndm_ref"])
@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("cache_interval", [None, 3])
def test_the_estimate_of_the_cost_is_exact(prior, dataset, scheduler, guidance, cache_interval):
    variants = variants_of(dataset, [0.1, 0.58, 1.0])
    config = settings(scheduler=scheduler, guidance=guidance, cache_interval=cache_interval)
    list(edit_images(prior, variants, ["a photo"] * len(variants), config))
    assert prior.num_evaluations == config.forward_passes(variants).count


@pytest.mark.skipif(not (TINY / "unet").is_dir(), reason="the tiny prior is not in the package yet")
def test_images_move_away_from_their_source_as_t0_grows():
    """Needs trained weights: random ones do not denoise."""
    prior = PriorConfig(image_size=32).load("cpu")
    digits = few_shot(Digits(seed=0).read(), 2, seed=0)

    def distance(t0):
        variants = variants_of(digits, [t0])
        items = edit_images(prior, variants, ["a photo"] * len(variants), settings())
        return np.mean(
            [np.abs(np.asarray(i.image, float) - np.asarray(i.variant.source.open(), float)).mean() for i in items]
        )

    distances = [distance(t0) for t0 in (0.1, 0.4, 0.7, 1.0)]
    assert distances == sorted(distances)


@pytest.mark.skipif(not (TINY / "unet").is_dir(), reason="the tiny prior is not in the package yet")
def test_cached_features_move_an_image_by_far_less_than_another_draw():
    prior = PriorConfig(image_size=32).load("cpu")
    digits = few_shot(Digits(seed=0).read(), 2, seed=0)
    z = prior.encode(torch.stack([to_tensor(sample.open(), 32) for sample in digits.train]))
    cond, uncond = prior.embed(["a photo"]), prior.embed([""])

    def made(seed, cache_interval):
        noise = draw_noise(range(seed, seed + len(z)), z.shape[1:])
        return sdedit(
            prior, z, noise, cond, uncond, num_steps=20, num_taken=15, guidance=2.0, cache_interval=cache_interval
        )

    whole, cached, other = made(0, None), made(0, 3), made(100, None)
    assert 0 < (cached - whole).square().mean().sqrt() < 0.15 * (other - whole).square().mean().sqrt()


def test_rows_say_how_an_image_was_made(prior, dataset):
    variant = variants_of(dataset, [0.5])[0]
    (item,) = edit_images(prior, [variant], ["a photo"], settings(save_size=48))
    assert item.image.size == (48, 48)
    assert item.about == {
        "prompt": "a photo",
        "seed": derive(variant.fingerprint, "noise"),
        "prior": prior.weights,
        "dtype": "float32",
        "batch_size": 1,
    }


def test_pictures_survive_the_way_to_tensors_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(to_pictures(to_tensor(picture, 32).unsqueeze(0))[0]), pixels)
    wide = Image.fromarray(np.hstack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)]))
    squashed, cropped = to_tensor(wide, 32, "squash"), to_tensor(wide, 32, "crop")
    assert squashed.shape == cropped.shape == (3, 32, 32)
    assert (squashed[:, :, :12] == -1).all() and (cropped[:, :, :15] == -1).all() and (cropped[:, :, 17:] == 1).all()


def test_noise_is_a_function_of_the_seed():
    a, b, other = draw_noise([7, 7, 8], (4, 2, 2))
    assert torch.equal(a, b) and not torch.equal(a, other)
    assert torch.equal(a, torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(7)))


def test_default_schedule_ends_where_stable_diffusion_does(prior):
    schedule = make_scheduler("ddim", prior.betas)
    schedule.set_timesteps(50)
    assert (schedule.timesteps[0], schedule.timesteps[-1]) == (981, 1)
    assert schedule.final_alpha_cumprod == schedule.alphas_cumprod[0]
