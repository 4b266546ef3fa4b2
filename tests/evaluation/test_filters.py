"""Filters: each rejects what it is for; scores are made once, whatever the threshold."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample
from genaug.evaluation.features import encode, normalised
from genaug.evaluation.filters import Blank, ClassifierAgreement, ClipMargin, DistanceBand, NearDuplicate, NoFilter


def flat(value: int) -> np.ndarray:
    return np.full((32, 32, 3), value, dtype=np.uint8)


def textured(seed: int, level: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 60, (32, 32, 3))
    ramp = np.linspace(0, 100, 32)[None, :, None] if level else np.linspace(100, 0, 32)[None, :, None]
    return (noise + ramp).astype(np.uint8)


@pytest.fixture
def dataset() -> Dataset:
    train = tuple(
        Sample(id=f"train/{i}", digest=f"t{i}", image=textured(i, i % 2), label={i % 2: 1.0}) for i in range(8)
    )
    return Dataset(name="ramps", task="classification", class_names=("up", "down"), train=train, val=(), test=())


def pool_of(dataset: Dataset, images: list[np.ndarray], folder: Path) -> Pool:
    samples = tuple(
        SyntheticSample(
            id=f"s/{i}", digest=f"s{i}", image=image, label=dataset.train[i].label, source_id=f"train/{i}", index=0
        )
        for i, image in enumerate(images)
    )
    return Pool(fingerprint="p", folder=folder, samples=samples)


def quiet(text: str) -> None:
    """Says nothing."""


def test_blank_rejects_flat_images_of_every_colour_and_nothing_else(dataset: Dataset, tmp_path: Path) -> None:
    coloured = flat(0)
    coloured[..., 0] = 200  # its channels differ, but it shows nothing
    pool = pool_of(dataset, [flat(0), flat(255), coloured, textured(9, 1)], tmp_path)
    kept = Blank(name="blank").apply(pool, dataset, Store(tmp_path), quiet)
    assert [sample.id for sample in kept.samples] == ["s/3"]
    assert kept.rejected == {"filter: blank": 3}
    earlier = dataclasses.replace(pool, rejected={"no_boxes": 2})
    kept = Blank(name="blank").apply(earlier, dataset, Store(tmp_path), quiet)
    assert kept.rejected == {"no_boxes": 2, "filter: blank": 3}


def test_near_duplicates_of_their_source_are_rejected(dataset: Dataset, tmp_path: Path) -> None:
    pool = pool_of(dataset, [np.asarray(dataset.train[0].image), textured(50, 0)], tmp_path)
    kept = NearDuplicate(name="near_duplicate").apply(pool, dataset, Store(tmp_path), quiet)
    assert [sample.id for sample in kept.samples] == ["s/1"]


def test_the_band_rejects_copies_and_strangers(dataset: Dataset, tmp_path: Path) -> None:
    pool = pool_of(dataset, [np.asarray(dataset.train[0].image), textured(50, 1), flat(10)], tmp_path)
    band = DistanceBand(name="band", features="pixels", low=0.001, high=0.03)
    scores = band.scores(pool, dataset, Store(tmp_path), quiet)
    assert scores["s0"] < 0.001 < scores["s1"] < 0.03 < scores["s2"]
    with pytest.raises(GenaugError, match="nothing would be kept"):
        DistanceBand(name="band", low=0.5, high=0.1)


def test_the_band_of_a_networks_features_is_one_minus_their_cosine_similarity(dataset: Dataset, tmp_path: Path) -> None:
    """As ``filter=dino_band`` has it, with a small ViT of random weights; batches change nothing."""
    images = [np.asarray(dataset.train[0].image), textured(50, 1), flat(10)]
    pool = pool_of(dataset, images, tmp_path)
    band = DistanceBand(name="dino_band", features="random:test_vit", low=0.001, high=1.0)
    scores = band.scores(pool, dataset, Store(tmp_path), quiet)
    sources, rows = (
        normalised(np.concatenate([encode([sample], "random:test_vit") for sample in of]))
        for of in (dataset.train[:3], pool.samples)
    )
    assert [scores[f"s{i}"] for i in range(3)] == pytest.approx(
        [1 - float(sources[i] @ rows[i]) for i in range(3)], abs=1e-5
    )
    assert scores["s0"] == pytest.approx(0, abs=1e-5) and scores["s2"] > 0.001
    assert "s/0" not in [sample.id for sample in band.apply(pool, dataset, Store(tmp_path), quiet).samples]


def test_the_classifier_rejects_images_of_the_other_class(dataset: Dataset, tmp_path: Path) -> None:
    pool = pool_of(dataset, [textured(70, 0), textured(71, 0), textured(72, 0)], tmp_path)  # the second is labelled 1
    kept = ClassifierAgreement(name="classifier").apply(pool, dataset, Store(tmp_path), quiet)
    assert [sample.id for sample in kept.samples] == ["s/0", "s/2"]
    first, second, _ = ClassifierAgreement(name="classifier").score(pool.samples, dataset, Store(tmp_path))
    assert first > 0.2 and second < -0.2  # of two classes one's margin is the other's lack


def test_a_swept_threshold_scores_nothing_again(dataset: Dataset, tmp_path: Path) -> None:
    pool = pool_of(dataset, [textured(80 + i, i % 2) for i in range(6)], tmp_path)
    said: list[str] = []
    for threshold in (0.9, 0.99, 0.999):
        NearDuplicate(name="near_duplicate", max_similarity=threshold).apply(
            pool, dataset, Store(tmp_path), said.append
        )
    assert sum("images scored" in line for line in said) == 1
    assert len(list((tmp_path / "scores").glob("*.json"))) == 1
    larger = pool_of(dataset, [textured(80 + i, i % 2) for i in range(8)], tmp_path)
    NearDuplicate(name="near_duplicate").apply(larger, dataset, Store(tmp_path), said.append)
    assert said[-2] == "filter near_duplicate: 2 images scored"  # a larger M scores the new images alone
    assert len(json.loads(next((tmp_path / "scores").glob("*.json")).read_text())) == 8


def test_a_threshold_is_part_of_the_cell_and_not_of_the_scores() -> None:
    loose, strict = Blank(name="blank", min_std=1), Blank(name="blank", min_std=9)
    assert canonical(loose) != canonical(strict)
    assert canonical(loose, stage="sample") == canonical(strict, stage="sample")
    assert not NoFilter(name="none").active


def test_a_clip_model_that_is_not_there_is_named_with_what_to_write_instead(dataset: Dataset, tmp_path: Path) -> None:
    chosen = ClipMargin(name="clip", path=str(tmp_path / "none"))
    sample = SyntheticSample(id="s", digest="s", image=flat(9), label={0: 1.0}, source_id="train/0", index=0)
    with pytest.raises(GenaugError, match=r"cannot be loaded .* or filter=classifier"):
        chosen.score([sample], dataset, Store(tmp_path))
    with pytest.raises(GenaugError, match=r"filter\.path=.*none is neither a folder nor a Hub id"):
        chosen.check("classification")  # before an image is made


def test_clip_margins_are_the_models_and_do_not_depend_on_the_batch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    from genaug.evaluation import filters
    from genaug.priors.config import PriorConfig

    tokenizer = CLIPTokenizer.from_pretrained(PriorConfig(image_size=32).folder, subfolder="tokenizer")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**small, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8)
    ).eval()
    model.save_pretrained(tmp_path)
    side = {"height": 32, "width": 32}
    processor = CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side), tokenizer)
    processor.save_pretrained(tmp_path)
    samples = [
        SyntheticSample(id=str(i), digest=str(i), image=flat(40 * i), label={i % 2: 1.0}, source_id="train/0", index=0)
        for i in range(5)
    ]
    chosen = ClipMargin(name="clip", path=str(tmp_path))
    margins = chosen.score(samples, dataset, Store(tmp_path), "cpu")
    monkeypatch.setattr(filters, "BATCH", 2)
    assert chosen.score(samples, dataset, Store(tmp_path), "cpu") == pytest.approx(margins, abs=1e-6)
    inputs = processor(
        text=[f"a photo of a {n}" for n in dataset.class_names],
        images=[samples[1].open()],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        logits = (model(**inputs).logits_per_image / model.logit_scale.exp())[0].numpy()
    assert margins[1] == pytest.approx(float(logits[1] - np.delete(logits, 1).max()), abs=1e-5)


def test_lpips_of_a_batch_is_that_of_each_pair(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights, alexnet

    from genaug.evaluation.filters import lpips_distances

    torch.manual_seed(0)
    state = alexnet().state_dict()  # random, where the published weights would be downloaded
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", lambda self, *args, **kwargs: state)
    pairs = list(zip(dataset.train[:3], dataset.train[1:4], strict=True))
    network = LearnedPerceptualImagePatchSimilarity("alex", reduction="mean", normalize=True)
    expected = []
    for pair in pairs:
        pixels = [np.asarray(sample.open().resize((64, 64)), np.float32) / 255 for sample in pair]
        tensors = [torch.from_numpy(values).permute(2, 0, 1)[None] for values in pixels]
        expected.append(float(network(*tensors)))
    assert lpips_distances(pairs, device="cpu") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "told"), [([1.0], "returns 1 for 2 images"), (None, "returns NoneType for 2 images")]
)
def test_an_own_filter_that_scores_too_few_images_is_refused(dataset, tmp_path, monkeypatch, scores, told) -> None:
    monkeypatch.setattr(Blank, "score", lambda *_: scores)
    pool = pool_of(dataset, [flat(0), flat(255)], tmp_path)
    with pytest.raises(GenaugError, match=f"filter=blank {told}: return a list of as many numbers"):
        Blank(name="blank").apply(pool, dataset, Store(tmp_path), quiet)
