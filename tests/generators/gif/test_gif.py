"""GIF: the guided step in closed form, its bounds, and images that depend on their own identity alone."""

import numpy as np
import pytest
import torch

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.generators.gif import imagination
from genaug.generators.gif.config import Gif
from genaug.generators.gif.imagination import Judge, diversity, informativeness


def gif(clip: str, **fields: object) -> Gif:
    given = {"name": "g", "seed": 0, "class_names": True, "num_steps": 4, "t0": 0.5, "guidance": 2.0, "clip_path": clip}
    return Gif(**{**given, **fields})  # type: ignore[arg-type]


def by_identity(generator, variants, dataset, prior) -> dict[str, np.ndarray]:
    made = generator.generate(variants, dataset, prior, None)
    return {image.variant.fingerprint: np.asarray(image.image).astype(int) for image in made}


def test_the_score_is_that_of_the_released_code():
    random = torch.Generator().manual_seed(0)
    found = torch.randn((3, 5), generator=random).softmax(dim=-1)
    known = torch.tensor([0.1, 0.6, 0.1, 0.1, 0.1])
    h = lambda p: -(p * p.log()).sum(-1)
    expected = (h(found) - h(known)).mean() + found[:, 1].mean()
    assert informativeness(found, known) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.isfinite(informativeness(torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])))  # 0 log 0
    features = torch.randn((3, 8), generator=random)
    kl = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
    mean = features.mean(0, keepdim=True).repeat(3, 1)
    released = kl(torch.log_softmax(features, -1), torch.log_softmax(mean, -1))
    assert diversity(features) == pytest.approx(released.item(), rel=1e-4)
    assert diversity(features[:1].repeat(3, 1)) == pytest.approx(0.0, abs=1e-6)


def test_classes_are_a_hundred_times_the_cosines_of_clip_as_it_was_trained(clip):
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    names, model = ("cat", "dog", "table"), CLIPModel.from_pretrained(clip)
    judge = Judge(clip, names, "cpu")
    picture = torch.rand((2, 3, judge.side, judge.side), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    texts = CLIPTokenizer.from_pretrained(clip)(list(names), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = judge.probabilities(judge.features(2 * picture - 1))
        theirs = model(pixel_values=(picture - mean) / std, **texts)
    cosines = torch.cosine_similarity(theirs.image_embeds[:, None], theirs.text_embeds[None], dim=2)
    assert torch.allclose(found, (100 * cosines).softmax(dim=1), atol=1e-4)


def test_the_step_goes_up_the_score_within_its_bounds(prior, dataset, clip):
    made = gif(clip, epsilon=0.3)
    z = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(1))
    judge = Judge(clip, ("cat", "dog", "table"), "cpu")
    known = torch.tensor([0.2, 0.5, 0.3])
    found = imagination._guided(made, prior, judge, z[0], known, 7)
    assert (found - z[0]).abs().max() <= 0.3 + 1e-6 and (found - z[0]).abs().max() > 0.1

    moved: list[torch.Tensor] = []

    def score(step: float) -> float:
        """S after a step of this size, of the copies that ``_guided`` perturbs."""
        random = torch.Generator().manual_seed(7)
        zeta = torch.rand((2, 4, 1, 1), generator=random).requires_grad_()
        b = torch.randn((2, 4, 1, 1), generator=random).requires_grad_()

        def of(zeta: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            images = prior.vae.decode(((1 + zeta) * z[0] + b) / prior.scaling_factor).sample
            features = judge.features(images)
            return informativeness(judge.probabilities(features), known) + diversity(features)

        slopes = torch.autograd.grad(of(zeta, b), (zeta, b))
        moved.append((1 + zeta[0] + step * slopes[0][0].sign()) * z[0] + b[0] + step * slopes[1][0].sign())
        with torch.no_grad():
            return float(of(*(value + step * slope.sign() for value, slope in zip((zeta, b), slopes, strict=True))))

    assert score(0.01) > score(0.0)
    free = imagination._guided(gif(clip, epsilon=100.0), prior, judge, z[0], known, 7)
    score(0.1)  # the preset's step
    assert torch.allclose(free, moved[-1].detach(), atol=1e-5)


def test_each_image_is_guided_by_what_clip_says_of_its_own_source(prior, dataset, clip, monkeypatch):
    made, seen = gif(clip), []
    monkeypatch.setattr(imagination, "_guided", lambda config, prior, clip, f, known, seed: seen.append(known) or f)
    variants = [made.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
    imagination.imagined(made, prior, torch.zeros((3, 4, 4, 4)), variants, dataset.class_names)
    judge = Judge(clip, tuple(f"This is a photo of a {name}" for name in dataset.class_names), "cpu")
    logs = []
    for known, variant in zip(seen, variants, strict=True):
        picture = torch.from_numpy(np.array(variant.source.open())).permute(2, 0, 1)[None] / 127.5 - 1
        logs.append(judge.probabilities(judge.features(picture))[0].log())
        assert torch.allclose(known.log(), logs[-1], atol=1e-2)
    assert (logs[0] - logs[1]).abs().max() > 0.5  # sources that CLIP tells apart


def test_variants_of_an_image_are_guided_from_other_places(prior, dataset, clip):
    made = gif(clip)
    variants = [made.variant_of(dataset.train[0], j, dataset, "f") for j in (0, 1, 0)]
    latents = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(1)).repeat(3, 1, 1, 1)
    one, other, again = imagination.imagined(made, prior, latents, variants, dataset.class_names)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_images_do_not_depend_on_their_batch_and_differ_from_plain_edits(prior, dataset, clip):
    made = gif(clip)
    variants = [made.variant_of(source, j, dataset, "f") for source in dataset.train[:2] for j in range(2)]
    together = by_identity(made, variants, dataset, prior)
    for variant in variants:
        alone = np.asarray(next(iter(made.generate([variant], dataset, prior, None))).image)
        assert np.abs(together[variant.fingerprint] - alone).max() <= 2  # rounding
    weak = by_identity(gif(clip, epsilon=1e-6), variants, dataset, prior)
    assert all(np.abs(together[f] - weak[f]).mean() > 1 for f in together)


def test_what_cannot_work_is_refused(clip):
    with pytest.raises(GenaugError, match="leakage=none"):
        gif(clip, class_names=False)
    with pytest.raises(GenaugError, match=r"generator\.mask=none"):
        gif(clip, mask="edit_object")
    with pytest.raises(GenaugError, match="does not work on detection"):
        gif(clip).check("detection")


def test_the_preset_states_the_released_settings():
    made = compose_typed(["generator=gif", "leakage=none"]).generator
    assert (made.t0, made.guidance, made.epsilon, made.step_size, len(made.sentences.texts)) == (0.9, 50, 0.8, 0.1, 50)
