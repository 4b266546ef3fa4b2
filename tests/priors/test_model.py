"""A prior loads from a diffusers folder or the Hub's cache, and says what is wrong where it cannot."""

import hashlib
import shutil
import time

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.priors.config import PriorConfig
from genaug.priors.deltas import applied
from genaug.priors.model import LearnedTokens, Prior
from genaug.priors.random_weights import SHAPES, random_parts, save_random_prior


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def prior(folder):
    return PriorConfig(path=str(folder), image_size=32).load("cpu")


def from_parts(**changes) -> Prior:
    parts = {**random_parts(), **changes}
    scheduler = parts.pop("scheduler")
    return Prior(**parts, scheduler_config=dict(scheduler.config), image_size=32)


@pytest.fixture
def learned():
    random = torch.Generator().manual_seed(0)
    return LearnedTokens.of({"<a>": torch.randn(3, 32, generator=random), "<b>": torch.randn(1, 32, generator=random)})


def test_weights_are_frozen_and_in_the_asked_precision(folder, prior):
    for part in (prior.unet, prior.vae, prior.text_encoder):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
    low = PriorConfig(path=str(folder), image_size=32, dtype="bfloat16").load("cpu")
    assert (low.unet.dtype, low.vae.dtype, low.text_encoder.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    out = low.predict_noise(torch.randn(1, 4, 4, 4), 500, low.embed(["a photo"]))
    assert out.dtype == torch.float32


def test_generators_of_one_process_share_one_model(folder):
    """one U-Net whatever the number of generators."""
    configs = [PriorConfig(path=str(folder), image_size=32) for _ in range(2)]
    assert configs[0].load("cpu") is configs[1].load("cpu")


def test_a_folder_that_lacks_a_part_is_refused_before_loading(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "tokenizer")
    with pytest.raises(GenaugError, match="lacks tokenizer/"):
        PriorConfig(path=str(tmp_path / "cut"), image_size=32).load("cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_a_part_without_its_file_is_named(folder, tmp_path, part):
    shutil.copytree(folder, tmp_path / "cut")
    for file in (tmp_path / "cut" / part).iterdir():
        if file.suffix == ".safetensors" or part == "scheduler":
            file.unlink()
    with pytest.raises(GenaugError, match=f"{part}/(scheduler_config.json cannot be read| holds no weights)"):
        PriorConfig(path=str(tmp_path / "cut"), image_size=32).load("cpu")


def test_an_unreachable_hub_fails_fast_and_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(GenaugError, match=r"hf download nobody/nothing.*prior\.path=FOLDER"):
        PriorConfig(path="nobody/nothing", image_size=32).load("cpu")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("pools", [False, True])
def test_an_absent_model_is_said_before_the_slow_imports_unless_a_pool_may_do_without_it(monkeypatch, tmp_path, pools):
    import huggingface_hub

    import genaug.run
    from genaug.composition import compose_typed
    from genaug.runs.cell import Cell

    def reached() -> None:
        raise InterruptedError

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(genaug.run, "check_libraries", reached)
    config = compose_typed(["prior=sd15", f"paths.outputs_dir={tmp_path}/outputs"])
    if pools:
        (config.paths.store.root / "pools" / "0").mkdir(parents=True)
    with pytest.raises(InterruptedError if pools else GenaugError):
        genaug.run.run(Cell.of(config))
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.fixture
def cached(folder, monkeypatch, tmp_path):
    """The Hub cannot be reached; the local cache holds the model ``owner/model`` at one commit."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--model", "0" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def test_a_cached_hub_model_loads_without_network(cached):
    assert PriorConfig(path="owner/model", image_size=32).load("cpu").weights == "owner/model"
    assert PriorConfig(path="owner/model", revision=cached.name, image_size=32).load("cpu")


def test_a_pinned_revision_that_is_not_cached_is_asked_for_by_its_commit(cached):
    with pytest.raises(GenaugError, match=f"hf download owner/model --revision {'1' * 40}"):
        PriorConfig(path="owner/model", revision="1" * 40, image_size=32).load("cpu")


def test_a_hub_model_with_other_weights_than_recorded_is_refused(cached):
    weights = cached / "unet" / "diffusion_pytorch_model.safetensors"
    recorded = hashlib.sha256(weights.read_bytes()).hexdigest()
    pinned = PriorConfig(path="owner/model", unet_sha256=recorded, image_size=32)
    assert pinned.load("cpu")
    assert pinned.identity() == PriorConfig(path="owner/model", image_size=32).identity()
    with pytest.raises(GenaugError, match=f"{recorded}.*prior.unet_sha256=null"):
        PriorConfig(path="owner/model", unet_sha256="0" * 64, image_size=32).load("cpu")


def test_another_vae_may_be_pinned_to_a_revision(cached, folder):
    (cached / "config.json").write_text((cached / "vae" / "config.json").read_text())
    shutil.copy(next((cached / "vae").glob("*.safetensors")), cached)
    assert PriorConfig(path=str(folder), vae_path=f"owner/model@{cached.name}", image_size=32).load("cpu")
    with pytest.raises(GenaugError, match=f"prior.vae_path.*hf download owner/model --revision {'1' * 40}"):
        PriorConfig(path=str(folder), vae_path=f"owner/model@{'1' * 40}", image_size=32).load("cpu")


def test_a_unet_for_inpainting_is_refused():
    inpainting = UNet2DConditionModel(**SHAPES["tiny"]["unet"], in_channels=9)
    with pytest.raises(GenaugError, match="9 channels"):
        from_parts(unet=inpainting)


def test_latents_are_scaled_and_decode_undoes_it(prior):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        posterior = prior.vae.encode(images).latent_dist
        mean, std = prior.encode_moments(images)
        torch.testing.assert_close(mean, posterior.mean * prior.vae.config.scaling_factor)
        torch.testing.assert_close(std, posterior.std * prior.vae.config.scaling_factor)
        torch.testing.assert_close(prior.decode(mean), prior.vae.decode(posterior.mean).sample, rtol=1e-4, atol=1e-5)
    xi = torch.randn_like(mean)
    torch.testing.assert_close(prior.encode(images, xi), mean + std * xi)
    assert torch.equal(prior.encode(images), mean)
    assert mean.shape == (2, 4, 32 // prior.vae_factor, 32 // prior.vae_factor)


def test_a_prompt_may_fill_the_text_encoder_and_no_more(prior):
    words = prior.prompt_length - 2  # beside start and end
    assert prior.token_ids(["a " * words]).shape == (1, prior.prompt_length)
    with pytest.raises(GenaugError, match=rf"has {words + 3} tokens, the text encoder takes {words + 2}"):
        prior.token_ids(["a " * (words + 1)])


def test_schedule_is_double_precision_and_that_of_diffusers(folder, prior):
    assert prior.alphas_cumprod.dtype == torch.float64
    reference = DDIMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod
    torch.testing.assert_close(prior.alphas_cumprod.float(), reference, rtol=1e-5, atol=0)


def test_plain_prompts_have_the_ids_of_the_tokenizer(prior):
    prompts = ["", "a photo of a cat", "a close-up photo of the weird dog"]
    expected = prior.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")[
        "input_ids"
    ]
    assert torch.equal(prior.token_ids(prompts), expected)


def test_a_learned_token_gives_exactly_its_own_ids(prior, learned):
    """no expansion twice, no stray pieces such as _1."""
    ids = prior.token_ids(["a photo of a <a>, my <b>"], learned)[0].tolist()
    first_new = prior.text_encoder.get_input_embeddings().num_embeddings
    plain = [*prior.word_ids("a photo of a"), *prior.word_ids(", my")]
    assert [i for i in ids if i >= first_new] == [first_new + row for row in (0, 1, 2, 3)]
    assert [i for i in ids[1:] if i < first_new][: len(plain) + 1] == [*plain, prior.tokenizer.eos_token_id]


def test_rows_of_a_token_need_not_be_adjacent(prior, learned):
    """tokens are found by their rows, wherever these are."""
    rows = learned.rows[[3, 0, 1, 2]]
    moved = LearnedTokens(rows, {"<a>": (1, 2, 3), "<b>": (0,)})
    prompts = ["a photo of a <a>", "my <b>"]
    assert torch.equal(prior.embed(prompts, learned), prior.embed(prompts, moved))


def test_tokenizer_and_text_encoder_are_left_as_they_were(prior, learned):
    table, size = prior.text_encoder.get_input_embeddings(), len(prior.tokenizer)
    before, weight = prior.embed(["a photo of a cat"]), table.weight.clone()
    prior.embed(["a photo of a <a>"], learned)
    with pytest.raises(IndexError):
        prior.embed_ids(torch.full((1, 77), 10_000), learned.rows)
    assert prior.text_encoder.get_input_embeddings() is table and len(prior.tokenizer) == size
    assert torch.equal(table.weight, weight) and torch.equal(prior.embed(["a photo of a cat"]), before)


def test_unknown_tokens_and_long_prompts_are_refused(prior, learned):
    with pytest.raises(GenaugError, match="names <c>, which was not learned"):
        prior.token_ids(["a photo of a <c>"], learned)
    with pytest.raises(GenaugError, match="was not learned"):
        prior.token_ids(["a photo of a <a>"])
    with pytest.raises(GenaugError, match="takes 77"):
        prior.token_ids(["photo " * 76])


def test_guidance_in_one_call_is_guidance_in_two(prior):
    z, t = torch.randn(3, 4, 4, 4), torch.tensor([1, 500, 981])
    cond, uncond = prior.embed(["a photo of a cat"] * 3), prior.embed([""])
    before = prior.num_evaluations
    with torch.no_grad():
        fused = prior.predict_noise(z, t, cond, uncond, 7.5)
        assert prior.num_evaluations - before == 6
        eps_c, eps_u = prior.predict_noise(z, t, cond), prior.predict_noise(z, t, uncond)
        unguided = prior.predict_noise(z, t, cond, uncond, 1.0)
    assert prior.num_evaluations - before == 15
    torch.testing.assert_close(fused, eps_u + 7.5 * (eps_c - eps_u), rtol=1e-4, atol=1e-5)  # fp32, another batch size
    assert torch.equal(unguided, eps_c)


def test_each_sample_has_its_own_timestep(prior):
    z, t = torch.randn(3, 4, 4, 4), [1, 500, 981]
    cond = prior.embed(["a photo of a cat"])
    with torch.no_grad():
        together = prior.predict_noise(z, torch.tensor(t), cond)
        alone = torch.cat([prior.predict_noise(z[i : i + 1], t[i], cond) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # fp32, another batch size


@pytest.mark.parametrize("num_samples", [3, 8, 11])
def test_a_compiled_unet_sees_multiples_of_the_batch_and_the_filled_tail_changes_nothing(num_samples, monkeypatch):
    prior = from_parts()
    z, cond = torch.randn(num_samples, 4, 4, 4), prior.embed(["a photo of a cat"] * num_samples)
    uncond, sizes, forward = prior.embed([""]), [], prior.unet.forward
    monkeypatch.setattr(
        prior.unet, "forward", lambda z, *rest, **more: sizes.append(len(z)) or forward(z, *rest, **more)
    )
    with torch.no_grad():
        plain = prior.predict_noise(z, 500, cond, uncond, 2.0)
        prior.compiled = "default"
        before = prior.num_evaluations
        with prior.sampling(8):
            padded = prior.predict_noise(z, 500, cond, uncond, 2.0)
    assert prior.num_evaluations - before == 2 * num_samples
    assert sizes == [2 * num_samples, 16 if num_samples <= 8 else 32]
    torch.testing.assert_close(padded, plain, rtol=1e-4, atol=1e-5)  # fp32, another batch size


def test_while_sampling_keys_and_values_of_a_prompt_are_computed_once_and_the_noise_is_bit_equal(prior, monkeypatch):
    z, cond, uncond = torch.randn(3, 4, 4, 4), prior.embed(["a photo of a cat"] * 3), prior.embed([""])
    calls, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, *rest: calls.append(x.shape[1]) or linear(x, *rest))
    with torch.no_grad():
        plain = [prior.predict_noise(z, t, cond, uncond, 2.0) for t in (900, 500, 100)]
        projections = calls.count(77)
        calls.clear()
        with prior.sampling(3):
            kept = [prior.predict_noise(z, t, cond, uncond, 2.0) for t in (900, 500, 100)]
        assert projections == 3 * calls.count(77) > 0
        other = prior.embed(["a photo of a dog"] * 3)
        with prior.sampling(3):  # another text, and nothing of the first one
            changed = prior.predict_noise(z, 100, other, uncond, 2.0)
            unguided = prior.predict_noise(z, 100, other)
        assert torch.equal(changed, prior.predict_noise(z, 100, other, uncond, 2.0))
        assert torch.equal(unguided, prior.predict_noise(z, 100, other))
        with applied_change(prior):
            assert not torch.equal(prior.predict_noise(z, 100, other), unguided)
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    assert not any("forward" in vars(layer) for layer in prior.unet.modules())


def applied_change(prior):
    """The U-Net with other keys."""
    name = next(name for name, _ in prior.unet.named_parameters() if "attn2.to_k" in name)
    return applied(prior.unet, {name: torch.ones_like(dict(prior.unet.named_parameters())[name])})


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "fuse_qkv"), [("default", True), ("repeated_blocks", False)])
def test_compiled_networks_give_the_same_pictures(mode, fuse_qkv, monkeypatch):
    in_place, traced = torch.nn.Module.compile, []

    def without_a_compiler(module, mode="default"):  # traced into graphs, whose kernels would take minutes to build
        traced.append(type(module).__name__)
        in_place(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", without_a_compiler)
    plain, compiled = from_parts(), from_parts()
    compiled.compile(mode, fuse_qkv)
    whole = ["UNet2DConditionModel", "Encoder", "Decoder"]
    assert traced == whole if mode == "default" else set(traced) == {"BasicTransformerBlock"}
    z, cond, uncond = torch.randn(3, 4, 4, 4), plain.embed(["a photo of a cat"] * 3), plain.embed([""])
    with torch.no_grad(), plain.sampling(4), compiled.sampling(4):
        expected = plain.predict_noise(z, 500, cond, uncond, 2.0)
        torch.testing.assert_close(compiled.predict_noise(z, 500, cond, uncond, 2.0), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(compiled.decode(z), plain.decode(z), rtol=1e-3, atol=1e-4)


def test_a_unet_that_predicts_v_gives_noise():
    """eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) z."""
    v_prior = from_parts(scheduler=random_parts(prediction_type="v_prediction")["scheduler"])
    eps_prior = from_parts()
    z, t = torch.randn(2, 4, 4, 4), torch.tensor([100, 900])
    cond = eps_prior.embed(["a photo of a cat"])
    with torch.no_grad():
        v = eps_prior.predict_noise(z, t, cond)
        alpha_bar = eps_prior.alphas_cumprod[t].view(-1, 1, 1, 1).float()
        torch.testing.assert_close(v_prior.predict_noise(z, t, cond), alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * z)


def test_the_shipped_model_generates_at_the_size_it_was_trained_for():
    """Data of 256 px are generated at 64 px; a model without such a limit follows the data."""
    size = lambda *words: compose_typed([*words]).prior.image_size
    assert size("dataset.image_size=256") == 64 and size("dataset.image_size=32") == 32
    assert size("dataset.image_size=256", "prior.max_image_size=null") == 256
    assert size("dataset.image_size=256", "prior=sd15", "prior.image_size=512") == 512
