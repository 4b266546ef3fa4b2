"""Calling a diffusers pipeline so that each image depends on its own identity alone.

Each image has its own ``torch.Generator``, seeded from its fingerprint. Images of one strength share a call where that
changes nothing: some pipelines draw one noise for a whole batch or take a list of pictures for several views of one, which
``batches_agree`` finds out with two short calls.
"""

import inspect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genaug.core.errors import GenaugError, boundary
from genaug.core.identity import fingerprint
from genaug.core.seeding import derive
from genaug.data.geometry import bucket
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.labelling.finish import Finish, scaled
from genaug.generators.labelling.pixel_boxes import scaled_boxes
from genaug.generators.pipeline.config import Pipeline
from genaug.generators.pipeline.control import control_picture
from genaug.generators.sdedit.edit_region import edit_region
from genaug.generators.tokens.prompts import readable
from genaug.priors.lora import FILES, lora_file

PROBE_STEPS = 2
"""Denoising steps of the calls that ``batches_agree`` compares."""


MULTIPLE = 16
"""What the sides of a frame are multiples of: the VAE's factor times the patches of transformers."""


def edit_images(
    config: Pipeline,
    variants: Sequence[Variant],
    dataset: Dataset,
    finish: Finish,
    device: str,
    fitted: Path | None = None,
) -> Iterator[Generated]:
    """The image of every variant, one strength and size after the other; ``fitted`` is the folder that ``fit`` wrote."""
    wanted = []
    for variant in variants:
        size = frame_of(variant.source, config)
        refused = edit_region(variant.source, *size, config.mask, config.mask_dilation)[1]
        if refused is None:
            wanted.append(variant)
        else:
            boxes = scaled_boxes(variant.source, *size)
            yield Generated(variant=variant, image=_framed(variant.source, config), boxes=boxes, rejected=refused)
    if not wanted:
        return
    pipe = load(config, device, fitted)

    def shape(variant: Variant) -> tuple[float, tuple[int, int]]:
        return variant.draws.get("strength", 1.0), frame_of(variant.source, config)

    groups = [list(group) for _, group in itertools.groupby(sorted(wanted, key=shape), key=shape)]
    batch_size = 1 if config.weighs_each else config.batch_size
    several = max(groups, key=len)
    if batch_size > 1 and len(several) > 1 and not batches_agree(pipe, config, several[:2], dataset):
        batch_size = 1
    for members in groups:
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            weight = {}
            if config.weighs_each:
                weight = {"ip_adapter_scale": config.picture_scale(batch[0], dataset, device)}
                pipe.set_ip_adapter_scale(weight["ip_adapter_scale"])
            for variant, picture in zip(batch, call(pipe, config, batch, dataset), strict=True):
                about = {
                    "prompt": prompt_of(config, variant, dataset),
                    "seed": _seed(variant),
                    "pipeline": type(pipe).__name__,
                    "dtype": config.dtype,
                    "batch_size": len(batch),
                    **weight,
                }
                picture = scaled(picture.convert("RGB"), frame_of(variant.source, config))
                yield finish.image(variant, picture, _editable(variant.source, config), about)


def frame_of(source: Sample, config: Pipeline) -> tuple[int, int]:
    """Width and height at which the pipeline works: a square, or the aspect ratio of an image with boxes."""
    if source.boxes is None:
        return config.image_size, config.image_size
    return bucket(*source.open().size, config.image_size, MULTIPLE)


def prompt_of(config: Pipeline, variant: Variant, dataset: Dataset) -> str:
    """The prompt of one image."""
    own = config.prompt if config.class_names else config.prompt_without_name
    return variant.draws.get("prompt", own).replace("{name}", readable(dataset.class_names[variant.source.class_index]))


_loaded: dict[str, Any] = {}  # the last pipeline that was loaded, by what it was loaded from


def unload() -> None:
    """Forget the pipeline that is kept."""
    _loaded.clear()


def load(config: Pipeline, device: str, fitted: Path | None = None) -> Any:
    """The pipeline, with LoRA, IP-Adapter and ControlNet if they are configured; loaded once per process.

    Args:
        fitted: the folder with the LoRA that ``fit`` wrote, where ``generator.lora_fit`` asks for one; None leaves it out.
    """
    learned = fitted if config.lora_fit is not None else None
    weights = (config.path, config.revision, config.variant, config.dtype, config.pipeline_class, config.mask == "none")
    identity = fingerprint(
        *weights,
        config.weighs_each,
        str(learned),
        config.lora,
        config.ip_adapter,
        config.control,
        config.offload,
        device,
    )
    if identity not in _loaded:
        _loaded.clear()
        _loaded[identity] = _load(config, device, learned)
    return _loaded[identity]


def _load(config: Pipeline, device: str, learned: Path | None) -> Any:
    import diffusers

    path = str(Path(config.path).expanduser()) if Path(config.path).expanduser().is_dir() else config.path
    options: dict[str, Any] = {"torch_dtype": getattr(torch, config.dtype), "use_safetensors": True}
    options |= {"revision": config.revision, "variant": config.variant}
    if config.control.kind != "none":
        with boundary(f"generator.control.path={config.control.path} cannot be loaded as a ControlNet"):
            options["controlnet"] = diffusers.AutoModel.from_pretrained(  # of the class that its config.json names
                config.control.path, torch_dtype=options["torch_dtype"], use_safetensors=True
            )
    auto = diffusers.AutoPipelineForImage2Image if config.mask == "none" else diffusers.AutoPipelineForInpainting
    loader = auto if config.pipeline_class is None else getattr(diffusers, config.pipeline_class, None)
    if loader is None:
        raise GenaugError(f"generator.pipeline_class={config.pipeline_class} is no pipeline of this diffusers.")
    then = "If its model has no such class in diffusers' auto classes, name one with generator.pipeline_class=NAME."
    with boundary(f"generator.path={config.path} cannot be loaded by {loader.__name__}", then):
        pipe = loader.from_pretrained(path, **options)
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.safety_checker = None  # it would answer with black pictures, which would then be trained on
    _add_adapters(pipe, config, learned)
    _place(pipe, config, device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _add_adapters(pipe: Any, config: Pipeline, learned: Path | None) -> None:
    scales: dict[str, float] = {}
    if learned is not None:
        with boundary(f"The LoRA in {learned} cannot be loaded", "Remove the folder: it is learned again."):
            pipe.load_lora_weights(str(learned), weight_name=FILES[0], adapter_name="learned")
        scales["learned"] = 1.0
    if config.lora.path is not None:
        file = lora_file("generator.lora.path", config.lora.path)
        with boundary(f"generator.lora.path={config.lora.path} cannot be loaded", "Write a LoRA for this model."):
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="genaug")
        scales["genaug"] = config.lora.scale
    if scales:
        pipe.set_adapters(list(scales), list(scales.values()))
    adapter = config.ip_adapter
    if adapter.path is not None:
        with boundary(f"generator.ip_adapter.path={adapter.path} cannot be loaded into {type(pipe).__name__}"):
            pipe.load_ip_adapter(adapter.path, subfolder=adapter.subfolder, weight_name=adapter.weight_name)
            pipe.set_ip_adapter_scale(adapter.scale)


def _place(pipe: Any, config: Pipeline, device: str) -> None:
    if config.offload == "none" or device == "cpu":
        pipe.to(device)
    elif config.offload == "model":
        pipe.enable_model_cpu_offload()
    else:
        pipe.enable_sequential_cpu_offload()


def call(
    pipe: Any, config: Pipeline, batch: Sequence[Variant], dataset: Dataset, num_taken: int | None = None
) -> list[Any]:
    """One call of the pipeline for variants of one strength.

    Args:
        num_taken: denoising steps to take instead of the configured ones.
    """
    strength = batch[0].draws.get("strength")
    width, height = frame_of(batch[0].source, config)
    given: dict[str, Any] = {
        "prompt": [prompt_of(config, variant, dataset) for variant in batch],
        "image": [_framed(variant.source, config) for variant in batch],
        "num_inference_steps": config.num_steps,
        "generator": [torch.Generator().manual_seed(_seed(variant)) for variant in batch],
        "output_type": "pil",
    }
    if num_taken is not None:
        given["num_inference_steps"] = -int(-num_taken // (strength or 1.0))
    if strength is not None:
        given["strength"] = strength
    if config.guidance is not None:
        given["guidance_scale"] = config.guidance
    if config.negative_prompt:
        given["negative_prompt"] = [config.negative_prompt] * len(batch)
    if config.mask != "none":
        given["mask_image"] = [_mask(variant.source, config) for variant in batch]
    if config.ip_adapter.path is not None:
        given["ip_adapter_image"] = given["image"]
    if config.control.kind != "none":
        given["control_image"] = [control_picture(variant.source, config, (width, height)) for variant in batch]
        given["controlnet_conditioning_scale"] = config.control.scale
    given |= config.arguments
    accepted = inspect.signature(type(pipe).__call__).parameters
    sizes = {"height": height, "width": width, "max_area": width * height, "_auto_resize": False}
    given = {name: value for name, value in sizes.items() if name in accepted} | given
    if "control_image" in given and "image" not in accepted:
        del given["image"]  # it makes new images of the condition alone
    _check_arguments(pipe, given, accepted)
    if len(batch) == 1:  # pipelines that take no lists take one of each
        given = {
            key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in given.items()
        }
    gpus = range(torch.cuda.device_count())
    with boundary(f"{type(pipe).__name__} failed on {batch[0].source.id}"), torch.random.fork_rng(gpus):
        torch.manual_seed(_seed(batch[0]))  # for what some pipelines draw without their generator
        return list(pipe(**given).images)


def _check_arguments(pipe: Any, given: dict[str, Any], accepted: Any) -> None:
    words = {
        "strength": "generator.strength=null",
        "negative_prompt": "generator.negative_prompt=''",
        "guidance_scale": "generator.guidance=null",
        "mask_image": "generator.mask=none, or an inpainting class with generator.pipeline_class=NAME",
        "ip_adapter_image": "generator.ip_adapter.path=null",
        "control_image": "generator.control.kind=none, or a class that takes one with generator.pipeline_class=NAME",
    }
    for name in given:
        if name not in accepted:
            advice = words.get(name, f"generator.arguments without {name}")
            raise GenaugError(f"{type(pipe).__name__} takes no {name}. Write {advice}.")


def batches_agree(pipe: Any, config: Pipeline, pair: Sequence[Variant], dataset: Dataset) -> bool:
    """Whether two images come out of one call as they come out of two, up to ``batch_tolerance`` grey levels.

    Both are drawn at the first one's strength with ``PROBE_STEPS`` steps.
    """
    first, second = pair
    second = Variant(source=second.source, index=second.index, draws=first.draws, fingerprint=second.fingerprint)
    try:
        together = call(pipe, config, [first, second], dataset, PROBE_STEPS)
    except GenaugError:
        return False
    alone = [call(pipe, config, [variant], dataset, PROBE_STEPS)[0] for variant in (first, second)]
    if len(together) != len(alone):
        return False
    difference = max(
        float(np.abs(np.asarray(a, dtype=np.float32) - np.asarray(b, dtype=np.float32)).max())
        for a, b in zip(together, alone, strict=True)
    )
    return difference <= config.batch_tolerance


def _framed(source: Sample, config: Pipeline) -> Image.Image:
    return scaled(source.open(), frame_of(source, config))


def _editable(source: Sample, config: Pipeline) -> np.ndarray:
    return edit_region(source, *frame_of(source, config), config.mask, config.mask_dilation)[0]


def _mask(source: Sample, config: Pipeline) -> Image.Image:
    """White where the pipeline repaints."""
    return Image.fromarray((_editable(source, config) * 255).astype(np.uint8))


def _seed(variant: Variant) -> int:
    return derive(variant.fingerprint, "pipeline")
