"""Two small pictures of each generator on the shipped prior, as they lie in ``pictures/``.

``python -m tests.golden.pictures`` makes them again, prints what differs and writes them. A commit that moves code changes
none of them. The wanted images have fixed names and draws in place of computed ones, so a renamed key changes nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from genaug.composition import compose_typed
from genaug.data.sample import Dataset
from genaug.generators.base import Variant

FOLDER = Path(__file__).with_name("pictures")
TOLERANCE = 2
"""Grey levels: processors differ in the last digits of a sum, hence in the rounding to 8 bits."""

DIGITS = ("dataset=digits", "dataset.shots=1", "leakage=none")
SCENES = ("dataset=digit_scenes", "dataset.image_size=32", "dataset.num_train=4")
TOKENS = ("generator.tokens.num_steps=3", "generator.tokens.batch_size=2", "generator.guidance=2")
LORA = ("generator.lora.num_steps=5", "generator.lora.batch_size=2", "generator.lora.learning_rate=0.01")
SHORT = ("generator.num_steps=4",)
TEACHER = tuple(
    f"generator.teacher.{change}" for change in ("num_steps=2", "warmup_steps=0", "batch_size=2", "image_size=32")
)
NETWORKS = (  # few steps: an adversary enlarges the last digits; instruction sets were 53 levels apart after twenty
    *("generator.training.num_steps=5", "generator.training.batch_size=8", "generator.training.lr=0.003"),
    *("generator.networks.z_dim=4", "generator.networks.channels=8", "generator.networks.decoder_channels=32"),
)
CASES: dict[str, tuple[str, ...]] = {
    "real_guidance": (*DIGITS, *SHORT),
    "real_guidance_keep_object": (*SCENES, *SHORT, "generator=real_guidance", "generator.mask=keep_object"),
    "da_fusion": (*DIGITS, *TOKENS, *SHORT),
    "diff_mix": (*DIGITS, *TOKENS, *SHORT, "generator=ti_mix"),
    "diff_mix_lora": (*DIGITS, *TOKENS, *SHORT, *LORA, "generator=diff_mix"),
    "dreamda": (*DIGITS, *SHORT),
    "dreamda_fresh_asymmetric": (
        *(*DIGITS, *SHORT, "generator=dreamda", "generator.process=asymmetric", "generator.sigma=0.5"),
        *("generator.source_codes=fresh", "generator.encode=sample", "generator.source_prompt=same"),
    ),
    "psld": (*SCENES, *SHORT, *TEACHER),
    "psld_fast": (*SCENES, *TEACHER, "generator.num_steps=5"),
    "psld_projection": (*SCENES, *SHORT, *TEACHER),
    "psld_reference": (*SCENES, *SHORT, "generator.solver.reference_shift=false"),
    "latent_interpolation": (*DIGITS, *NETWORKS),
    "acai": (*DIGITS, *NETWORKS),
    "latent_interpolation_prior_vae": DIGITS,
}
DRAWS = {
    "real_guidance": {"t0": 0.5},
    "da_fusion": {"t0": 0.5},
    "diff_mix": {"t0": 0.5, "target": "one"},
    "dreamda": {"prompt": "a photo of a digit"},
    "latent_interpolation": {"lam": 0.4},
}
"""Of every image, by component."""


def pictures(case: str) -> list[np.ndarray]:
    """The two pictures uint8 [h, w, 3] of a case, made by one thread."""
    overrides = CASES[case]
    chosen = () if any(o.startswith("generator=") for o in overrides) else (f"generator={case}",)
    config = compose_typed([*chosen, *overrides])
    generator, dataset = config.generator, config.dataset.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prior = config.prior.load("cpu") if generator.uses_prior else None
        with TemporaryDirectory() as folder:
            fitted = Path(folder) if generator.fits else None
            if fitted is not None:
                generator.fit(dataset, prior, fitted)
            made = list(generator.generate(list(wanted(generator, dataset)), dataset, prior, fitted))
    finally:
        torch.set_num_threads(threads)
    return [np.asarray(item.image) for item in sorted(made, key=lambda item: item.variant.fingerprint)]


def wanted(generator: Any, dataset: Dataset) -> Iterator[Variant]:
    """One image of each of the first two sources."""
    for i in range(2):
        draws: dict[str, Any] = dict(DRAWS.get(generator.component_name, {}))
        if "lam" in draws:
            draws["partner_id"] = dataset.train[i + 2].id
        yield Variant(source=dataset.train[i], index=0, draws=draws, fingerprint=f"golden-{i}")


def files(case: str) -> list[Path]:
    return [FOLDER / f"{case}-{i}.png" for i in range(2)]


def difference(case: str, new: list[np.ndarray]) -> list[str]:
    """One line for each picture that is missing or differs by more than the tolerance."""
    lines = []
    for path, pixels in zip(files(case), new, strict=True):
        if not path.exists():
            lines.append(f"{path.name}: new")
            continue
        old = np.asarray(Image.open(path))
        if old.shape != pixels.shape:
            lines.append(f"{path.name}: {old.shape} -> {pixels.shape}")
        elif (most := np.abs(old.astype(int) - pixels).max()) > TOLERANCE:
            lines.append(f"{path.name}: differs by up to {most} grey levels")
    return lines


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    lines = []
    for case in CASES:
        new = pictures(case)
        lines += (differs := difference(case, new))
        for path, pixels in zip(files(case), new, strict=True):
            if differs:
                Image.fromarray(pixels).save(path, optimize=True)
    known = {path for case in CASES for path in files(case)}
    for path in sorted(set(FOLDER.glob("*.png")) - known):
        lines.append(f"{path.name}: gone")
        path.unlink()
    print("\n".join(lines) or "nothing differs")


if __name__ == "__main__":
    main()
