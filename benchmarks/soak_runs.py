"""What the soak types for each kind of run, and the small models and data that it names there."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from genaug.data.sources.digits import NAMES

LEARNING = ["downstream.num_steps=30", "trainer.checkpoint_every=5", "trainer.accelerator=cpu", "trainer.num_threads=1"]
SMALL = [*LEARNING, "dataset.shots=1", "mix.m=2", "tracking=local"]
NAMED = [*SMALL, "leakage=none"]
TOKENS = ["generator.tokens.num_steps=20", "generator.tokens.checkpoint_every=5"]
LORA = ["generator.lora.num_steps=20", "generator.lora.batch_size=4", "generator.lora.checkpoint_every=5"]
ERASING = [f"leakage.erasure.{key}" for key in ("iterations=2", "trajectories=2", "num_steps=2", "batch_size=2")]
SCENES = [
    *LEARNING, "dataset=digit_scenes", "dataset.num_train=8", "dataset.num_test=20", "mix.m=1", "downstream=detector_tiny",
    "downstream.batch_size=4", "tracking=local",
]  # fmt: skip
RUNS = {
    "best_val": ["generator=none", "downstream.select=best_val", "downstream.eval_every=5", *SMALL],
    "real_guidance": ["generator=real_guidance", *SMALL],
    "da_fusion": ["generator=da_fusion", *TOKENS, *SMALL],
    "diff_mix": ["generator=diff_mix", *TOKENS, *LORA, *SMALL],
    "diff_ii": [
        "generator=diff_ii",
        *TOKENS,
        *LORA,
        "generator.inversion_steps=10",
        "generator.num_steps=10",
        *SMALL,
        "dataset.shots=2",
        "mix.m=1",
    ],
    "diffuse_mix": ["generator=diffuse_mix", *SMALL],
    "dreamda": ["generator=dreamda", *SMALL],
    "psld": ["generator=psld", "generator.num_steps=10", "generator.teacher.num_steps=25", *SCENES],
    "erasure": ["generator=da_fusion", "leakage=model_centric", *ERASING, *TOKENS, *SMALL],
    "filter": ["generator=real_guidance", "filter=blank", *SMALL],
    "interpolation": ["generator=latent_interpolation", "generator.training.num_steps=40", *SMALL],
    "online": ["generator=latent_interpolation", "generator.online=true", "generator.training.num_steps=40", *SMALL],
    "detection": ["generator=none", *SCENES],
    "packed": ["generator=real_guidance", "paths.packed_from=1", *SMALL],
    "self_training": ["generator=real_guidance", *SMALL, "downstream=amst_tiny", "downstream.num_rounds=2"],
    "pipeline": ["generator=pipeline", "generator.path={tiny}", "generator.num_steps=4", *SMALL],
    "pipeline_lora": [
        "generator=pipeline",
        "generator.path={sdxl}",
        "generator.num_steps=4",
        "+generator/lora_fit=sdxl",
        "generator.lora_fit.num_steps=20",
        *SMALL,
    ],
    "instances": [
        "generator=instance_augmentation",
        "generator.path={tiny}",
        "generator.num_steps=4",
        "generator.image_size=32",
        "generator.min_area=50",
        "generator.redraw_prob=1",
        "generator.mask_dilation=1",
        "generator.control.kind=none",
        *SCENES,
    ],
    "folder": ["generator=folder", "generator.root={pictures}", *SMALL],
    "control": ["generator=control", "generator.kind=random_labels", *SMALL],
    "diagen": ["generator=diagen", *TOKENS, *SMALL],
    "diffuse_mix_reference": [
        "generator=diffuse_mix_reference",
        "generator.path={instruct_pix2pix}",
        "generator.dtype=float32",
        "generator.num_steps=4",
        "generator.image_size=32",
        *SMALL,
    ],
    "gif": ["generator=gif", "generator.clip_path={clip}", "generator.num_steps=4", *NAMED],
    "dalda": [
        "generator=dalda",
        "generator.path={tiny}",
        "generator.ip_adapter.path={ip_adapter}",
        "generator.clip_path={clip}",
        "+generator/sentences=file",
        "generator.sentences.path={sentences}",
        "generator.num_steps=4",
        "generator.image_size=32",
        *NAMED,
    ],
    "saspa": [
        "generator=saspa",
        "generator.path={tiny}",
        "generator.control.path={controlnet}",
        "generator.num_steps=4",
        "generator.image_size=32",
        *NAMED,
    ],
    "labelling": [
        "generator=real_guidance",
        "generator.mask=edit_object",
        "+downstream@generator.teacher=detector_tiny",
        "generator.teacher.num_steps=25",
        "generator.num_steps=10",
        *SCENES,
    ],
    "copy_paste": [
        "generator=real_guidance",
        "generator.label_policy=copy",
        "generator.num_steps=10",
        "augment=copy_paste",
        "mix=paste",
        *SCENES,
    ],
    "psld_super_resolution": [
        "generator=psld_super_resolution",
        "generator.num_steps=10",
        "generator.teacher.num_steps=25",
        *SCENES,
    ],
    "acai": ["generator=acai", "generator.training.num_steps=40", *SMALL],
    "prior_vae": ["generator=latent_interpolation_prior_vae", *SMALL],
    "detector_auto": [
        *SCENES,
        "generator=none",
        "downstream=detector_auto",
        "downstream.auto.path={rt_detr}",
        "downstream.image_size=64",
        "downstream.warmup_steps=0",
    ],
    "quality": ["generator=vae_reconstruction", *SMALL],
}
"""What is typed for each kind of run; ``{name}`` is what ``with_files`` makes: a small model with random weights, images, …"""

MEASURED = ("quality",)
"""Runs whose pool ``genaug quality`` measures afterwards, under the same kills."""


def pictures(folder: Path) -> Path:
    """Two pictures of noise for each digit, in class folders."""
    draw = np.random.default_rng(0)
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for place in range(2):
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{place}.png")
    return folder


def sentences(folder: Path) -> Path:
    """Two sentences for each digit."""
    rows = [{"class": name, "text": f"a {size} {name}"} for name in NAMES for size in ("small", "large")]
    folder.mkdir()
    (folder / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "sentences.jsonl"


def with_files(words: list[str], top: Path) -> list[str]:
    """The words with the paths of the models and data that they name, which are saved below ``top``."""
    from genaug.priors.config import PriorConfig
    from tests.downstream.detection import tiny_detectors
    from tests.generators.pipeline import tiny_conditions, tiny_pipelines

    tiny = PriorConfig(path="tiny", image_size=32).folder
    save = {
        "tiny": lambda folder: tiny,
        "sdxl": lambda folder: tiny_pipelines.save("sdxl", folder),
        "instruct_pix2pix": lambda folder: tiny_pipelines.save("instruct_pix2pix", folder),
        "controlnet": lambda folder: tiny_conditions.save_controlnet("sd", tiny, folder),
        "ip_adapter": tiny_conditions.save_ip_adapter,
        "clip": tiny_conditions.save_clip,
        "pictures": pictures,
        "sentences": sentences,
        "rt_detr": lambda folder: tiny_detectors.saved("rt_detr", folder, num_classes=10),
    }
    named = {name for word in words for name in save if f"{{{name}}}" in word}
    paths = {name: save[name](top / name) for name in named}
    return [word.format_map(paths) if named else word for word in words]
