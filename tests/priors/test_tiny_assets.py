"""The shipped tiny prior: what its README promises holds for the files in the package."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from genaug.priors import measure
from genaug.priors.corpus import DIGIT_WORDS

TINY = Path(str(files("genaug.priors") / "assets" / "tiny"))


@pytest.fixture(scope="module")
def pipeline():
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(TINY, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_folder_is_at_most_12_megabytes():
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) <= 12_000_000


def test_held_out_digits_are_reconstructed_at_25_db(pipeline):
    images, _ = measure.optical_digits()
    images = images[::9]  # 200 of 1,797, every class
    assert measure.psnr(images, measure.reconstruct(pipeline.vae, images)).mean() >= 25


def test_held_out_photographs_are_reconstructed_at_20_db(pipeline, shared):
    paths = sorted((shared("custom_coco_256") / "test").glob("*/*.jpg"))[::8]
    images = measure.held_out_pictures(paths, 64)
    assert measure.psnr(images, measure.reconstruct(pipeline.vae, images)).mean() >= 20


@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_size_that_is_a_multiple_of_16_goes_through(pipeline, size):
    images = torch.rand(2, 3, size, size)
    result = pipeline(["a photo", "a photo of a cup"], image=images, strength=0.4, num_inference_steps=5,
                      guidance_scale=2.0, output_type="pt").images  # fmt: skip
    assert result.shape == (2, 3, size, size) and torch.isfinite(result).all()


def as_optical_digit(image: torch.Tensor) -> torch.Tensor:
    """A digit picture [3, 32, 32] cut out at its full height and brought to 8 x 8, as scikit-learn's digits are: [64]."""
    grey = image.mean(0)
    rows = torch.nonzero(grey.amax(1) > 0.4).flatten()
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 32)
    centre = float((grey.sum(0) * torch.arange(32)).sum() / grey.sum().clamp(min=1e-6)) + 0.5
    left = round(centre - (bottom - top) / 2) + 32
    padded = torch.nn.functional.pad(grey, (32, 32))
    square = padded[None, None, top:bottom, left : left + bottom - top]
    return torch.nn.functional.interpolate(square, 8, mode="area").flatten()


def test_the_prompt_decides_the_digit(pipeline):
    """Read by a classifier of scikit-learn's digits, which the prior has never seen; it makes errors of its own on digits
    written elsewhere. The share by a network trained on MNIST is in quality.json."""
    digits = load_digits()
    reader = SVC(gamma=0.001).fit(digits.data, digits.target)
    prompts = [f"a photo of a {word}" for word in DIGIT_WORDS for _ in range(4)]
    text_to_image = StableDiffusionPipeline(**pipeline.components, requires_safety_checker=False)
    text_to_image.set_progress_bar_config(disable=True)
    samples = measure.sample(text_to_image, prompts, guidance=2.0, seed=0)
    read = reader.predict(torch.stack([as_optical_digit(sample) for sample in samples]).numpy() * 16)
    share = (read == torch.arange(10).repeat_interleave(4).numpy()).mean()
    assert share >= 0.6, "chance is 0.1"


def test_low_strength_keeps_the_picture_and_high_strength_changes_it(pipeline):
    images = measure.optical_digits()[0][:16]
    kept = {}
    for strength in (0.2, 0.9):
        result = pipeline(["a photo"] * 16, image=images, strength=strength, num_inference_steps=10, guidance_scale=1.0,
                          output_type="pt", generator=torch.Generator().manual_seed(0)).images  # fmt: skip
        kept[strength] = float(measure.psnr(images, result).mean())
    assert kept[0.2] > 15 and kept[0.2] > kept[0.9] + 3, kept


def test_learned_tokens_of_diffusers_can_be_added(tmp_path):
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(TINY, safety_checker=None, torch_dtype=torch.float32)
    width = pipeline.text_encoder.get_input_embeddings().weight.shape[1]
    learned = {"<first>": torch.randn(width), "<second>": torch.randn(width)}
    for token, vector in learned.items():
        path = tmp_path / f"{token.strip('<>')}.safetensors"
        save_file({token: vector}, path)
        pipeline.load_textual_inversion(str(tmp_path), weight_name=path.name)
    for token, vector in learned.items():
        ids = pipeline.tokenizer(f"a photo of a {token}").input_ids
        assert len(ids) == len(pipeline.tokenizer("a photo of a").input_ids) + 1
        assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids[-2]], vector)


@pytest.mark.parametrize("name", ["seven", "Zygomorphic Größe", "猫", "naïve-class_42", "🦊", " ".join(["word"] * 90)])
def test_any_class_name_can_be_a_prompt(pipeline, name):
    context, _ = pipeline.encode_prompt(f"a photo of a {name}", "cpu", 1, False)
    assert context.shape == (1, 77, pipeline.unet.config.cross_attention_dim) and torch.isfinite(context).all()


def test_the_pooled_text_is_read_at_the_end_token(pipeline):
    tokens = pipeline.tokenizer(["a photo"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    result = pipeline.text_encoder(tokens)
    end = int((tokens[0] == pipeline.tokenizer.eos_token_id).int().argmax())
    assert end == 3 and torch.equal(result.pooler_output[0], result.last_hidden_state[0, end])


def test_quality_json_meets_what_the_readme_promises():
    quality = json.loads((TINY / "quality.json").read_text())
    psnr, samples = quality["reconstruction_psnr_db"], quality["class_conditional_samples"]
    assert psnr["scikit_learn_digits_32px"]["mean"] >= 25 and psnr["scikit_learn_digits_32px"]["n"] == 1797
    assert psnr["photographs_test_64px"]["mean"] >= 20 and psnr["photographs_test_64px"]["n"] == 366
    assert samples["share_right"] >= 0.97 and samples["n"] >= 1000
    assert samples["ddim_steps"] == 25 and samples["guidance"] <= 3
    assert samples["classifier_accuracy_on_mnist_test"] >= 0.99
