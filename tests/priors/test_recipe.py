"""Training of the tiny prior at toy size: resumable to the bit, and a folder that diffusers loads."""

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from genaug.core.errors import GenaugError
from genaug.priors import training
from genaug.priors.corpus import MICROGRAPH_SUBJECT, PROMPT_TEMPLATES, Corpus
from genaug.priors.recipe import PriorRecipe, train_prior
from genaug.priors.vocabulary import learn_merges, save_tokenizer

TOY = {
    "num_threads": 1,
    "checkpoint_every": 2,
    "vae_channels": [8, 8, 8, 8],
    "vae_steps": 4,
    "vae_batch_size": 8,
    "vae_large_batch_size": 4,
    "vae_precision": "fp32",
    "bank_digits": 30,
    "bank_small_pictures": 10,
    "bank_scenes": 10,
    "bank_pictures": 10,
    "text_width": 32,
    "unet_channels": [16, 32],
    "unet_steps": 4,
    "unet_batch_size": 8,
    "unet_large_every": 2,
}


@pytest.fixture
def toy_corpus(monkeypatch):
    """Random pictures in place of the files: these tests are about the training, not about what it sees."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.randint(256, (30, 28, 28), generator=generator, dtype=torch.uint8)
    pictures = [torch.randint(256, (3, 128, 140), generator=generator, dtype=torch.uint8) for _ in range(4)]
    corpus = Corpus(digits, torch.arange(30) % 10, pictures, ["cup", "tie", *[MICROGRAPH_SUBJECT] * 2], 2)
    monkeypatch.setattr(training, "load_corpus", lambda data_dir: corpus)


def weights(folder):
    return {path.parent.name: load_file(path) for path in folder.rglob("*.safetensors")}


def test_a_training_killed_in_each_stage_goes_on_to_the_same_weights(toy_corpus, tmp_path, monkeypatch):
    whole = weights(train_prior(PriorRecipe(**TOY), tmp_path / "whole"))
    save = training.save_checkpoint
    for stage in ("vae", "unet"):

        def kill_half_way(state, path, stage=stage):
            save(state, path)
            if path.stem == stage and state["step"] == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(training, "save_checkpoint", kill_half_way)
        with pytest.raises(KeyboardInterrupt):
            train_prior(PriorRecipe(**TOY), tmp_path / "killed")
    monkeypatch.setattr(training, "save_checkpoint", save)
    resumed = weights(train_prior(PriorRecipe(**TOY), tmp_path / "killed"))
    assert set(resumed) == {"vae", "unet", "text_encoder"} == set(whole)
    for part, tensors in whole.items():
        assert all(torch.equal(tensors[name], resumed[part][name]) for name in tensors), part


def test_checkpoints_of_another_recipe_are_refused_by_the_field_that_differs(toy_corpus, tmp_path):
    train_prior(PriorRecipe(**TOY), tmp_path)
    with pytest.raises(GenaugError, match=r"other values of vae_lr\. Choose another output folder"):
        train_prior(PriorRecipe(**{**TOY, "vae_lr": 2e-3}), tmp_path)


def test_each_step_and_part_draws_anew_and_a_bank_of_other_pictures_is_made_again(toy_corpus, tmp_path, monkeypatch):
    asked = []
    real = training.seeded
    monkeypatch.setattr(training, "seeded", lambda *parts: asked.append(parts) or real(*parts))
    train_prior(PriorRecipe(**TOY), tmp_path)
    assert len(asked) == len(set(asked)) and {parts[1] for parts in asked} == {"vae", "bank", "unet"}
    assert all((0, stage, step) in asked for stage in ("vae", "unet") for step in range(4))
    average = torch.load(tmp_path / "checkpoints" / "unet.pt", weights_only=True)["average"]
    saved = weights(tmp_path / "prior")["unet"]
    assert all(torch.equal(saved[name], average[f"unet.{name}"].half()) for name in saved)
    for digits in (30, 20, 20):
        recipe = PriorRecipe(**{**TOY, "bank_digits": digits})
        before = len(asked)
        bank = training.build_bank(recipe, training.load_corpus(""), training.new_vae(recipe), tmp_path)
        assert len(bank["small"]) == digits + 10
    assert len(asked) == before  # the last was there


@pytest.mark.parametrize("alpha_bar", [0.0, 1.0])
def test_latents_are_noised_as_their_timestep_says(toy_corpus, tmp_path, monkeypatch, alpha_bar):
    """At alpha_bar = 1 the U-Net sees the bank's latents, at 0 noise alone."""
    recipe = PriorRecipe(**{**TOY, "unet_steps": 1})
    tokenizer = save_tokenizer(tmp_path / "tokenizer", recipe.vocab_size, ["cup"])
    bank = training.build_bank(recipe, training.load_corpus(""), training.new_vae(recipe), tmp_path)
    seen = []
    real = training.new_unet
    level = SimpleNamespace(alphas_cumprod=torch.full((1000,), alpha_bar))
    monkeypatch.setattr(training, "new_scheduler", lambda: level)

    def watched(recipe):
        unet = real(recipe)
        unet.register_forward_pre_hook(lambda module, args: seen.extend(args[0]))
        return unet

    monkeypatch.setattr(training, "new_unet", watched)
    training.train_unet(recipe, bank, tokenizer, tmp_path)
    known = {latent.numpy().tobytes() for latent in bank["small"].float()}
    assert len(seen) == 8 and all((latent.numpy().tobytes() in known) == bool(alpha_bar) for latent in seen)


def test_the_trained_folder_is_a_diffusers_pipeline_with_unit_latents(toy_corpus, tmp_path):
    folder = train_prior(PriorRecipe(**TOY), tmp_path)
    assert StableDiffusionPipeline.from_pretrained(folder).text_encoder.dtype == torch.float32  # as U-Net and VAE
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(["a photo of a cup"] * 2, image=torch.rand(2, 3, 64, 64), strength=0.5, num_inference_steps=4,
                      output_type="np").images  # fmt: skip
    assert images.shape == (2, 64, 64, 3)
    bank = torch.load(tmp_path / "checkpoints" / "bank.pt", weights_only=True)
    assert bank["small"].shape == (40, 4, 4, 4) and bank["large"].shape == (20, 4, 8, 8)
    assert bank["small"].float().std() == pytest.approx(1, abs=0.01)  # fp16 rounding
    assert pipeline.vae.config.scaling_factor == pytest.approx(bank["scaling_factor"])
    alpha_bar = pipeline.scheduler.alphas_cumprod
    assert alpha_bar[-1] == pytest.approx(0.0047, abs=1e-4), "the schedule of Stable Diffusion 1.x"


def test_prompts_are_dropped_and_generalised_at_the_stated_rates():
    recipe = PriorRecipe()
    prompts = []
    for seed in range(40):
        prompts += training.draw_prompts(recipe, ["seven"] * 100, torch.Generator().manual_seed(seed))
    share = {"empty": prompts.count("") / 4000, "named": sum("seven" in prompt for prompt in prompts) / 4000}
    # Four standard errors of a share of 4,000 draws are at most 0.027.
    assert share["empty"] == pytest.approx(recipe.empty_prompt_prob, abs=0.027)
    assert 1 - share["empty"] - share["named"] == pytest.approx(recipe.generic_prompt_prob, abs=0.027)


def test_the_most_frequent_pair_is_merged_first_and_of_equals_the_first_by_alphabet():
    assert learn_merges(Counter({"zy": 1, "ab": 1}), 1) == [("a", "b</w>")]
    assert learn_merges(Counter({"zy": 2, "ab": 1}), 2) == [("z", "y</w>"), ("a", "b</w>")]


def test_any_text_has_tokens_and_known_words_have_one(tmp_path):
    tokenizer = save_tokenizer(tmp_path / "a", 1200, ["potted plant"])
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "a")
    assert len(tokenizer) <= 1200 and tokenizer.model_max_length == 77
    for text in ("größe 猫 xyzzy 4 2 !? 🦊", "a photo of a seven", "naïve жук"):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id == ids[-1]
        assert tokenizer.eos_token_id not in ids[1:-1], "no byte is unknown"
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    for template in PROMPT_TEMPLATES:
        words = template.format("seven").replace("-", " - ").split()
        assert len(tokenizer(template.format("seven")).input_ids) == len(words) + 2, template
    save_tokenizer(tmp_path / "b", 1200, ["potted plant"])
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_the_recipe_is_importable_without_torch():
    code = "import sys, genaug.priors.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vae_channels", [24, 48]),
        ("unet_channels", [60, 128]),
        ("vae_precision", "fp8"),
        ("text_width", 66),
        ("vocab_size", 100),
        ("unet_steps", 0),
        ("vae_large_batch_size", 3),
        ("unet_large_every", 1),
        ("empty_prompt_prob", 0.95),
    ],
)
def test_a_wrong_field_is_named_before_any_work(field, value):
    with pytest.raises(GenaugError, match=f"recipe.{field}.*(write|lower|must be)"):
        PriorRecipe(**{field: value})


def test_missing_data_is_an_error_that_says_where_to_point(tmp_path):
    with pytest.raises(GenaugError, match=r"Write recipe\.data_dir=FOLDER"):
        train_prior(PriorRecipe(data_dir=str(tmp_path / "absent")), tmp_path)
