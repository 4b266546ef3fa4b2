"""Prompts from files and several templates: which image gets which, what is refused, and that every generator takes them."""

import json
from pathlib import Path

import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.generators.psld.config import Psld
from genaug.generators.sdedit.diff_mix import DiffMix
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.generators.sdedit.sampler import embed_distinct
from genaug.generators.sentences import Sentences
from genaug.generators.tokens.config import TextualInversion
from tests.generators.conftest import CLASSES


def rows() -> list[dict[str, str]]:
    found = [{"class": name, "text": f"a picture of thing {i}"} for i, name in enumerate(CLASSES)]
    return [*found, {"class": "cat", "text": "another one"}, {"file_name": "0/3", "text": "my own"}]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    if path.suffix == ".csv":
        lines = [
            "file_name,label,caption",
            *(f"{r.get('file_name', '')},{r.get('class', '')},{r['text']}" for r in rows),
        ]
    else:
        lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def sentences(**fields: object) -> Sentences:
    return Sentences(**{"class_names": False, **fields})  # type: ignore[arg-type]


def real_guidance(found: Sentences | None) -> RealGuidance:
    return RealGuidance(name="r", seed=0, class_names=False, num_steps=4, sentences=found)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_image_gets_its_own_sentence_else_its_classs(prior, dataset, tmp_path, suffix):
    found = sentences(path=write(tmp_path / f"s.{suffix}", rows()), texts=["unused"])
    generator = real_guidance(found)
    generator.check_dataset(dataset)
    drawn = {s.id: {generator.draw(s, j, dataset)["prompt"] for j in range(12)} for s in dataset.train}
    assert drawn["0/3"] == {"my own"}
    assert drawn["0/0"] == {"a picture of thing 0", "another one"}
    assert drawn["0/1"] == {"a picture of thing 1"}
    found.per_variant = False
    assert len({generator.draw(dataset.train[0], j, dataset)["prompt"] for j in range(12)}) == 1
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train[:4]]
    made = {g.variant.source.id: g.about["prompt"] for g in generator.generate(variants, dataset, prior, None)}
    assert made["0/3"] == "my own" and made["0/1"] == "a picture of thing 1"


def test_classes_without_a_sentence_take_those_for_all_or_are_refused(dataset, tmp_path):
    path = write(tmp_path / "s.jsonl", [{"class": "cat", "text": "one"}])
    with pytest.raises(GenaugError, match="no sentence for the class 'dog'"):
        real_guidance(sentences(path=path)).check_dataset(dataset)
    both = sentences(path=path, texts=["for all"])
    real_guidance(both).check_dataset(dataset)
    assert both.of(dataset.train[1], "dog") == ["for all"] and both.of(dataset.train[0], "cat") == ["one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a big DOG in the snow", "holds a word of the class name 'dog'"),
        ("a round table", "holds a word of the class name 'dining table'"),
        ("a {name}", "names the class"),
        ("a {token}", "does not fill in"),
    ],
)
def test_sentences_that_leak_or_cannot_be_filled_in_are_refused_before_any_work(dataset, text, message):
    with pytest.raises(GenaugError, match=message):
        real_guidance(sentences(texts=["a photo", text])).check_dataset(dataset)
    if "{token}" not in text:
        real_guidance(sentences(texts=["a photo", text], class_names=True)).check_dataset(dataset)


def test_the_mean_of_several_templates_is_the_mean_of_their_features(prior, dataset):
    found = sentences(texts=["a photo", "a drawing", "the dark picture"], use="mean")
    prompt = real_guidance(found).draw(dataset.train[0], 0, dataset)["prompt"]
    features = embed_distinct(prior, [prompt, "a photo"], None, 2)
    expected = torch.stack([prior.embed([text])[0] for text in found.texts]).mean(dim=0)
    assert torch.allclose(features[prompt], expected, atol=1e-6)
    assert torch.allclose(features["a photo"], prior.embed(["a photo"])[0], atol=1e-6)


def test_a_target_classs_sentence_holds_its_token(prior, dataset, tmp_path):
    tokens = TextualInversion(seed=0, num_steps=1, batch_size=1)
    path = write(tmp_path / "s.jsonl", [{"class": n, "text": f"{{token}} in place {i}"} for i, n in enumerate(CLASSES)])
    generator = DiffMix(
        name="m",
        seed=0,
        class_names=False,
        num_steps=4,
        tokens=tokens,
        targets="others",
        sentences=sentences(path=path),
    )
    generator.check_dataset(dataset)
    generator.fit(dataset, prior, tmp_path)
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
    for made in generator.generate(variants, dataset, prior, tmp_path):
        target = made.variant.draws["target"]
        assert made.about["prompt"] == f"<{target.replace(' ', '_')}> in place {CLASSES.index(target)}"


def test_psld_conditions_each_image_on_its_own_sentence(prior, dataset):
    generator = Psld(
        name="p",
        seed=0,
        mask="center_box",
        num_steps=5,
        guidance=2.0,
        batch_size=4,
        sentences=sentences(texts=["a", "b c d"]),
    )
    generator.check_dataset(dataset)
    variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train[:4]]
    assert len({v.draws["prompt"] for v in variants}) == 2
    given: list[torch.Tensor] = []
    predict = prior.predict_noise
    prior.predict_noise = lambda z, t, cond, *rest: (given.append(cond), predict(z, t, cond, *rest))[1]
    try:
        list(generator.generate(variants, dataset, prior, None))
    finally:
        del prior.predict_noise
    expected = torch.stack([prior.embed([variant.draws["prompt"]])[0] for variant in variants])
    assert torch.allclose(given[0], expected, atol=1e-6)


def test_without_sentences_nothing_of_an_identity_changes_and_a_sentence_is_part_of_an_images():
    assert "sentences" not in canonical(real_guidance(None))


def test_a_sentence_is_part_of_an_images_identity_and_the_others_are_not(dataset):
    one, more, other = (real_guidance(sentences(texts=texts)) for texts in (["a"], ["a", "b"], ["b"]))
    source = dataset.train[0]
    prints = [g.variant_of(source, 0, dataset, "f").fingerprint for g in (one, other)]
    assert prints[0] != prints[1]
    assert more.variant_of(source, 0, dataset, "f").fingerprint in prints


@pytest.mark.parametrize("fields", [{}, {"path": "/nowhere.jsonl"}, {"texts": ["a"], "use": "all"}])
def test_wrong_settings_are_refused(fields):
    with pytest.raises(GenaugError, match=r"generator\.sentences"):
        sentences(**fields)
