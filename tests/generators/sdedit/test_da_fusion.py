"""DA-Fusion from fit to images, and the token files that other tools read and write."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.core.store import Store
from genaug.generators.publishing import make_pool
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.generators.tokens.config import TextualInversion
from genaug.generators.tokens.token_files import read_embeddings, read_tokens
from genaug.priors.model import LearnedTokens
from tests.generators.conftest import CLASSES, make_dataset

PROMPT = "a photo of a <dining_table>"


def da_fusion(tokens=None, **changes) -> DAFusion:
    ti = TextualInversion(**{"seed": 0, "num_steps": 4, "groups_per_batch": 2, "num_vectors": 2, **(tokens or {})})
    return DAFusion(
        **{"name": "da", "seed": 0, "class_names": False, "num_steps": 8, "guidance": 2.0, "tokens": ti, **changes}
    )


@pytest.fixture(scope="module")
def fitted(shared_prior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    da_fusion().fit(make_dataset(), shared_prior, folder)
    return folder


def test_tokens_are_usable_straight_after_training(prior, dataset, tmp_path):
    """fit, images and pool on a CPU without any step between."""
    store, generator = Store(tmp_path), da_fusion()
    fingerprint = generator.fit_fingerprint(dataset, "prior")
    folder, made = store.folder("fitted", "da", fingerprint, lambda work: generator.fit(dataset, prior, work))
    evaluations = json.loads((folder / "artefact.json").read_text())["network_evaluations"]
    assert made and evaluations == prior.num_evaluations == 4 * 3 * 4
    pool = make_pool(store, generator, dataset, folder, fingerprint, lambda: prior, 3, say=lambda text: None)
    variants = [generator.variant_of(s, j, dataset, fingerprint) for j in range(3) for s in dataset.train]
    assert pool.counts == {
        "images_generated": 27,
        "images_reused": 0,
        "network_evaluations": generator.forward_passes(variants).count,
    }
    prompts = {sample.about["prompt"] for sample in pool.samples}
    assert prompts == {"a photo of a <cat>", "a photo of a <dog>", PROMPT}


def test_an_interrupted_fit_resumes_to_the_same_tokens(prior, dataset, tmp_path, monkeypatch):
    generator = da_fusion({"num_steps": 6, "checkpoint_every": 2})
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    generator.fit(dataset, prior, tmp_path / "whole")
    predict_noise, calls = prior.predict_noise, []

    def stops(*arguments):
        calls.append(0)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return predict_noise(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prior, "predict_noise", stops)
        generator.fit(dataset, prior, tmp_path / "stopped")
    generator.fit(dataset, prior, tmp_path / "stopped")
    files = [{p.relative_to(f).as_posix() for p in f.rglob("*")} for f in (tmp_path / "whole", tmp_path / "stopped")]
    assert files[0] == files[1] and not any("resume" in name for name in files[0])
    for name in files[0]:
        if (tmp_path / "whole" / name).is_file():
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


def test_files_say_what_was_learned(fitted):
    about = json.loads((fitted / "class_tokens.json").read_text())
    assert about["tokens"] == {"cat": "<cat>", "dog": "<dog>", "dining table": "<dining_table>"}
    assert about["num_vectors"] == 2 and len(about["images"]["cat"]) == 3 and set(about["loss"]) == set(CLASSES)
    together = load_file(fitted / "class_tokens.safetensors")
    for token in about["tokens"].values():
        alone = load_file(fitted / token.strip("<>") / "learned_embeds.safetensors")
        assert alone.keys() == {token} and alone[token].shape == (2, 32)
        assert torch.equal(alone[token], together[token])
    assert len((fitted / "loss.csv").read_text().splitlines()) == 5


def test_diffusers_reads_the_tokens_and_gives_the_same_features(prior, fitted, prior_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(prior_folder, safety_checker=None, local_files_only=True)
    files = sorted(fitted.glob("*/learned_embeds.safetensors"))
    pipeline.load_textual_inversion([load_file(file) for file in files])
    features, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, False)
    ours = prior.embed([PROMPT], LearnedTokens.of(read_tokens(fitted, CLASSES)))
    torch.testing.assert_close(features, ours)
    single = StableDiffusionPipeline.from_pretrained(prior_folder, safety_checker=None, local_files_only=True)
    single.load_textual_inversion(str(fitted / "dining_table" / "learned_embeds.safetensors"))
    torch.testing.assert_close(single.encode_prompt(PROMPT, "cpu", 1, False)[0], ours)


def test_a_missing_or_incomplete_token_set_lists_the_classes(prior, dataset, fitted, tmp_path):
    """no silent run with the tokens that happen to be there."""
    generator = da_fusion()
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train]
    with pytest.raises(GenaugError, match="no complete token for: cat, dog, dining table"):
        next(generator.generate(variants, dataset, prior, tmp_path))
    tokens = read_embeddings(fitted / "class_tokens.safetensors")
    (tmp_path / "class_tokens.json").write_text((fitted / "class_tokens.json").read_text())
    save_file({"<cat>": tokens["<cat>"], "<dog>": tokens["<dog>"][:1].clone()}, tmp_path / "class_tokens.safetensors")
    with pytest.raises(GenaugError, match="no complete token for: dog, dining table"):
        next(generator.generate(variants, dataset, prior, tmp_path))


def test_every_known_format_is_read(tmp_path):
    e = torch.randn(3, 8)
    torch.save({"<cat>": e[0]}, tmp_path / "release.bin")
    torch.save({"<cat>": e[:1]}, tmp_path / "one.bin")
    torch.save({"<cat>": e}, tmp_path / "many.bin")
    torch.save({"string_to_param": {"*": torch.nn.Parameter(e)}, "name": "My Cat"}, tmp_path / "a1111.pt")
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": e}}, tmp_path / "cat.pt")
    torch.save({"<cat>": e[0], "<dog>": e[1]}, tmp_path / "merged.pt")
    torch.save({"learned_embeds": e}, tmp_path / "table.bin")
    save_file({"<cat>": e.half()}, tmp_path / "half.safetensors")
    expected = {
        "release.bin": {"<cat>": e[:1]},
        "one.bin": {"<cat>": e[:1]},
        "many.bin": {"<cat>": e},
        "a1111.pt": {"<my_cat>": e},
        "cat.pt": {"<cat>": e},
        "merged.pt": {"<cat>": e[:1], "<dog>": e[1:2]},
        "half.safetensors": {"<cat>": e.half().float()},
    }
    for name, tokens in expected.items():
        got = read_embeddings(tmp_path / name)
        assert got.keys() == tokens.keys() and all(torch.equal(got[key], tokens[key]) for key in tokens), name
    table = read_embeddings(tmp_path / "table.bin", ["cat", "dog", "dining table"])
    assert [*table] == ["<cat>", "<dog>", "<dining_table>"] and torch.equal(table["<dog>"], e[1:2])


def test_other_files_are_refused_by_name(tmp_path):
    torch.save({"learned_embeds": torch.randn(3, 8)}, tmp_path / "table.bin")
    torch.save({"clip_l": torch.randn(2, 8), "clip_g": torch.randn(2, 8)}, tmp_path / "sdxl.bin")
    torch.save([1], tmp_path / "list.bin")
    torch.save({"step": 3}, tmp_path / "other.bin")
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    wrong = {
        "table.bin": "give its class list",
        "sdxl.bin": "SDXL",
        "list.bin": "holds a list",
        "other.bin": "is no embedding",
        "damaged.safetensors": "cannot be read",
        "absent.bin": "cannot be read",
    }
    for name, message in wrong.items():
        with pytest.raises(GenaugError, match=message):
            read_embeddings(tmp_path / name)


def test_class_names_stay_out_where_they_must(prior, dataset, fitted):
    with pytest.raises(GenaugError, match=r"init=class_name .* leakage=none"):
        da_fusion({"init": "class_name"})
    assert da_fusion({"init": "class_name"}, class_names=True).tokens.init == "class_name"
    generator = da_fusion(prompt="a photo of a dog, {token}")
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train]
    with pytest.raises(GenaugError, match="holds a word of the class name 'dog'"):
        next(generator.generate(variants, dataset, prior, fitted))


def test_a_prompt_without_the_token_is_refused():
    with pytest.raises(GenaugError, match=r"lacks \{token\}"):
        da_fusion(prompt="a photo")


def test_what_is_sampled_does_not_change_what_is_learned(dataset):
    fit = da_fusion().fit_fingerprint(dataset, "p")
    for change in (
        {"t0": 0.3},
        {"num_steps": 9},
        {"guidance": 1.0},
        {"seed": 5},
        {"prompt": "my {token}"},
        {"batch_size": 2},
    ):
        assert da_fusion(**change).fit_fingerprint(dataset, "p") == fit
    for change in ({"seed": 1}, {"num_steps": 5}, {"learning_rate": 1.0}, {"init": "photo"}):
        assert da_fusion(change).fit_fingerprint(dataset, "p") != fit
    assert da_fusion({"groups_per_batch": 9, "checkpoint_every": 7}).fit_fingerprint(dataset, "p") == fit
    assert da_fusion().fit_fingerprint(make_dataset(1), "p") != fit
    assert "tokens" not in canonical(da_fusion(), stage="sample")


def test_token_noise_is_one_per_class_and_level_and_of_the_stated_size(prior, dataset, tmp_path):
    from genaug.generators.tokens.learning import learned_tokens

    made = DAFusion(
        name="d",
        seed=0,
        class_names=False,
        t0=1.0,
        num_steps=4,
        token_noise=[0, 0.5],
        tokens=TextualInversion(seed=0, num_steps=1),
    )
    made.fit(dataset, prior, tmp_path)
    drawn = [made.draw(dataset.train[0], j, dataset)["token_noise"] for j in range(40)]
    assert set(drawn) == {0.0, 0.5}
    names = [dataset.class_names[0]] * 3
    prompts, tokens = made.prompts(names, prior, tmp_path, [{"token_noise": level} for level in (0.0, 0.5, 0.5)])
    assert prompts == ["a photo of a <cat>", "a photo of a <cat~0.5>", "a photo of a <cat~0.5>"]
    own = learned_tokens(tmp_path, names[:1]).rows
    noise = tokens.rows[list(tokens.places["<cat~0.5>"])] - own
    assert torch.equal(tokens.rows[list(tokens.places["<cat>"])], own)
    assert noise.std() == pytest.approx(0.5, rel=0.5) and noise.abs().max() > 0  # 32 numbers: three standard deviations
    again = made.prompts(names, prior, tmp_path, [{"token_noise": 0.5}] * 3)[1]
    assert torch.equal(again.rows[list(again.places["<cat~0.5>"])], own + noise)
    made.seed = 1
    other = made.prompts(names, prior, tmp_path, [{"token_noise": 0.5}] * 3)[1]
    assert not torch.equal(other.rows, again.rows)
    made.token_noise = None
    assert "token_noise" not in made.draw(dataset.train[0], 0, dataset) and "token_noise" not in canonical(made)
