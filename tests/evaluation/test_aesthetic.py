"""The aesthetic filter with heads and encoders of random weights in the true shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.core.store import Store
from genaug.data.sample import Dataset, SyntheticSample
from genaug.evaluation import aesthetic
from genaug.evaluation.aesthetic import Aesthetic, read_head

WIDTHS = (1024, 128, 64, 16, 1)
NOTHING = Dataset(name="n", task="classification", class_names=("a", "b"), train=(), val=(), test=())


def state_of(places: Sequence[int], width: int = 768) -> dict[str, torch.Tensor]:
    """A file of the second predictor, whose linear layers stand at these places."""
    torch.manual_seed(0)
    ends, state = (width, *WIDTHS), {}
    for place, (columns, rows) in zip(places, zip(ends, WIDTHS, strict=False), strict=True):
        state |= {
            f"layers.{place}.weight": torch.randn(rows, columns) / columns**0.5,
            f"layers.{place}.bias": torch.randn(rows),
        }
    return state


def test_the_linear_head_is_one_affine_map(tmp_path: Path) -> None:
    """Dropouts apart there is nothing between its five layers, so that they multiply to one."""
    state = state_of((0, 2, 4, 6, 7))
    torch.save(state, tmp_path / "head.pth")
    weight, bias = torch.eye(768), torch.zeros(768)
    for place in (0, 2, 4, 6, 7):
        own = state[f"layers.{place}.weight"]
        weight, bias = own @ weight, own @ bias + state[f"layers.{place}.bias"]
    x = torch.randn(5, 768)
    assert torch.allclose(read_head(str(tmp_path / "head.pth"), 768)(x), x @ weight.T + bias, atol=1e-4)


def test_the_head_with_relus_has_one_between_every_two_layers(tmp_path: Path) -> None:
    places = (0, 3, 6, 9, 11)
    state = state_of(places)
    save_file(state, tmp_path / "head.safetensors")
    x = found = torch.randn(5, 768)
    for place in places:
        found = (found.relu() if place else found) @ state[f"layers.{place}.weight"].T + state[f"layers.{place}.bias"]
    assert torch.allclose(read_head(str(tmp_path / "head.safetensors"), 768)(x), found, atol=1e-4)


def test_the_first_predictor_is_a_single_layer(tmp_path: Path) -> None:
    layer = torch.nn.Linear(768, 1)
    torch.save(layer.state_dict(), tmp_path / "head.pth")
    x = torch.randn(3, 768)
    assert torch.equal(read_head(str(tmp_path / "head.pth"), 768)(x), layer(x))


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (state_of((0, 2, 4, 6, 7), 512), "no head of LAION's for embeddings of 768 numbers: it has layers.0.weight"),
        (state_of((0, 1, 2, 3, 4)), "no head of LAION's"),
        ({"weight": torch.zeros(2, 768), "bias": torch.zeros(2)}, "no head of LAION's"),
        ({}, "no head of LAION's"),
        ([1, 2], "cannot be read as weights"),
    ],
)
def test_another_file_is_refused_with_what_it_holds(tmp_path: Path, state: Any, match: str) -> None:
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(GenaugError, match=match):
        read_head(str(tmp_path / "head.pth"), 768)


def test_an_absent_head_is_refused_before_anything_is_made_with_what_to_download() -> None:
    with pytest.raises(
        GenaugError, match=r"linearMSE\.pth is no file\. Download .*christophschuhmann.* and write filter\.head=FILE"
    ):
        Aesthetic(name="aesthetic").check("classification")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=768,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "clip"
    )
    torch.save(state_of((0, 2, 4, 6, 7)), tmp_path / "head.pth")
    return tmp_path


def test_ratings_are_the_heads_of_embeddings_of_length_one_and_do_not_depend_on_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    samples = [
        SyntheticSample(id=str(i), digest=str(i), image=rng.integers(0, 256, (40, 32, 3), dtype=np.uint8), label={0: 1.0},
                        source_id="t", index=0)
        for i in range(5)
    ]  # fmt: skip
    chosen = Aesthetic(name="aesthetic", path=str(folder / "clip"), head=str(folder / "head.pth"))
    chosen.check("classification")
    ratings = chosen.score(samples, NOTHING, Store(folder))
    monkeypatch.setattr(aesthetic, "BATCH", 2)
    assert chosen.score(samples, NOTHING, Store(folder)) == pytest.approx(ratings, abs=1e-5)
    model = CLIPVisionModelWithProjection.from_pretrained(folder / "clip").eval()
    pixels = CLIPImageProcessor.from_pretrained(folder / "clip")(images=samples[3].open(), return_tensors="pt")
    with torch.no_grad():
        embedded = model(**pixels).image_embeds
        expected = read_head(chosen.head, 768)(embedded / embedded.norm())
    assert ratings[3] == pytest.approx(float(expected), abs=1e-5) and np.ptp(ratings) > 1e-3
    middle = float(np.median(ratings))
    assert sum(Aesthetic(name="a", min_rating=middle).keeps(rating) for rating in ratings) == 3


def test_the_best_rated_images_are_kept() -> None:
    chosen = Aesthetic(name="aesthetic", min_rating=5.0)
    assert [chosen.keeps(rating) for rating in (4.9, 5.0, 7.0)] == [False, True, True]


def test_what_the_head_holds_counts_for_the_scores_and_the_threshold_does_not(folder: Path) -> None:
    def scored(**changes: Any) -> Any:
        return canonical(
            Aesthetic(name="a", path=str(folder / "clip"), head=str(folder / "head.pth"), **changes), "sample"
        )

    before = scored()
    assert scored(min_rating=6) == before
    torch.save(state_of((0, 3, 6, 9, 11)), folder / "head.pth")
    assert scored() != before
