"""A folder that is no prior, or not a whole one, is refused in one sentence before anything is made with it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from genaug.core.errors import GenaugError
from genaug.priors.config import PriorConfig
from genaug.priors.random_weights import save_random_prior


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (content | values).items() if v is not None}))


def refusal(path: Path) -> str:
    with pytest.raises(GenaugError) as error:
        PriorConfig(path=str(path), image_size=32).check_available()
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_a_single_file_is_answered_with_its_conversion(tmp_path):
    path = tmp_path / "v1-5.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert "single file" in refusal(path) and "from_single_file" in refusal(path)
    assert "neither a folder nor a Hub id" in refusal(tmp_path / "absent.safetensors")
    with pytest.raises(GenaugError, match="neither a folder nor a Hub id"):
        PriorConfig(path="models/absent.ckpt").check()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "\x00\xff"])
def test_a_config_that_is_absent_or_damaged_is_named(copy, part, content):
    path = copy / part / "config.json"
    path.unlink() if content is None else path.write_text(content)
    assert f"{part}/config.json" in refusal(copy)


def test_a_tokenizer_must_have_words_and_the_text_encoder_rows_for_them(copy):
    (copy / "tokenizer" / "tokenizer.json").rename(copy / "gone.json")
    assert "tokenizer/ holds no vocabulary" in refusal(copy)
    (copy / "gone.json").rename(copy / "tokenizer" / "tokenizer.json")
    PriorConfig(path=str(copy), image_size=32).check_available()
    words = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())
    largest = max(*words["model"]["vocab"].values(), *(word["id"] for word in words["added_tokens"]))
    change(copy / "text_encoder" / "config.json", vocab_size=largest + 1)
    PriorConfig(path=str(copy), image_size=32).check_available()
    for size in (largest, 100):
        change(copy / "text_encoder" / "config.json", vocab_size=size)
        assert f"text_encoder/ has {size} words" in refusal(copy)


def test_the_old_files_of_a_tokenizer_are_read_too(copy):
    vocabulary = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())["model"]
    (copy / "tokenizer" / "tokenizer.json").unlink()
    (copy / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    assert "holds no vocabulary" in refusal(copy)
    (copy / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    PriorConfig(path=str(copy), image_size=32).check_available()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching does not"),
        ({"prediction_type": "flow_prediction"}, "flow matching does not"),
        ({"prediction_type": "sample"}, "predicts sample"),
        ({"beta_start": None}, "lacks beta_start"),
    ],
)
def test_a_schedule_must_be_one_of_diffusion(copy, values, message):
    change(copy / "scheduler" / "scheduler_config.json", **values)
    assert message in refusal(copy)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"_class_name": "SD3Transformer2DModel"}, "unet/config.json is of a SD3Transformer2DModel"),
        ("vae", {"_class_name": "AsymmetricAutoencoderKL"}, "vae/config.json is of a AsymmetricAutoencoderKL"),
        ("text_encoder", {"model_type": "t5"}, "a CLIP text encoder is needed"),
        ("text_encoder", {"hidden_size": 768}, "parts of different models"),
    ],
)
def test_parts_of_other_models_are_refused(copy, part, values, message):
    change(copy / part / "config.json", **values)
    assert message in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_numbers_are_found_before_images_are_made(copy, part):
    path = next((copy / part).glob("*.safetensors"))
    weights = load_file(path)
    save_file({name: torch.full_like(value, float("nan")) for name, value in weights.items()}, path, {"format": "pt"})
    with pytest.raises(GenaugError, match=f"{part}/ of .* gives what is not a number"):
        PriorConfig(path=str(copy), image_size=32).load("cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_cut_off_are_named(copy, part):
    path = next((copy / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GenaugError, match=f"{part}/ in .* cannot be loaded"):
        PriorConfig(path=str(copy), image_size=32).load("cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_under_other_names_are_refused_instead_of_drawn_at_random(copy, part):
    [path] = (copy / part).glob("*.safetensors")
    weights = load_file(path)
    first = sorted(weights)[0]
    weights[f"other.{first}"] = weights.pop(first)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(GenaugError, match=rf"1 of \d+ tensors of {part}/ are not in its weights, e.g. {first}"):
        PriorConfig(path=str(copy), image_size=32).load("cpu")


def test_the_longer_names_of_stable_diffusions_own_files_are_read(copy):
    [path] = (copy / "text_encoder").glob("*.safetensors")
    weights = load_file(path)
    save_file({f"text_model.{name}": weight for name, weight in weights.items()}, path, {"format": "pt"})
    loaded = PriorConfig(path=str(copy), image_size=32).load("cpu").text_encoder.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_a_tokenizer_without_an_end_of_the_prompt_is_found(copy):
    from genaug.priors.loading import check_use, load_prior

    prior = load_prior(PriorConfig(path=str(copy), image_size=32), "cpu")
    prior.tokenizer.eos_token = None
    with pytest.raises(GenaugError, match="has no eos_token"):
        check_use(prior)


def test_trying_the_parts_counts_no_evaluation(folder):
    assert PriorConfig(path=str(folder), image_size=32).load("cpu").num_evaluations == 0


def test_the_shipped_prior_opens_in_diffusers_as_it_is_and_is_the_one_that_we_load():
    config = PriorConfig(image_size=32)
    pipeline = StableDiffusionPipeline.from_pretrained(config.folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.text_encoder.dtype == pipeline.unet.dtype == pipeline.vae.dtype == torch.float32
    images = pipeline("a photo", num_inference_steps=2, height=32, width=32, output_type="pt").images
    assert torch.isfinite(images).all()
    prior = config.load("cpu")
    for ours, theirs in (
        (prior.unet, pipeline.unet),
        (prior.vae, pipeline.vae),
        (prior.text_encoder, pipeline.text_encoder),
    ):
        own = dict(ours.named_parameters())
        assert all(torch.equal(own[name], weight) for name, weight in theirs.named_parameters())
