"""Pipelines of every family make images that depend on their own identity alone, and bad settings are refused early."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.data.sample import Boxes, Dataset
from genaug.generators.base import Generated
from genaug.generators.collage.config import Collage
from genaug.generators.pipeline import images
from genaug.generators.pipeline.config import Control, IPAdapter, Lora, Pipeline
from genaug.generators.pipeline.control import control_picture
from genaug.generators.sentences import Sentences
from tests.generators.conftest import make_dataset
from tests.generators.pipeline.tiny_pipelines import FAMILIES, TINY, save

SETTINGS: dict[str, dict[str, Any]] = {
    "sd2": {},
    "sdxl": {},
    "sd3": {},
    "flux": {},
    "flux_kontext": {"strength": None},
    "flux_fill": {"mask": "edit_object", "pipeline_class": "FluxFillPipeline"},
    "instruct_pix2pix": {"strength": None, "pipeline_class": "StableDiffusionInstructPix2PixPipeline"},
    "z_image": {},
    "flux2_klein": {"strength": None, "image_size": 64},  # it refuses sources below 64 px
    "sana_sprint": {
        "pipeline_class": "SanaSprintImg2ImgPipeline",
        "num_steps": 2,
        "arguments": {"use_resolution_binning": False},
    },
    "qwen_image_edit": {"strength": None},
}
ALONE = {"flux2_klein"}
"""Families that take a list of pictures for several references of one image: found out, and called with one at a time."""


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save(family, tmp_path_factory.mktemp(family) / "model")
        return made[family]

    return folder


def pipeline(path: Path = TINY, **fields: Any) -> Pipeline:
    given = {"class_names": True, "image_size": 32, "num_steps": 4, "seed": 0} | fields
    return Pipeline(name="pipeline", path=str(path), **given)


def with_objects(data: Dataset) -> Dataset:
    """The same images with a mask and a box in the middle."""
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 8:20] = True
    boxes = Boxes(
        xyxy=np.asarray([[8, 8, 20, 20]], dtype=np.float32), labels=np.asarray([1]), crowd=np.asarray([False])
    )
    return dataclasses.replace(data, train=tuple(dataclasses.replace(s, mask=mask, boxes=boxes) for s in data.train))


def make(config: Pipeline, data: Dataset, count: int = 3) -> dict[str, Generated]:
    variants = [config.variant_of(source, 0, data, "weights") for source in data.train[:count]]
    return {item.variant.fingerprint: item for item in config.generate(variants, data, None, None)}


def difference(one: Generated, two: Generated) -> float:
    return float(np.abs(np.asarray(one.image, dtype=float) - np.asarray(two.image, dtype=float)).max())


@pytest.mark.parametrize("family", list(FAMILIES))
def test_images_of_every_family_do_not_depend_on_their_batch(
    family: str, folder_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit

    settings = SETTINGS[family]
    # Qwen-Image-Edit shows its encoders every source at 1024 px, whatever size is asked for
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: (64, 64, None))
    data = with_objects(make_dataset()) if "mask" in settings else make_dataset()
    config = pipeline(folder_of(family), label_policy="copy", **settings)
    config.check("classification")
    together, alone = make(config, data), make(dataclasses.replace(config, batch_size=1), data)
    assert together.keys() == alone.keys() and len(together) == 3
    for key, item in together.items():
        assert item.image.size == (config.image_size,) * 2 and item.image.mode == "RGB"
        assert difference(item, alone[key]) <= config.batch_tolerance
    if family in ALONE:
        assert {item.about["batch_size"] for item in together.values()} == {1}
    pictures = [np.asarray(item.image) for item in together.values()]
    assert not np.array_equal(pictures[0], pictures[1])


def test_images_are_diffusers_own_for_the_same_noise() -> None:
    import torch

    config, data = pipeline(), make_dataset()
    variant = config.variant_of(data.train[0], 0, data, "weights")
    (ours,) = config.generate([variant], data, None, None)
    theirs = images.load(config, "cpu")(
        prompt="a photo of a cat", image=data.train[0].open(), strength=0.5, num_inference_steps=4,
        generator=torch.Generator().manual_seed(ours.about["seed"]),
    ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(ours.image), np.asarray(theirs))
    assert ours.about["prompt"] == "a photo of a cat"


def test_a_strength_is_drawn_per_image_and_shared_with_the_run_that_has_it_alone() -> None:
    data = make_dataset()
    several, single = pipeline(strength=[0.25, 1.0]), pipeline(strength=1.0)
    drawn = [several.variant_of(source, j, data, "w") for source in data.train for j in range(4)]
    assert {variant.draws["strength"] for variant in drawn} == {0.25, 1.0}
    for variant in drawn:
        same = single.variant_of(variant.source, variant.index, data, "w").fingerprint == variant.fingerprint
        assert same == (variant.draws["strength"] == 1.0)


def test_images_of_several_strengths_share_a_call_only_with_their_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    data, strengths = make_dataset(), []
    original = images.call

    def recording(pipe, config, batch, dataset, num_taken=None):
        if num_taken is None:
            strengths.append([variant.draws["strength"] for variant in batch])
        return original(pipe, config, batch, dataset, num_taken)

    monkeypatch.setattr(images, "call", recording)
    make(pipeline(strength=[0.25, 0.5, 1.0]), data, 9)
    assert all(len(set(batch)) == 1 for batch in strengths) and sum(map(len, strengths)) == 9


def test_a_pipeline_that_shares_noise_over_a_batch_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = pipeline(), make_dataset()
    pipe = images.load(config, "cpu")
    pair = [config.variant_of(source, 0, data, "w") for source in data.train[:2]]
    assert images.batches_agree(pipe, config, pair, data)
    original = type(pipe).__call__

    def sharing(self, *, generator, **given):
        return original(self, generator=generator[0] if isinstance(generator, list) else generator, **given)

    monkeypatch.setattr(images, "_check_arguments", lambda *given: None)
    monkeypatch.setattr(type(pipe), "__call__", sharing)
    assert not images.batches_agree(pipe, config, pair, data)
    assert {item.about["batch_size"] for item in make(config, data).values()} == {1}


def test_only_the_object_or_only_its_surround_is_repainted() -> None:
    data = with_objects(make_dataset())
    corner, middle = np.s_[0:12, 0:12], np.s_[24:32, 24:32]
    for mask, kept, repainted in (("keep_object", middle, corner), ("edit_object", corner, middle)):
        config = pipeline(mask=mask, strength=1.0, mask_dilation=1, label_policy="copy", image_size=64)
        pair = [config.variant_of(data.train[0], j, data, "weights") for j in range(2)]
        one, two = (np.asarray(item.image, dtype=float) for item in config.generate(pair, data, None, None))
        change = np.abs(one - two)  # between two images of one source: what is kept is the same in both
        assert change[repainted].mean() > 1.5 * change[kept].mean(), mask  # the decoder blurs the seam


def test_boxes_keep_their_pixels_under_the_guarded_policy() -> None:
    data = with_objects(make_dataset())
    for item in make(pipeline(mask="keep_object"), data, 2).values():
        source = np.asarray(item.variant.source.open())
        assert np.array_equal(np.asarray(item.image)[8:20, 8:20], source[8:20, 8:20])
        assert item.boxes is not None and item.boxes.xyxy.tolist() == [[8, 8, 20, 20]]
    with pytest.raises(GenaugError, match=r"generator.mask=keep_object"):
        pipeline().check("detection")


def test_what_a_pipeline_does_not_take_is_refused_with_what_to_write(folder_of) -> None:
    data = make_dataset()
    with pytest.raises(GenaugError, match=r"takes no strength. Write generator.strength=null"):
        make(pipeline(folder_of("flux_kontext"), strength=0.5), data)
    with pytest.raises(GenaugError, match=r"takes no wrong. Write generator.arguments without wrong"):
        make(pipeline(arguments={"wrong": 1}), data)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": 0}, r"generator.strength=0 must be in \(0, 1\]"),
        ({"strength": []}, "holds no value"),
        ({"strength": 0.1, "num_steps": 4}, "generator.num_steps=10 or more"),
        ({"dtype": "int8"}, "generator.dtype=int8 must be one of"),
        ({"control": {"kind": "canny"}}, "generator.control.path=FOLDER"),
        ({"lora": {"scale": -1}}, "generator.lora.scale=-1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(GenaugError, match=words):
        parts = {"control": Control, "lora": Lora, "ip_adapter": IPAdapter}
        pipeline(**{key: parts[key](**value) if key in parts else value for key, value in fields.items()})


def test_a_path_that_is_no_pipeline_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(GenaugError, match="single file"):
        pipeline(tmp_path / "model.safetensors").check("classification")
    with pytest.raises(GenaugError, match=r"no model_index.json"):
        pipeline(tmp_path).check("classification")
    with pytest.raises(GenaugError, match="neither a folder nor a Hub id"):
        pipeline(Path("nowhere")).check("classification")


def test_a_lora_that_is_not_there_is_named() -> None:
    with pytest.raises(GenaugError, match=r"generator.lora.path=/nowhere.safetensors: there is no such file"):
        images.load(pipeline(lora=Lora(path="/nowhere.safetensors")), "cpu")


def test_the_condition_of_boxes_is_their_outline() -> None:
    source = with_objects(make_dataset()).train[0]
    config = pipeline(control=Control(kind="boxes", path="somewhere"))
    picture = np.asarray(control_picture(source, config, (32, 32)))[..., 0]
    assert picture[8, 8:20].all() and picture[19, 8:20].all() and not picture[10:18, 10:18].any()


def test_classes_are_not_named_where_they_must_not_be_known() -> None:
    data = make_dataset()
    config = pipeline(class_names=False)
    assert images.prompt_of(config, config.variant_of(data.train[0], 0, data, "w"), data) == "a photo"


def test_the_condition_of_canny_are_the_edges_of_the_source() -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:] = 255
    source = dataclasses.replace(make_dataset().train[0], image=pixels)
    edges = np.asarray(control_picture(source, pipeline(control=Control(kind="canny", path="somewhere")), (32, 32)))[
        ..., 0
    ]
    assert edges[4:28, 14:18].any(axis=1).all() and not edges[:, :12].any() and not edges[:, 20:].any()


def test_instructions_are_drawn_from_sentences_and_edits_are_put_together_with_their_source(folder_of) -> None:
    data = make_dataset()
    settings = SETTINGS["instruct_pix2pix"]
    texts = Sentences(texts=["snowy", "a sketch of a {name}"], class_names=True)
    collage = Collage(halves="horizontal", fractal_share=0.0)
    config = pipeline(folder_of("instruct_pix2pix"), sentences=texts, collage=collage, batch_size=1, **settings)
    config.check("classification")
    config.check_dataset(data)
    for made in make(config, data).values():
        drawn = made.variant.draws["prompt"]
        name = data.class_names[made.variant.source.class_index]
        assert made.about["prompt"] == drawn.replace("{name}", name) and drawn in texts.texts
        source = np.asarray(made.variant.source.open())
        assert np.array_equal(np.asarray(made.image)[:, :15], source[:, :15])
        assert not np.array_equal(np.asarray(made.image)[:, 17:], source[:, 17:])
    with pytest.raises(GenaugError, match=r"generator\.sentences\.use=draw"):
        pipeline(sentences=Sentences(texts=["a"], use="mean", class_names=True)).check("classification")
    with pytest.raises(GenaugError, match="holds a word of the class name 'cat'"):
        pipeline(class_names=False, prompt_without_name="my cat").check_dataset(data)
