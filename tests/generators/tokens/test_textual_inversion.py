"""Joint textual inversion: one run over all classes equals one run per class, and touches nothing but its rows."""

import dataclasses
import gc
import re
from pathlib import Path

import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.core.seeding import derive
from genaug.generators.sdedit.sampler import to_tensor
from genaug.generators.tokens import textual_inversion
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.prompts import TEMPLATES, class_tokens, names_class
from genaug.generators.tokens.textual_inversion import State, adamw_rows, draw, prepare, step_groups, train_tokens
from genaug.generators.tokens.token_files import write_tokens
from genaug.priors.model import LearnedTokens
from tests.generators.conftest import make_dataset
from tests.leftovers import Leftover


def settings(**changes) -> TextualInversion:
    return TextualInversion(**{"seed": 0, "num_steps": 20, "groups_per_batch": 3, **changes})


def learn(prior, dataset, config, folder: Path, class_names=False):
    groups, state = prepare(prior, dataset, config, class_names)
    return groups, state.embeddings.clone(), train_tokens(prior, groups, state, config, folder / "resume.safetensors")


def test_templates_are_the_27_with_one_slot_each():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 27
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert sum(template.startswith("a photo of") for template in TEMPLATES) == 15


def test_classes_have_tokens_of_their_own():
    assert class_tokens(["Dining Table", "🐱", "🐶"])[0] == "<dining_table>"
    with pytest.raises(GenaugError, match=r"'c' and 'c\+\+' would share the token <c>"):
        class_tokens(["c", "c++"])


def test_rows_follow_torchs_adamw():
    """All rows present at every step: the common AdamW."""
    random = torch.Generator().manual_seed(0)
    e = torch.randn(4, 8, generator=random)
    parameter = torch.nn.Parameter(e.clone())
    reference = torch.optim.AdamW([parameter], lr=2e-3, weight_decay=1e-2)
    state = State(e.clone(), torch.zeros(4, 8), torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64), torch.zeros(0))
    for _ in range(20):
        grad = torch.randn(4, 8, generator=random)
        parameter.grad = grad.clone()
        reference.step()
        adamw_rows(state, [0, 1, 2, 3], grad, 2e-3, 1e-2)
    torch.testing.assert_close(
        state.embeddings, parameter.detach(), rtol=1e-6, atol=1e-7
    )  # fp32, another order of products


def test_absent_rows_keep_value_moments_and_count():
    random = torch.Generator().manual_seed(0)
    e, m, v = torch.randn(3, 4, 8, generator=random)
    state = State(e.clone(), m.clone(), v.abs(), torch.tensor([5, 6, 7, 8]), torch.zeros(0))
    adamw_rows(state, [3, 1], torch.randn(4, 8, generator=random), 2e-3, 1e-2)
    for before, after in ((e, state.embeddings), (m, state.m), (v.abs(), state.v)):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.equal(before[1], after[1]) and not torch.equal(before[3], after[3])
    assert state.k.tolist() == [5, 7, 7, 9]


@pytest.mark.parametrize("num_vectors", [1, 4])
def test_every_vector_of_every_class_is_learned(prior, dataset, tmp_path, num_vectors):
    """each prompt holds all v ids of its class, each row changes by more than weight decay."""
    config = settings(num_vectors=num_vectors, num_steps=3)
    groups, before, state = learn(prior, dataset, config, tmp_path)
    first_new = prior.text_encoder.get_input_embeddings().num_embeddings
    for group in groups:
        assert len(group.rows) == num_vectors
        for ids in group.prompt_ids.tolist():
            assert [i - first_new for i in ids if i >= first_new] == list(group.rows)
    assert state.k.tolist() == [3] * (3 * num_vectors)
    decay_alone = before * (1 - config.learning_rate * config.weight_decay) ** 3
    assert ((state.embeddings - decay_alone).abs().amax(dim=1) > 1e-4).all()


def test_timesteps_are_drawn_over_the_whole_schedule(prior, dataset):
    groups, _ = prepare(prior, dataset, settings(), False)
    times = torch.cat([draw(groups[0], 0, step, 50, 1000)[3] for step in range(40)]).double()
    assert times.min() >= 0 and times.max() < 1000
    # 2,000 uniform draws: the mean has a standard deviation of 6.5, and none in the last tenth has probability 1e-91
    assert abs(times.mean() - 499.5) < 26
    assert (times >= 900).double().mean() == pytest.approx(0.1, abs=0.03)


def test_noise_is_added_by_the_schedule_of_the_prior_at_the_drawn_timesteps(prior, dataset, monkeypatch):
    """What the U-Net is given: z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, and t itself."""
    config = settings()
    groups, state = prepare(prior, dataset, config, False)
    seen = []
    predict = prior.predict_noise
    monkeypatch.setattr(prior, "predict_noise", lambda z, t, cond: seen.append((z, t)) or predict(z, t, cond))
    step_groups(prior, groups[:1], state.embeddings, config, 7)
    _, z, eps, t = draw(groups[0], config.seed, 7, config.batch_size, len(prior.alphas_cumprod))
    alpha_bar = prior.alphas_cumprod[t].float().view(-1, 1, 1, 1)
    assert torch.equal(seen[0][1], t)
    torch.testing.assert_close(seen[0][0], alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * eps)


def test_a_token_that_is_no_number_is_not_published(tmp_path):
    with pytest.raises(GenaugError, match=r"The token <a> became NaN or infinite.*learning_rate"):
        write_tokens(tmp_path, {"<b>": torch.zeros(1, 4), "<a>": torch.full((1, 4), float("nan"))}, {})


def test_weights_of_the_prior_are_bit_equal_afterwards(prior, dataset, tmp_path):
    parts = (prior.unet, prior.vae, prior.text_encoder)
    before = [{key: value.clone() for key, value in part.state_dict().items()} for part in parts]
    learn(prior, dataset, settings(num_steps=3), tmp_path)
    for part, old in zip(parts, before, strict=True):
        assert old.keys() == part.state_dict().keys()
        assert all(torch.equal(value, old[key]) for key, value in part.state_dict().items())


@pytest.mark.parametrize("groups_per_batch", [2, 3])
def test_joint_equals_independent(prior, dataset, tmp_path, groups_per_batch):
    """fp32, 20 steps: the same tokens whether classes share a batch, are split, or have a run of their own."""
    config = settings(groups_per_batch=groups_per_batch)
    groups, _, joint = learn(prior, dataset, config, tmp_path)
    for i, group in enumerate(groups):
        _, fresh = prepare(prior, dataset, config, False)
        alone = train_tokens(prior, [group], fresh, config, tmp_path / f"{i}.safetensors")
        rows = list(group.rows)
        # rtol of the method card; atol covers elements near zero, which have no relative precision
        torch.testing.assert_close(alone.embeddings[rows], joint.embeddings[rows], rtol=1e-5, atol=1e-6)
        others = [row for row in range(3) if row not in rows]
        assert torch.equal(alone.embeddings[others], prepare(prior, dataset, config, False)[1].embeddings[others])


def test_without_memory_for_all_classes_fewer_share_a_call(prior, dataset, tmp_path, monkeypatch):
    sizes, left = [], []

    def hungry(prior, groups, *rest):
        sizes.append(len(groups))
        assert [leftover() for leftover in left if leftover() is not None] == []
        if len(groups) > 1:
            raise torch.OutOfMemoryError(f"CUDA out of memory of {Leftover(left)}")
        return step_groups(prior, groups, *rest)

    _, _, expected = learn(prior, dataset, settings(num_steps=2, groups_per_batch=1), tmp_path / "one")
    monkeypatch.setattr(textual_inversion, "step_groups", hungry)
    gc.disable()
    try:
        groups, _, found = learn(prior, dataset, settings(num_steps=2, groups_per_batch=3), tmp_path / "halved")
    finally:
        gc.enable()
    assert sizes == [3, 2] + [1] * (2 * len(groups))
    assert torch.equal(found.embeddings, expected.embeddings) and torch.equal(found.losses, expected.losses)


def test_resuming_is_bit_equal(prior, dataset, tmp_path):
    config = settings(num_steps=12, checkpoint_every=5)
    groups, state = prepare(prior, dataset, config, False)
    whole = train_tokens(prior, groups, state, config, tmp_path / "whole.safetensors")
    (tmp_path / "whole.safetensors").unlink()
    groups, state = prepare(prior, dataset, config, False)
    checkpoint = tmp_path / "resume.safetensors"

    def stop(step):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tokens(prior, groups, state, config, checkpoint, stop)
    groups, state = prepare(prior, dataset, config, False)
    before = prior.num_evaluations
    resumed = train_tokens(prior, groups, state, config, checkpoint)
    assert prior.num_evaluations - before == (12 - 5) * 3 * config.batch_size
    for key in ("embeddings", "m", "v", "k", "losses"):
        assert torch.equal(getattr(resumed, key), getattr(whole, key)), key
    assert resumed.network_evaluations == whole.network_evaluations == 12 * 3 * config.batch_size
    assert resumed.seconds > resumed.seconds_before > 0 == whole.seconds_before


def test_cached_latents_give_the_loss_of_fresh_encodes(prior, dataset):
    """Same posterior noise: encode the drawn image (or its flip) again and compare."""
    config = settings()
    (group, *_), state = prepare(prior, dataset, config, False)
    cached, _ = step_groups(prior, [group], state.embeddings, config, step=3)

    ids, _, eps, t = draw(group, config.seed, 3, config.batch_size, 1000)
    random = torch.Generator().manual_seed(derive(config.seed, "textual inversion", "cat", 3))
    image, flip = torch.randint(3, (4,), generator=random), torch.randint(2, (4,), generator=random)
    torch.randint(27, (4,), generator=random), torch.randint(1000, (4,), generator=random)
    xi = torch.randn((2, 4, 4, 4, 4), generator=random)[0]
    pictures = [to_tensor(s.open(), 32) for s in dataset.train if s.class_index == 0]
    drawn = torch.stack([pictures[i].flip(-1) if f else pictures[i] for i, f in zip(image, flip, strict=True)])
    z_fresh = prior.encode(drawn, xi)
    alpha_bar = prior.alphas_cumprod[t].view(-1, 1, 1, 1).float()
    z_t = alpha_bar.sqrt() * z_fresh + (1 - alpha_bar).sqrt() * eps
    with torch.no_grad():
        eps_hat = prior.predict_noise(z_t, t, prior.embed_ids(ids, state.embeddings))
    torch.testing.assert_close((eps_hat - eps).square().mean(), cached[0], rtol=1e-5, atol=1e-6)


def test_the_flip_is_encoded_not_the_latents_flipped(prior, dataset):
    (group, *_), _ = prepare(prior, dataset, settings(), False)
    sample = next(s for s in dataset.train if s.class_index == 0)
    flipped = to_tensor(sample.open(), 32).flip(-1).unsqueeze(0)
    torch.testing.assert_close(group.mean[0, 1], prior.encode(flipped)[0], rtol=1e-4, atol=1e-5)  # fp32, other batch
    assert not torch.allclose(group.mean[0, 1], group.mean[0, 0].flip(-1), atol=1e-3)


def test_draws_depend_on_seed_class_and_step_alone(prior, dataset):
    groups, _ = prepare(prior, dataset, settings(), False)
    other_run, _ = prepare(prior, make_dataset(), settings(groups_per_batch=1), False)

    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    base = draw(groups[0], 0, 5, 4, 1000)
    assert same(base, draw(other_run[0], 0, 5, 4, 1000))
    for changed in (draw(groups[0], 1, 5, 4, 1000), draw(groups[0], 0, 6, 4, 1000), draw(groups[1], 0, 5, 4, 1000)):
        assert not torch.equal(base[2], changed[2])


@pytest.mark.parametrize("pieces", ["mean", "last", "first"])
def test_class_names_of_several_pieces_give_an_initial_vector(prior, dataset, pieces):
    config = settings(init="class_name", init_pieces=pieces, num_vectors=2)
    groups, state = prepare(prior, dataset, config, class_names=True)
    ids = prior.word_ids("dining table")
    assert len(ids) > 1
    table = prior.text_encoder.get_input_embeddings().weight[ids]
    expected = {"mean": table.mean(dim=0), "last": table[-1], "first": table[0]}[pieces]
    for row in groups[2].rows:
        assert torch.equal(state.embeddings[row], expected)


def test_no_training_prompt_holds_an_id_of_the_class_word(prior):
    """Data-centric guard, on ids: the digit class "one" loses the template "a photo of one {}"."""
    dataset = dataclasses.replace(make_dataset(), class_names=("one", "dog", "nice view"))
    groups, _ = prepare(prior, dataset, settings(), class_names=False)
    assert [group.left_out for group in groups] == [
        ["a photo of one {}"],
        [],
        ["a photo of a nice {}", "a photo of the nice {}"],
    ]
    for group, words in zip(groups, (["one"], ["dog"], ["nice", "view"]), strict=True):
        wanted = {i for word in words for i in prior.word_ids(word)}
        assert not wanted & set(group.prompt_ids.flatten().tolist())
    assert all(not group.left_out for group in prepare(prior, dataset, settings(), class_names=True)[0])


def test_the_initial_word_must_not_be_the_class_name(prior, dataset):
    with pytest.raises(GenaugError, match=r"init=dog starts the token of 'dog' from its own name"):
        prepare(prior, dataset, settings(init="dog"), class_names=False)
    prepare(prior, dataset, settings(init="dog"), class_names=True)


def test_neutral_words_do_not_count_as_names(prior):
    assert not names_class("a photo of a {}", "bird of a feather", prior.word_ids)
    assert names_class("a photo of a bird <bird>", "bird of a feather", prior.word_ids)
    assert not names_class("a photo of a <dog>", "dog", prior.word_ids)


def test_two_trials_give_different_tokens(prior, dataset, tmp_path):
    """nothing is remembered from one trial to the next."""
    features = []
    for trial in (0, 1):
        (tmp_path / str(trial)).mkdir()
        groups, _, state = learn(prior, make_dataset(trial), settings(seed=trial, num_steps=2), tmp_path / str(trial))
        tokens = LearnedTokens(state.embeddings, {group.token: group.rows for group in groups})
        features.append(prior.embed(["a photo of a <cat>"], tokens))
    assert not torch.allclose(*features)


def test_wrong_token_settings_name_their_key():
    wrong = {"init_pieces": ["middle"], "num_steps": [-1], "learning_rate": [0.0, 1e20], "num_vectors": [0, 76]}
    for key, values in (wrong | {"weight_decay": [-1, 2.0]}).items():
        for value in values:
            with pytest.raises(GenaugError, match=re.escape(f"generator.tokens.{key}={value} must be")):
                settings(**{key: value})


def test_the_released_codes_faults_train_the_first_vector_and_let_the_others_decay(prior, dataset):
    config = TextualInversion(
        seed=0, num_steps=3, batch_size=2, num_vectors=3, learning_rate=0.01, weight_decay=0.1,
        reference_bugs=True, allow_reference_bugs=True,
    )  # fmt: skip
    groups, state = prepare(prior, dataset, config, class_names=True)
    initial = state.embeddings.clone()
    for step in range(config.num_steps):
        _, grad = step_groups(prior, groups, state.embeddings, config, step)
        rows = [row for group in groups for row in group.rows]
        adamw_rows(state, rows, grad, config.learning_rate, config.weight_decay)
    for group in groups:
        first, *others = group.rows
        decayed = initial[others] * (1 - config.learning_rate * config.weight_decay) ** config.num_steps
        torch.testing.assert_close(state.embeddings[others], decayed)
        assert not torch.allclose(state.embeddings[first], initial[first] * (1 - 0.001) ** 3, atol=1e-4)


def test_the_released_codes_faults_are_refused_unless_they_are_meant():
    with pytest.raises(GenaugError, match="allow_reference_bugs=true"):
        TextualInversion(seed=0, reference_bugs=True)
    faulty = TextualInversion(seed=0, num_vectors=4, reference_bugs=True, allow_reference_bugs=True)
    assert faulty.in_prompt("<dog>") == "<dog> <dog>_1 <dog>_2 <dog>_3"
    assert TextualInversion(seed=0, num_vectors=4).in_prompt("<dog>") == "<dog>"


def test_without_mirror_images_every_sample_is_of_an_upright_one(prior, dataset):
    (group, *_), _ = prepare(prior, dataset, settings(flip=False), class_names=False)
    flipped, *_ = prepare(prior, dataset, settings(), class_names=False)[0]
    assert group.mean.shape[1] == 1
    torch.testing.assert_close(group.mean[:, 0], flipped.mean[:, 0])
    still = dataclasses.replace(group, std=torch.zeros_like(group.std))
    _, z, _, _ = draw(still, 0, 3, 64, 1000)
    upright = [any(torch.equal(sample, mean[0]) for mean in group.mean) for sample in z]
    assert all(upright)
