"""DALDA: the weight of the source picture follows the released code's rule, and each image has its own."""

import math
from typing import Any

import numpy as np
import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.generators.dalda import scaling
from genaug.generators.dalda.config import Dalda
from genaug.generators.pipeline import images
from genaug.generators.pipeline.config import IPAdapter
from tests.generators.conftest import make_dataset
from tests.generators.pipeline.tiny_pipelines import TINY


def dalda(**fields: Any) -> Dalda:
    given = {"class_names": True, "image_size": 32, "num_steps": 2, "seed": 0, "strength": 1.0}
    given |= {"ip_adapter": IPAdapter(path="somewhere")}
    return Dalda(name="dalda", path=str(TINY), **{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("shots", [1, 4, 16])
@pytest.mark.parametrize("score", [0.0, 0.05, 0.3, 0.300001, 0.6, 1.0])
@pytest.mark.parametrize("normal", [-30.0, -0.7, 0.0, 0.4, 30.0])
def test_the_weight_is_the_released_codes(shots: int, score: float, normal: float) -> None:
    sigma = 0.05 * shots  # dalda.py, adaptive
    if score <= 0.3:
        mu = 0.7 + (0.9 - 0.7) * (1 - score)
        expected = min(max(mu + sigma * normal, 0.7), 0.9)
    else:
        mu = 0.1 + (0.4 - 0.1) * (1 - score)
        expected = min(max(mu + sigma * normal, 0.1), 0.4 + 0.1 * math.sqrt(shots))
    assert scaling.scale(dalda(), score, shots, normal) == pytest.approx(expected, abs=1e-12)


def test_the_score_is_clips_probability_of_the_sources_class(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = dalda(clip_path=clip), make_dataset()
    seen = []
    monkeypatch.setattr(
        scaling, "scale", lambda config, score, shots, normal: seen.append((score, shots, normal)) or 0.5
    )
    for source in data.train[:3]:
        config.picture_scale(config.variant_of(source, 0, data, "w"), data, "cpu")
    assert {shots for _, shots, _ in seen} == {3.0} and len({normal for *_, normal in seen}) == 3
    judge = scaling.judge(clip, tuple(f"a photo of a {name}" for name in data.class_names), "cpu")
    import torch

    for (score, *_), source in zip(seen, data.train, strict=False):
        picture = torch.from_numpy(np.asarray(source.open()).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        known = judge.probabilities(judge.features(picture))[0]
        assert score == pytest.approx(known[source.class_index].item(), abs=1e-5)


def test_each_image_is_made_under_its_own_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to, used = [], []

    class Pipe:
        def set_ip_adapter_scale(self, scale: float) -> None:
            set_to.append(scale)

    monkeypatch.setattr(images, "load", lambda config, device, fitted: Pipe())
    monkeypatch.setattr(
        images, "call", lambda pipe, config, batch, data: used.append(batch) or [batch[0].source.open()]
    )
    monkeypatch.setattr(
        Dalda, "picture_scale", lambda self, variant, data, device: int(variant.fingerprint[:4], 16) / 1e5
    )
    config, data = dalda(batch_size=4), make_dataset()
    variants = [config.variant_of(source, 0, data, "w") for source in data.train[:4]]
    made = list(config.generate(variants, data, None, None))
    assert [len(batch) for batch in used] == [1] * 4
    assert (
        [item.about["ip_adapter_scale"] for item in made]
        == set_to
        == [int(item.variant.fingerprint[:4], 16) / 1e5 for item in made]
    )


def test_what_it_needs_is_said() -> None:
    for fields, words in (
        ({"ip_adapter": IPAdapter()}, r"generator\.ip_adapter\.path=FOLDER"),
        ({"class_names": False}, "leakage=none"),
        ({"known": [0.4, 0.1]}, "a least and a greatest weight"),
        ({"threshold": 1.5}, r"generator\.threshold=1\.5"),
    ):
        with pytest.raises(GenaugError, match=words):
            dalda(**fields)
    preset = compose_typed(["generator=dalda", "leakage=none"]).generator
    assert (preset.threshold, preset.unknown, preset.known, preset.num_steps) == (0.3, [0.7, 0.9], [0.1, 0.4], 30)
