"""LoRA, IP-Adapter, ControlNet and depth with random weights in the layouts of the published ones: what they do to an image."""

import dataclasses
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from torch import nn

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.sample import Dataset
from genaug.generators.pipeline import images
from genaug.generators.pipeline.config import Control, IPAdapter, Lora, Pipeline
from genaug.generators.pipeline.control import control_picture
from genaug.generators.pipeline.images import call, load
from tests.generators.conftest import make_dataset
from tests.generators.dalda.test_dalda import dalda
from tests.generators.pipeline.test_pipeline import pipeline, with_objects
from tests.generators.pipeline.tiny_conditions import save_controlnet, save_ip_adapter
from tests.generators.pipeline.tiny_pipelines import TINY, save

Picture = np.ndarray[Any, Any]
FAMILIES = {
    "sd": "ControlNetModel",
    "sd2": "ControlNetModel",
    "sdxl": "ControlNetModel",
    "sd3": "SD3ControlNetModel",
    "flux": "FluxControlNetModel",
}
"""Base models, and the class of a ControlNet for each."""
FROM_NOISE = {"sd3": {"strength": None, "pipeline_class": "StableDiffusion3ControlNetPipeline"}}
"""Base models whose ControlNets diffusers gives no class for editing: it makes new images of the condition."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return with_objects(make_dataset())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        family: save(family, tmp_path_factory.mktemp(family) / "model") for family in ("sd2", "sdxl", "sd3", "flux")
    }
    return {"sd": TINY, **made}


def drawn(config: Pipeline, data: Dataset) -> Picture:
    """The first image under ``config``, from the same noise whatever else it says."""
    variant = pipeline(strength=config.strength and 1.0).variant_of(data.train[0], 0, data, "w")
    (picture,) = call(load(config, "cpu"), config, [variant], data)
    images.unload()
    return np.asarray(picture, dtype=float)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_controlnet_is_loaded_as_what_it_is_and_weighs_as_much_as_is_said(
    family: str, folders: dict[str, Path], data: Dataset, tmp_path: Path
) -> None:
    model, path = folders[family], str(save_controlnet(family, folders[family], tmp_path / "control"))

    def controlled(scale: float, **fields: Any) -> Pipeline:
        condition = Control(kind="boxes", path=path, scale=scale)
        given = {"strength": 1.0, **FROM_NOISE.get(family, {}), **fields}
        return pipeline(model, control=condition, num_steps=2, label_policy="copy", **given)

    assert type(load(controlled(1.0), "cpu").controlnet).__name__ == FAMILIES[family]
    without = drawn(controlled(0.0), data)
    assert np.abs(drawn(controlled(1.0), data) - without).mean() > 1
    if family == "sd":
        plain = drawn(pipeline(model, num_steps=2, strength=1.0, label_policy="copy"), data)
        assert np.abs(without - plain).max() <= 1
        inside = [drawn(controlled(scale, mask="edit_object"), data) for scale in (0.0, 1.0)]
        assert np.abs(inside[1] - inside[0]).mean() > 1


def test_a_controlled_image_is_diffusers_own_under_the_condition_of_its_source(data: Dataset, tmp_path: Path) -> None:
    path = str(save_controlnet("sd", TINY, tmp_path / "control"))
    config = pipeline(control=Control(kind="canny", path=path, scale=0.7), negative_prompt="a dog", guidance=3.0)
    variant = pipeline(strength=1.0).variant_of(data.train[0], 0, data, "w")
    pipe = diffusers.StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        TINY, controlnet=diffusers.ControlNetModel.from_pretrained(path)
    )
    theirs = pipe(
        prompt="a photo of a cat", negative_prompt="a dog", image=data.train[0].open(), strength=1.0, guidance_scale=3.0,
        control_image=control_picture(data.train[0], config, (32, 32)), controlnet_conditioning_scale=0.7,
        num_inference_steps=4, generator=torch.Generator().manual_seed(images._seed(variant)),
    ).images[0]  # fmt: skip
    assert np.array_equal(drawn(config, data), np.asarray(theirs, dtype=float))


def test_a_controlnet_without_a_class_for_editing_makes_new_images_of_the_condition(
    folders: dict[str, Path], data: Dataset, tmp_path: Path
) -> None:
    model, path = folders["sd3"], str(save_controlnet("sd3", folders["sd3"], tmp_path / "control"))
    control = Control(kind="boxes", path=path, scale=0.7)
    config = pipeline(model, control=control, label_policy="copy", guidance=3.0, **FROM_NOISE["sd3"])
    variant = pipeline(strength=None).variant_of(data.train[0], 0, data, "w")
    pipe = diffusers.StableDiffusion3ControlNetPipeline.from_pretrained(
        model, controlnet=diffusers.SD3ControlNetModel.from_pretrained(path)
    )
    torch.manual_seed(images._seed(variant))  # it draws the condition's latents without its generator
    theirs = pipe(
        prompt="a photo of a cat", guidance_scale=3.0, num_inference_steps=4, height=32, width=32,
        control_image=control_picture(data.train[0], config, (32, 32)), controlnet_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(images._seed(variant)),
    ).images[0]  # fmt: skip
    state = torch.manual_seed(0).get_state()
    assert np.array_equal(drawn(config, data), np.asarray(theirs, dtype=float))
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(GenaugError, match=r"generator\.pipeline_class=NAME"):
        drawn(dataclasses.replace(config, pipeline_class=None), data)
    with pytest.raises(GenaugError, match=r"takes no strength\. Write generator\.strength=null"):
        drawn(dataclasses.replace(config, strength=0.5), data)


def test_stable_diffusion_2_is_drawn_by_the_velocity_that_its_folder_states(
    folders: dict[str, Path], data: Dataset, tmp_path: Path
) -> None:
    config = pipeline(folders["sd2"], strength=1.0)
    variant = pipeline(strength=1.0).variant_of(data.train[0], 0, data, "w")
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folders["sd2"])
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    theirs = pipe(
        prompt="a photo of a cat", image=data.train[0].open(), strength=1.0, num_inference_steps=4,
        generator=torch.Generator().manual_seed(images._seed(variant)),
    ).images[0]  # fmt: skip
    ours = drawn(config, data)
    assert np.array_equal(ours, np.asarray(theirs, dtype=float))
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="epsilon")
    pipe.save_pretrained(tmp_path)
    assert np.abs(drawn(pipeline(tmp_path, strength=1.0), data) - ours).mean() > 1


def test_saspa_makes_new_images_of_the_edges_by_the_settings_of_its_released_code(
    data: Dataset, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    path, control = str(TINY), str(save_controlnet("sd", TINY, tmp_path / "control"))
    words = [f"generator.path={path}", f"generator.control.path={control}", "generator.image_size=32"]
    config = compose_typed(["generator=saspa", "leakage=none", "generator.num_steps=4", *words, "seed=0"]).generator
    assert isinstance(config, Pipeline)
    config.label_policy = "copy"
    config.check("classification")
    variant = config.variant_of(data.train[0], 0, data, "w")
    (ours,) = config.generate([variant], data, None, None)
    images.unload()
    source = data.train[0].open()
    edges = cv2.Canny(np.asarray(source.convert("L")), 120, 200)
    assert 0 < (edges > 0).mean() < 1
    pipe = diffusers.StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        path, controlnet=diffusers.ControlNetModel.from_pretrained(control)
    )
    theirs = pipe(
        prompt="a photo of a cat", negative_prompt=config.negative_prompt, image=source, strength=1.0,
        guidance_scale=7.5, control_image=Image.fromarray(edges).convert("RGB"), controlnet_conditioning_scale=0.75,
        num_inference_steps=4, generator=torch.Generator().manual_seed(ours.about["seed"]),
    ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(ours.image), np.asarray(theirs))
    assert "bad anatomy" in config.negative_prompt and ours.about["prompt"] == "a photo of a cat"


def test_no_image_is_replaced_by_black_by_a_safety_checker(data: Dataset, tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8))
    nn.init.constant_(checker.concept_embeds_weights, -2.0)  # it finds something in every picture
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        TINY, safety_checker=checker, feature_extractor=CLIPImageProcessor(size=32, crop_size=32)
    )
    pipe.save_pretrained(tmp_path)
    assert np.asarray(pipe("a cat", num_inference_steps=1, height=32, width=32).images[0]).max() == 0
    assert np.array_equal(drawn(pipeline(tmp_path), data), drawn(pipeline(), data))


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl", "flux"])
def test_a_lora_adds_its_scale_of_itself_to_the_weights(
    family: str, folders: dict[str, Path], data: Dataset, tmp_path: Path
) -> None:
    model, part = folders[family], "transformer" if family == "flux" else "unet"
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    network: Any = getattr(pipe, part)
    torch.manual_seed(3)
    layers = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    network.add_adapter(layers, "x")
    weights = {
        name: weight.contiguous() for name, weight in get_peft_model_state_dict(network, adapter_name="x").items()
    }
    type(pipe).save_lora_weights(tmp_path, **{f"{part}_lora_layers": weights})
    merged = diffusers.DiffusionPipeline.from_pretrained(model)
    for name in [key.removesuffix(".lora_A.weight") for key in weights if "lora_A" in key]:
        change = weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
        getattr(merged, part).get_submodule(name).weight.data += 0.5 * change
    merged.save_pretrained(tmp_path / "merged")

    def shown(path: Path, **fields: Any) -> Picture:
        return drawn(pipeline(path, num_steps=2, strength=1.0, **fields), data)

    adapted = shown(model, lora=Lora(path=str(tmp_path), scale=0.5))
    assert np.abs(adapted - shown(tmp_path / "merged")).max() <= 2  # rounding
    assert np.abs(adapted - shown(model)).mean() > 0.1


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an IP-Adapter of the tiny prior."""
    return str(save_ip_adapter(tmp_path_factory.mktemp("adapter")))


def test_the_source_is_a_picture_prompt_of_the_stated_weight(adapter: str, data: Dataset) -> None:
    def shown(scale: float) -> Picture:
        return drawn(pipeline(ip_adapter=IPAdapter(path=adapter, scale=scale), strength=1.0), data)

    plain = drawn(pipeline(strength=1.0), data)
    assert np.abs(shown(0.0) - plain).max() <= 1
    assert 0 < np.abs(shown(0.1) - plain).mean() < np.abs(shown(1.0) - plain).mean()


def test_dalda_draws_each_image_under_the_weight_that_its_manifest_states(adapter: str, clip: str) -> None:
    data = make_dataset()
    config = dalda(ip_adapter=IPAdapter(path=adapter), clip_path=clip, num_steps=4)
    config.check("classification")
    variants = [config.variant_of(source, 0, data, "w") for source in data.train[:2]]
    for item in config.generate(variants, data, None, None):
        stated = IPAdapter(path=adapter, scale=item.about["ip_adapter_scale"])
        alone = pipeline(ip_adapter=stated, strength=1.0, prompt=item.about["prompt"], batch_size=1)
        (again,) = call(load(alone, "cpu"), alone, [item.variant], data)
        assert 0.1 <= stated.scale <= 0.9 and np.array_equal(np.asarray(item.image), np.asarray(again))
    images.unload()


def test_depth_is_estimated_by_a_model_of_transformers(data: Dataset, tmp_path: Path) -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    torch.manual_seed(0)
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=14,
        out_features=stages, reshape_hidden_states=False,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8, head_hidden_size=8,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    DPTImageProcessor(size={"height": 28, "width": 28}, ensure_multiple_of=14).save_pretrained(tmp_path)
    config = pipeline(control=Control(kind="depth", path="somewhere", depth_path=str(tmp_path)))
    picture = control_picture(data.train[0], config, (48, 32))
    grey = np.asarray(picture)
    assert picture.size == (48, 32) and (grey[..., 0] == grey[..., 2]).all() and grey.max() == 255
    assert not np.array_equal(grey, np.asarray(control_picture(data.train[1], config, (48, 32))))


def test_a_variant_of_the_files_is_read(data: Dataset, tmp_path: Path) -> None:
    half = diffusers.StableDiffusionPipeline.from_pretrained(TINY, torch_dtype=torch.float16)
    half.save_pretrained(tmp_path, variant="fp16")
    assert np.abs(drawn(pipeline(tmp_path, variant="fp16"), data) - drawn(pipeline(), data)).mean() < 1
    with pytest.raises(GenaugError, match=rf"generator\.path={tmp_path} cannot be loaded"):
        drawn(pipeline(tmp_path), data)


@pytest.mark.skipif(torch.__version__ < (2, 14), reason="torch 2.10 draws other noise in half precision, 2.14 the same")
def test_precision_changes_little(data: Dataset) -> None:
    plain = drawn(pipeline(), data)
    assert 0 < np.abs(drawn(pipeline(dtype="bfloat16"), data) - plain).mean() < 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lora": Lora(path="/nowhere.safetensors")}, r"generator\.lora\.path=/nowhere\.safetensors"),
        ({"ip_adapter": IPAdapter(path="/nowhere")}, r"generator\.ip_adapter\.path=/nowhere"),
        ({"control": Control(kind="canny", path="/nowhere")}, r"generator\.control\.path=/nowhere"),
        (
            {"control": Control(kind="depth", path=str(TINY), depth_path="/nowhere")},
            r"generator\.control\.depth_path=/nowhere",
        ),
    ],
)
def test_what_is_not_there_is_named_before_any_work(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(GenaugError, match=words):
        dataclasses.replace(pipeline(), **fields).check("classification")
