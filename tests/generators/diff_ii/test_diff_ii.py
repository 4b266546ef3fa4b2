"""Diff-II: the circle in closed form, inversions that DDIM undoes, two stages, partners of the own class."""

import math

import numpy as np
import pytest
import torch

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.generators.diff_ii.circle import denoise, inversions, on_circle
from genaug.generators.diff_ii.config import DiffII
from genaug.generators.sentences import Sentences
from genaug.generators.tokens.config import TextualInversion
from tests.generators.conftest import make_dataset


def diff_ii(**fields: object) -> DiffII:
    tokens = TextualInversion(seed=0, num_steps=1, batch_size=1)
    given = {"name": "d", "seed": 0, "class_names": False, "tokens": tokens, "num_steps": 10, "inversion_steps": 10}
    return DiffII(**{**given, **fields})  # type: ignore[arg-type]


def released_slerp(z1: torch.Tensor, z2: torch.Tensor, alpha: float) -> torch.Tensor:
    """The interpolation of interpolation_le.py, for one pair; phi = alpha theta."""
    theta = torch.acos(torch.sum(z1 * z2) / (torch.norm(z1) * torch.norm(z2)))
    return torch.sin((1 + alpha) * theta) / torch.sin(theta) * z1 - torch.sin(alpha * theta) / torch.sin(theta) * z2


def test_the_circle_is_the_released_codes_and_goes_through_both_images():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn((3, 4, 4, 4), generator=random) for _ in range(2))
    theta = [math.acos(float((x * y).sum() / (x.norm() * y.norm()))) for x, y in zip(a, b, strict=True)]
    for alpha in (0.0, 0.4, 1.3, 3.0):
        found = on_circle(a, b, torch.tensor([alpha * t for t in theta], dtype=torch.float64))
        expected = torch.stack([released_slerp(x, y, alpha) for x, y in zip(a, b, strict=True)])
        assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(on_circle(a, b, torch.zeros(3)), a, atol=1e-6)
    assert torch.allclose(on_circle(a, b, torch.tensor([2 * math.pi - t for t in theta])), b, atol=1e-5)
    unit = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None, None]
    norms = on_circle(a, unit, torch.tensor([0.7, 2.0, 5.0])).flatten(1).norm(dim=1)
    assert torch.allclose(norms, a.flatten(1).norm(dim=1), rtol=1e-5)
    assert torch.allclose(on_circle(a, a, torch.tensor([1.0, 2.0, 3.0])), a, atol=1e-6)  # an image with itself


def test_denoising_undoes_an_inversion_at_the_very_same_times(prior, dataset, tmp_path, monkeypatch):
    made = diff_ii(num_steps=250, inversion_steps=250, guidance=1.0, t0=0.2)
    made.fit(dataset, prior, tmp_path)
    samples, times, predict = dataset.train[:2], [], prior.predict_noise
    monkeypatch.setattr(prior, "predict_noise", lambda z, t, *rest: times.append(int(t)) or predict(z, t, *rest))
    found = inversions(made, prior, samples, dataset, tmp_path, 0.2)
    z = torch.stack([found[sample.digest] for sample in samples])
    names = [dataset.class_names[sample.class_index] for sample in samples]
    texts, tokens = made.prompts(names, prior, tmp_path)
    cond = prior.embed(texts, tokens)
    back = denoise(made, prior, z, cond, cond, None, 0.2)
    assert times[:50] == times[50:][::-1] == list(range(1, 201, 4))
    images = torch.stack(
        [torch.from_numpy(np.array(s.open(), np.float32)).permute(2, 0, 1) / 127.5 - 1 for s in samples]
    )
    start = prior.encode(images)
    assert (z - start).abs().mean() > 0.1  # it went somewhere
    assert (back - start).abs().mean() < 0.1 * (z - start).abs().mean()


def test_partners_are_other_images_of_the_class_and_angles_are_uniform(dataset):
    made = diff_ii()
    drawn = [made.draw(dataset.train[0], j, dataset) for j in range(400)]
    own = {sample.digest for sample in dataset.train if sample.class_index == 0} - {dataset.train[0].digest}
    assert {draw["partner"] for draw in drawn} == own
    angles = np.array([draw["angle"] for draw in drawn])
    assert 0 <= angles.min() and angles.max() < 2 * math.pi and abs(angles.mean() - math.pi) < 4 * 1.82 / 20


def test_the_first_stage_sees_the_sentence_and_the_second_the_prompt(prior, dataset, tmp_path):
    made = diff_ii(
        first_stage=0.499, guidance=1.0, sentences=Sentences(texts=["a {token} at night"], class_names=False)
    )
    made.fit(dataset, prior, tmp_path)
    variants = [made.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
    seen: list[tuple[int, bool]] = []
    predict = prior.predict_noise
    texts, tokens = made.prompts(["cat", "dog", "dining table"], prior, tmp_path)
    plain = prior.embed(texts, tokens)

    def watched(z, t, cond, *rest):
        seen.append((int(t), cond.shape == plain.shape and torch.allclose(cond, plain, atol=1e-6)))
        return predict(z, t, cond, *rest)

    prior.predict_noise = watched
    try:
        images = list(made.generate(variants, dataset, prior, tmp_path))
    finally:
        del prior.predict_noise
    assert [image.about["prompt"] for image in images] == [
        text.replace("a photo of a ", "a ") + " at night" for text in texts
    ]
    assert all(is_plain == (t < 501) for t, is_plain in seen[-10:]) and 501 in dict(seen[-10:])
    partners = {sample.digest: sample.id for sample in dataset.train}
    assert [image.about["partner"] for image in images] == [partners[v.draws["partner"]] for v in variants]


def test_images_do_not_depend_on_their_batch_and_cost_what_is_said(prior, dataset, tmp_path):
    made = diff_ii()
    made.fit(dataset, prior, tmp_path)
    variants = [made.variant_of(source, 0, dataset, "f") for source in dataset.train[:4]]
    prior.num_evaluations = 0
    together = [np.asarray(image.image).astype(int) for image in made.generate(variants, dataset, prior, tmp_path)]
    assert prior.num_evaluations == made.forward_passes(variants).count
    alone = [np.asarray(next(iter(made.generate([v], dataset, prior, tmp_path))).image) for v in variants]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1  # rounding


def test_what_cannot_be_interpolated_is_refused():
    with pytest.raises(GenaugError, match=r"dataset.shots=2 or more"):
        diff_ii().check_dataset(make_dataset(per_class=1))
    with pytest.raises(GenaugError, match=r"generator\.mask=none"):
        diff_ii(mask="keep_object")
    with pytest.raises(GenaugError, match=r"generator\.scheduler=ddim"):
        diff_ii(scheduler="unipc")
    with pytest.raises(GenaugError, match=r"generator\.cache_interval=null"):
        diff_ii(cache_interval=2)
    with pytest.raises(GenaugError, match="does not use"):
        compose_typed(["generator=diff_ii", "generator.lora=null", "leakage=model_centric"]).check()


def test_presets_state_the_released_settings():
    made = compose_typed(["generator=diff_ii_reference"]).generator
    assert (made.inversion_steps, made.num_steps, made.guidance, made.first_stage) == (200, 25, 7.5, 0.3)
    assert (made.lora.rank, made.lora.num_steps, made.tokens.num_steps) == (10, 35000, 0)
