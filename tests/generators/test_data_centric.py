"""Data-centric leakage prevention: what the text encoder is ever given holds no class name (DA-Fusion, section 4.1)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.sample import Dataset
from genaug.data.sources.image_folder import ImageFolder
from genaug.priors.config import PriorConfig
from genaug.priors.loading import load_prior
from genaug.priors.model import Prior
from genaug.priors.random_weights import save_random_prior
from tests.conftest import ROOT

CLASSES = ("cat", "dog", "dining_table")
WORDS = ("cat", "dog", "dining", "table")
PRESETS = sorted(path.stem for path in (ROOT / "conf" / "generator").glob("*.yaml"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    folder = save_random_prior(tmp_path_factory.mktemp("data_centric_prior"))
    return load_prior(PriorConfig(path=str(folder), image_size=32), "cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images in folders and files that are named after their classes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(2):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"a photo of a {name.replace('_', ' ')} {i}.png")
    return ImageFolder(root=str(root), seed=0, val_fraction=0.0, test_fraction=0.01, image_size=32).load()


@pytest.mark.parametrize("preset", PRESETS)
def test_no_class_name_reaches_a_prompt_or_an_initialisation(
    preset: str, prior: Prior, dataset: Dataset, tmp_path: Path
) -> None:
    try:
        generator: Any = compose_typed([f"generator={preset}", "leakage=data_centric", "seed=0"]).generator
    except GenaugError as error:
        if "is needed here" in str(error):
            pytest.skip("works with a folder or a model of the user's")
        assert "leakage=none" in str(error)  # a preset that needs class names is refused, with what to write
        return
    if not generator.uses_prior or "classification" not in generator.tasks:
        pytest.skip("uses no prompts, or no classes")
    if hasattr(generator, "num_steps"):
        generator.num_steps = 10  # enough for one step at the lowest strength, 0.1
    if hasattr(generator, "solver"):
        generator.solver.reference_shift = False  # only defined for 1000 steps
    if hasattr(generator, "tokens"):
        generator.tokens.num_steps = 1
    if getattr(generator, "lora", None) is not None:
        generator.lora.num_steps, generator.lora.image_size = 1, None
    given: list[torch.Tensor] = []
    hook = prior.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["input_ids"]), with_kwargs=True
    )
    try:
        if generator.fits:
            generator.fit(dataset, prior, tmp_path)
        variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train]
        made = list(generator.generate(variants, dataset, prior, tmp_path if generator.fits else None))
    finally:
        hook.remove()
    nothing_to_edit = all(item.rejected for item in made)  # no objects here to edit around
    assert given or nothing_to_edit or not hasattr(generator, "prompt")
    rows = {tuple(row) for batch in given for row in batch.tolist()}
    for word in WORDS:
        ids = tuple(prior.word_ids(word))  # of several pieces, which other words may have too
        places = [(row, i) for row in rows for i in range(len(row)) if row[i : i + len(ids)] == ids]
        assert not places, f"{preset} gave the text encoder the word {word}"
    for generated in made:
        plain = "".join(piece.split(">")[-1] for piece in str(generated.about.get("prompt", "")).split("<"))
        assert not any(word in plain.split() for word in WORDS)
    if hasattr(generator, "tokens"):
        start = prior.word_ids(generator.tokens.init)
        assert all(not set(start) & set(prior.word_ids(word)) for word in WORDS)
