"""A LoRA learned with the tokens: it trains, diffusers reads it, the prior is as it was, a killed fit ends the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.generators.lora import fitting
from genaug.generators.lora.config import LoraFit
from genaug.generators.lora.fitting import CHECKPOINT, LORA_FILE, adapters, lora_loss
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.generators.sdedit.diff_mix import DiffMix
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.learning import learned_tokens
from genaug.priors.lora import with_lora


def lora(**fields: object) -> LoraFit:
    small = {"seed": 0, "rank": 2, "num_steps": 6, "batch_size": 4, "learning_rate": 1e-2, "token_learning_rate": 1e-2}
    return LoraFit(**{**small, **fields})  # type: ignore[arg-type]


def generator(**fields: object) -> DiffMix:
    tokens = TextualInversion(seed=0, num_steps=0)
    given = {"name": "m", "seed": 0, "class_names": False, "num_steps": 4, "tokens": tokens, "lora": lora(), **fields}
    return DiffMix(**given)  # type: ignore[arg-type]


def weights(prior) -> dict[str, torch.Tensor]:
    models = {"unet": prior.unet, "text_encoder": prior.text_encoder}
    return {f"{part}.{name}": w.clone() for part, model in models.items() for name, w in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def initial_tokens(prior, dataset) -> dict[str, torch.Tensor]:
    the = prior.text_encoder.get_input_embeddings()(torch.tensor(prior.word_ids("the"))).mean(0, keepdim=True).detach()
    return {f"<{name.replace(' ', '_')}>": the for name in dataset.class_names}


def pictures(generator, dataset, prior, folder: Path) -> list[np.ndarray]:
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
    made = {g.variant.source.id: np.asarray(g.image) for g in generator.generate(variants, dataset, prior, folder)}
    return [made[variant.source.id] for variant in variants]


@pytest.mark.parametrize("text_encoder", [False, True])
def test_it_learns_changes_the_pictures_and_leaves_the_prior_as_it_was(prior, dataset, tmp_path, text_encoder):
    before, made = weights(prior), generator(lora=lora(text_encoder=text_encoder, num_steps=25))
    about = made.fit(dataset, prior, tmp_path)
    assert same(weights(prior), before)
    assert not hasattr(prior.unet, "peft_config") and not any(p.requires_grad for p in prior.unet.parameters())
    losses = [float(row.split(",")[1]) for row in (tmp_path / "lora_loss.csv").read_text().split()[1:]]
    start = fitting.LearnedTokens.of(initial_tokens(prior, dataset))
    images = fitting._images(prior, dataset, made.lora, made.tokens, start)
    own = [lora_loss(prior, images, start.rows, made.lora, step).item() for step in range(25)]  # at the same draws
    assert losses[0] == pytest.approx(own[0], rel=1e-5)
    assert sum(losses[-8:]) < 0.98 * sum(own[-8:])
    assert about["network_evaluations"] == 25 * 4
    stored = load_file(tmp_path / LORA_FILE)
    assert {name.partition(".")[0] for name in stored} == ({"unet", "text_encoder"} if text_encoder else {"unet"})
    assert all(weight.abs().max() > 0 for weight in stored.values())  # every layer has moved from B = 0
    with_it = pictures(made, dataset, prior, tmp_path)
    assert same(weights(prior), before)
    made.lora = None
    without = pictures(made, dataset, prior, tmp_path)
    assert any(np.abs(a.astype(int) - b).max() > 3 for a, b in zip(with_it, without, strict=True))


def test_diffusers_reads_the_file_and_sees_the_same_networks(prior, prior_folder, dataset, tmp_path):
    generator(lora=lora(text_encoder=True)).fit(dataset, prior, tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(prior_folder, safety_checker=None, local_files_only=True)
    pipeline.load_lora_weights(tmp_path, weight_name=LORA_FILE)  # without a network, not every version looks for it
    random = torch.Generator().manual_seed(0)
    z = torch.randn((1, 4, 4, 4), generator=random)
    ids = prior.token_ids(["a photo"])
    with torch.no_grad(), with_lora({"unet": prior.unet, "text_encoder": prior.text_encoder}, tmp_path / LORA_FILE):
        features = prior.embed_ids(ids)
        ours = prior.unet(z, 500, encoder_hidden_states=features).sample
    with torch.no_grad():
        theirs_features = pipeline.text_encoder(ids).last_hidden_state
        theirs = pipeline.unet(z, 500, encoder_hidden_states=theirs_features).sample
    assert torch.allclose(features, theirs_features, atol=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, prior.unet(z, 500, encoder_hidden_states=prior.embed_ids(ids)).sample, atol=1e-3)


def test_the_first_loss_is_the_priors_own_and_gradients_are_those_of_finite_differences(prior, dataset):
    fixed, tokens = lora(batch_size=2), fitting.LearnedTokens.of(initial_tokens(prior, dataset))
    images = fitting._images(prior, dataset, fixed, generator().tokens, tokens)
    plain = lora_loss(prior, images, tokens.rows, fixed, 0).item()
    with adapters(prior, fixed) as found:
        assert lora_loss(prior, images, tokens.rows, fixed, 0).item() == pytest.approx(plain, rel=1e-6)
        name, up = next((n, p) for n, p in found["unet"].items() if ".lora_B." in n)
        lora_loss(prior, images, tokens.rows, fixed, 0).backward()
        place = int(up.grad.abs().argmax())
        losses = []
        for sign in (1, -1):
            up.data.view(-1)[place] = sign * 1e-2
            losses.append(lora_loss(prior, images, tokens.rows, fixed, 0).item())
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(up.grad.view(-1)[place].item(), rel=0.05), name


def test_half_of_what_is_drawn_is_mirrored_where_there_is_a_mirror_image(prior, dataset):
    one, tokens = lora(batch_size=1), fitting.LearnedTokens.of(initial_tokens(prior, dataset))
    images = fitting._images(prior, dataset, one, TextualInversion(seed=0, num_steps=0, flip=True), tokens)
    images.mean[:, 1] = torch.nan  # found in the loss
    mirrored = [bool(lora_loss(prior, images, tokens.rows, one, step).isnan()) for step in range(60)]
    assert 20 <= sum(mirrored) <= 40
    images.mean, images.std = images.mean[:, :1], images.std[:, :1]
    assert not any(lora_loss(prior, images, tokens.rows, one, step).isnan() for step in range(5))


def test_tokens_move_with_the_lora_unless_their_rate_is_zero(prior, dataset, tmp_path):
    names, found = list(dataset.class_names), {}
    for rate in (0.0, 1e-2):
        folder = tmp_path / str(rate)
        folder.mkdir()
        generator(lora=lora(token_learning_rate=rate, weight_decay=0.0)).fit(dataset, prior, folder)
        found[rate] = learned_tokens(folder, names).rows
    assert torch.equal(found[0.0], found[0.0][:1].expand_as(found[0.0]))  # all still the word "the"
    assert not torch.allclose(found[0.0], found[1e-2], atol=1e-3)


def test_a_killed_fit_ends_at_the_very_same_weights(prior, dataset, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    tokens = TextualInversion(seed=0, num_steps=2, batch_size=1)
    facts = generator(tokens=tokens, lora=lora(checkpoint_every=2)).fit(dataset, prior, whole)
    steps, before = iter(range(100)), weights(prior)

    def dying(*arguments):
        if next(steps) == 5:
            raise KeyboardInterrupt
        return lora_loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "lora_loss", dying)
        generator(tokens=tokens, lora=lora(checkpoint_every=2)).fit(dataset, prior, killed)
    assert same(weights(prior), before) and (killed / CHECKPOINT).exists()
    again = generator(tokens=tokens, lora=lora(checkpoint_every=2)).fit(dataset, prior, killed)
    assert same(load_file(whole / LORA_FILE), load_file(killed / LORA_FILE))
    assert torch.equal(*(learned_tokens(f, dataset.class_names).rows for f in (whole, killed)))
    assert again["network_evaluations"] == facts["network_evaluations"] == 2 * 3 + 6 * 4
    assert not (killed / CHECKPOINT).exists()


def test_a_generator_without_a_lora_is_the_one_that_it_always_was():
    tokens = TextualInversion(seed=0)
    plain = DAFusion(name="d", seed=0, class_names=False, tokens=tokens)
    assert "lora" not in canonical(plain) and "lora" not in canonical(plain, stage="fit")
    adapted = DAFusion(name="d", seed=0, class_names=False, tokens=tokens, lora=lora())
    assert canonical(adapted, stage="fit") != canonical(plain, stage="fit")
    assert canonical(adapted, stage="sample") == canonical(plain, stage="sample")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator=diff_mix", "leakage=model_centric"], "trains one for all classes"),
        (["generator=diff_mix", "prior.dtype=float16"], "prior.dtype=bfloat16"),
        (["generator=diff_mix", "generator.lora.rank=0"], "generator.lora.rank=0"),
        (["generator=diff_mix", "generator.lora.prompt=a photo"], "lacks {token}"),
        (["generator=ti_mix", "generator/tokens=ti_joint"], "leaves the tokens at their initial word"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_any_work(overrides, message):
    with pytest.raises(GenaugError, match=message):
        compose_typed(overrides).check()


def test_a_prompt_that_names_the_class_is_refused(prior, dataset, tmp_path):
    named = generator(lora=lora(prompt="a photo of a {token} dog"))
    with pytest.raises(GenaugError, match="holds a word of the class name 'dog'"):
        named.fit(dataset, prior, tmp_path)


def test_presets_state_the_released_settings():
    reference = compose_typed(["generator=diff_mix_reference"]).generator.lora
    assert (reference.rank, reference.num_steps, reference.batch_size, reference.image_size) == (10, 35000, 8, 224)
    assert reference.learning_rate == reference.token_learning_rate == 5e-5
    assert compose_typed(["generator=ti_mix"]).generator.lora is None
    assert compose_typed(["generator=da_fusion", "+generator/lora=diff_mix_tiny"]).generator.lora.rank == 4


def test_weights_begin_as_diffusers_has_them_and_gradients_are_clipped_together(prior, dataset, tmp_path):
    config = lora(rank=4, num_steps=2, max_grad_norm=1e-3, checkpoint_every=1)
    start = fitting.LearnedTokens.of(initial_tokens(prior, dataset))
    images = fitting._images(prior, dataset, config, generator().tokens, start)
    state = {"rows": start.rows, "step": 0, "losses": [], "evaluations": 0, "seconds": 0.0}
    with adapters(prior, config) as found:
        downs = [weight.detach().clone() for name, weight in found["unet"].items() if ".lora_A." in name]
        assert all(weight.abs().max() == 0 for name, weight in found["unet"].items() if ".lora_B." in name)
        assert torch.cat([down.flatten() for down in downs]).std() == pytest.approx(1 / 4, rel=0.05)
        assert not torch.equal(downs[0], downs[1])
        fitting.train_lora(prior, images, found, config, state, tmp_path / CHECKPOINT)
    with adapters(prior, config) as found:
        again = [weight for name, weight in found["unet"].items() if ".lora_A." in name]
        assert all(torch.equal(one, two) for one, two in zip(downs, again, strict=True))
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)["optimiser"]
    moments = [saved["state"][i]["exp_avg"].flatten() for i in saved["param_groups"][0]["params"]]
    assert torch.cat(moments).norm() == pytest.approx(0.1 * 1e-3, rel=1e-2)  # (1 - beta_1) g after the first step
