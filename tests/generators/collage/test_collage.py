"""DiffuseMix's pictures: halves, seam and fractal as the paper's equations and the released code have them."""

import numpy as np
import pytest
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.core.seeding import derive
from genaug.generators.collage.compose import composed, half_mask, julia
from genaug.generators.collage.config import Collage
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.generators.sentences import Sentences

BLACK, WHITE = (Image.new("RGB", (256, 256), colour) for colour in ("black", "white"))


def released_mask(side: int, blend: int) -> np.ndarray:
    """Along one side as the released code stacks it: zeros, a ramp, ones."""
    half = side // 2 - blend // 2
    return np.concatenate([np.zeros(half), np.linspace(0, 1, blend), np.ones(half + blend % 2)])


@pytest.mark.parametrize("vertical", [False, True])
def test_the_halves_are_those_of_the_released_code(vertical):
    mask = half_mask(256, 256, vertical=vertical, seam=20 / 256)
    line = mask[:, 0, 0] if vertical else mask[0, :, 0]
    assert np.array_equal(line, released_mask(256, 20))
    assert np.array_equal(mask, mask[:, :1] * np.ones_like(mask) if vertical else mask[:1] * np.ones_like(mask))
    odd = half_mask(31, 40, vertical=vertical, seam=20 / 256)
    assert odd.shape == (31, 40, 1) and odd.min() == 0 and odd.max() == 1


def test_source_and_edit_meet_in_the_middle_and_the_fractal_weighs_a_fifth():
    plain = Collage(halves="horizontal", fractal_share=0.0)
    picture, about = composed(plain, BLACK, WHITE, "a")
    pixels = np.asarray(picture)
    assert about == {"source_half": "left"}
    assert (pixels[:, :118] == 0).all() and (pixels[:, 138:] == 255).all()
    swapped = [
        composed(Collage(halves="vertical", swap=True, fractal_share=0.0), BLACK, WHITE, str(i)) for i in range(20)
    ]
    assert {about["source_half"] for _, about in swapped} == {"upper", "lower"}
    lower = next(picture for picture, about in swapped if about["source_half"] == "lower")
    assert (np.asarray(lower)[:118] == 255).all() and (np.asarray(lower)[138:] == 0).all()
    whole, _ = composed(Collage(halves="none", fractal_share=0.2), BLACK, WHITE, "a")
    over = np.asarray(julia((256, 256), derive("a", "fractal")), float)
    assert np.abs(np.asarray(whole) - (0.8 * 255 + 0.2 * over)).max() <= 0.5


def test_each_image_has_its_own_half_and_fractal_and_a_folder_may_give_them(tmp_path):
    many = [composed(Collage(fractal_share=0.0), BLACK, WHITE, str(i))[1]["source_half"] for i in range(200)]
    assert set(many) == {"left", "upper"} and 70 < many.count("left") < 130  # four standard deviations around 100
    either = [
        composed(Collage(swap=True, fractal_share=0.0), BLACK, WHITE, str(i))[1]["source_half"] for i in range(40)
    ]
    assert set(either) == {"left", "right", "upper", "lower"}
    assert not np.array_equal(julia((64, 64), 1), julia((64, 64), 2)) and np.array_equal(
        julia((64, 64), 1), julia((64, 64), 1)
    )
    assert np.asarray(julia((64, 64), 3)).std() > 20
    for name, grey in (("a", 0), ("b", 200)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / f"{name}.png")
    files = Collage(halves="none", fractal_share=1.0, fractals=str(tmp_path))
    assert {int(np.asarray(composed(files, BLACK, WHITE, str(i))[0]).mean()) for i in range(20)} == {0, 200}
    with pytest.raises(GenaugError, match="no folder with images"):
        Collage(fractals=str(tmp_path / "nowhere"))


def test_edits_are_put_together_with_their_source_and_keep_its_label(prior, dataset):
    texts = Sentences(texts=["snowy", "mosaic"], class_names=False)
    given = {"name": "d", "seed": 0, "class_names": False, "num_steps": 4, "sentences": texts}
    plain = RealGuidance(**given)  # type: ignore[arg-type]
    mixed = RealGuidance(**given, collage=Collage(halves="horizontal", fractal_share=0.0))  # type: ignore[arg-type]
    variants = [mixed.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
    edits = {g.variant.source.id: np.asarray(g.image) for g in plain.generate(variants, dataset, prior, None)}
    for made in mixed.generate(variants, dataset, prior, None):
        source, pixels = np.asarray(made.variant.source.open()), np.asarray(made.image)
        assert np.array_equal(pixels[:, :15], source[:, :15])
        assert np.array_equal(pixels[:, 17:], edits[made.variant.source.id][:, 17:])
        assert made.label is None and made.about["source_half"] == "left"
    assert "collage" not in canonical(plain) and canonical(plain, "sample") != canonical(mixed, "sample")
    with pytest.raises(GenaugError, match="boxes do not hold"):
        mixed.check("detection")


def test_presets_state_the_released_settings():
    for name in ("diffuse_mix", "diffuse_mix_reference"):
        made = compose_typed([f"generator={name}"]).generator
        assert (made.collage.seam, made.collage.fractal_share, len(made.sentences.texts)) == (20 / 256, 0.2, 9)
    assert (made.guidance, made.image_size, made.strength) == (4, 256, None)
