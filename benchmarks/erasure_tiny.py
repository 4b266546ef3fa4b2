"""Does erasing "seven" from the tiny prior erase seven, and only seven?

    python -m benchmarks erasure_tiny --images 40 --output benchmarks/results/erasure_tiny.json

Samples every digit from pure noise under "a photo of a <digit>" with the prior as it is and with the erased U-Net. A support
vector machine names them; it has learned the digits from the prior's own pictures of other noise, of which 99.5 % show what was
prompted according to a network trained on MNIST (the prior's quality.json). Exits with an error unless the share of sevens
falls to a quarter or less while every other digit keeps at least nine tenths of its own.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.svm import SVC
from torch import Tensor

from genaug.composition import compose_typed
from genaug.core.seeding import derive
from genaug.priors.corpus import DIGIT_WORDS
from genaug.priors.deltas import applied
from genaug.priors.erasure import erase
from genaug.priors.model import Prior
from genaug.priors.noise import draw_noise, make_scheduler
from genaug.runs.environment import describe_environment

LARGEST_SHARE, SMALLEST_SHARE = 0.25, 0.9


@torch.no_grad()
def sample(prior: Prior, num_images: int, purpose: str, num_steps: int, guidance: float = 2.0) -> Tensor:
    """``num_images`` pictures of each digit, digit by digit, [10 num_images, 3, h, w] in [0, 1], from noise that depends on
    ``purpose`` and their place alone."""
    schedule = make_scheduler("ddim", prior.betas)
    schedule.set_timesteps(num_steps)
    side = prior.image_size // prior.vae_factor
    uncond = prior.embed([""])
    pictures = []
    for word in DIGIT_WORDS:
        z = draw_noise([derive(purpose, word, i) for i in range(num_images)], (4, side, side)).to(prior.device)
        cond = prior.embed([f"a photo of a {word}"])
        for t in schedule.timesteps:
            z = schedule.step(prior.predict_noise(z, t, cond, uncond, guidance), t, z, return_dict=False)[0]
        pictures.append((prior.decode(z) / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(pictures)


def learn_judge(prior: Prior, num_images: int, num_steps: int) -> Callable[[Tensor], Tensor]:
    """Names the digits [n] of pictures [n, 3, 32, 32]; learned from ``num_images`` of the prior's own per digit, as grey
    values at 16 px."""

    def features(pictures: Tensor) -> Tensor:
        return F.avg_pool2d(pictures.mean(1, keepdim=True), 2).flatten(1)

    digits = torch.arange(10).repeat_interleave(num_images)
    machine = SVC(C=5.0).fit(features(sample(prior, num_images, "learned", num_steps)), digits)
    return lambda pictures: torch.from_numpy(machine.predict(features(pictures)))


def shares(prior: Prior, judge: Callable[[Tensor], Tensor], num_images: int, num_steps: int) -> list[float]:
    """Share of each digit's pictures that the judge names so, [10]."""
    named = judge(sample(prior, num_images, "judged", num_steps)).view(10, num_images)
    return (named == torch.arange(10)[:, None]).float().mean(1).tolist()


def verdict(concept: str, before: list[float], after: list[float]) -> dict[str, Any]:
    """What each digit keeps of its share, and whether the concept is erased and nothing else."""
    kept = {word: a / max(b, 1e-9) for word, b, a in zip(DIGIT_WORDS, before, after, strict=True)}
    others = min(share for word, share in kept.items() if word != concept)
    clean = kept[concept] <= LARGEST_SHARE and others >= SMALLEST_SHARE
    return {"kept": kept, "least_of_others": others, "clean": clean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=["seven"], choices=DIGIT_WORDS)
    parser.add_argument("--images", type=int, default=40, help="per digit")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps of a picture")
    parser.add_argument("--prior", default="tiny", help="tiny, or a folder")
    parser.add_argument("--output", type=Path, help="write the numbers here too, as JSON")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. leakage.erasure.iterations=200")
    arguments = parser.parse_args()
    config = compose_typed([f"prior.path={arguments.prior}", "leakage=model_centric", *arguments.set])
    erasure = config.leakage.erasure
    assert erasure is not None
    prior = config.prior.load("cpu")
    judge = learn_judge(prior, arguments.images, arguments.steps)
    before = shares(prior, judge, arguments.images, arguments.steps)
    print(
        f"before: {sum(before) / 10:.3f} of the pictures are named as prompted, {min(before):.2f} of the worst digit",
        flush=True,
    )
    erased = {}
    for concept in arguments.concepts:
        start = time.perf_counter()
        delta, about = erase(prior, concept, erasure)
        seconds = time.perf_counter() - start
        with applied(prior.unet, delta):
            after = shares(prior, judge, arguments.images, arguments.steps)
        erased[concept] = {
            **verdict(concept, before, after),
            "share": dict(zip(DIGIT_WORDS, after, strict=True)),
            "erase_seconds": round(seconds, 1),
            "num_weights": about["num_weights"],
        }
        print(
            f"{concept:6s} erased in {seconds:.1f} s: {erased[concept]['kept'][concept]:.2f} of its share kept, others at "
            f"least {erased[concept]['least_of_others']:.2f}",
            flush=True,
        )
    if arguments.output:
        report = {
            "images_per_digit": arguments.images,
            "ddim_steps": arguments.steps,
            "threads": torch.get_num_threads(),
            "hardware": describe_environment(),
            "erasure": {field: getattr(erasure, field) for field in type(erasure).__dataclass_fields__},
            "share_before": dict(zip(DIGIT_WORDS, before, strict=True)),
            "erased": erased,
        }
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    if unclean := [concept for concept, outcome in erased.items() if not outcome["clean"]]:
        raise SystemExit(f"not erased cleanly: {', '.join(unclean)}")


if __name__ == "__main__":
    main()
