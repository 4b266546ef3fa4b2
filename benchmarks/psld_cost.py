"""Cost of PSLD's modes per image, and what the cheap ones lose, on digit scenes of 64 px.

Cost: network FLOPs of one step (counted by torch, forward and backward) times the steps, and seconds of whole images, all
modes in one run. The reference is timed with one copy per image, its joint norm then being that image's own.

Quality (same images, masks and seeds): known-region PSNR before pasting back; distance of the hole to the original in the
VAE's latent space (LPIPS needs weights that are not shipped); diversity, the same distance between variants of one image;
what becomes of the labels. The baseline is the corrected gradient mode with more steps. A fast mode passes with PSNR within
0.5 dB, hole distance at most 5 % above and diversity at most 10 % below it.

    python benchmarks/psld_cost.py
    python benchmarks/psld_cost.py --sd15-shapes --device cuda --image-size 384
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusion_setting import load_prior, parser
from torch.utils.flop_counter import FlopCounterMode

from genaug.composition import compose_typed
from genaug.data.sample import Dataset
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.generators.base import Generated
from genaug.generators.psld.config import Psld
from genaug.priors.model import Prior

MODES = ("psld_reference", "psld", "psld_fast", "psld_projection")
NUM_TUNING = 10  # scenes on which the modes were chosen; the protocol begins behind them


def mode(name: str, *changes: str, audit: str = "none") -> Psld:
    """The preset of conf/generator, without an audit unless asked for."""
    chosen = ["dataset=digit_scenes", "downstream=detector_tiny", f"generator={name}"]
    keys = [f"generator.{change}" for change in (f"audit.by={audit}", *changes)]
    config = compose_typed([*chosen, *keys]).generator
    assert isinstance(config, Psld)
    return config


def images(
    config: Psld, dataset: Dataset, prior: Prior, variants: int = 1, fitted: Path | None = None
) -> list[Generated]:
    wanted = [config.variant_of(s, j, dataset, "benchmark") for j in range(variants) for s in dataset.train]
    return list(config.generate(wanted, dataset, prior, fitted))


class _Everything:
    """Counts all modules together: torch's own tracker cannot follow ``torch.autograd.grad``."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "_Everything":
        return self

    def __exit__(self, *args: object) -> None:
        pass


def flops_per_step(config: Psld, dataset: Dataset, prior: Prior) -> float:
    """Network FLOPs of one step of one image: the difference of runs of ten and of five steps."""
    one = dataclasses.replace(dataset, train=dataset.train[:1])
    totals = []
    for steps in (10, 5):
        solver = dataclasses.replace(config.solver, reference_shift=False, joint_copies=1, guide_every=1)
        short = dataclasses.replace(config, num_steps=steps, t0=1.0, solver=solver)
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _Everything()  # type: ignore[assignment]
        with counter:
            images(short, one, prior)
        totals.append(counter.get_total_flops())
    return (totals[0] - totals[1]) / 5


def timed(config: Psld, dataset: Dataset, prior: Prior, count: int) -> tuple[float, float | None]:
    """Seconds per image, and peak GB of the device."""
    on_gpu = prior.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    images(config, dataclasses.replace(dataset, train=dataset.train[:count]), prior)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / count
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None


@torch.no_grad()
def latent(prior: Prior, pixels: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    return prior.encode(values)[0].flatten()


def quality(made: list[Generated], dataset: Dataset, prior: Prior) -> dict[str, Any]:
    """The protocol's numbers for one mode; diversity over the sources with several variants."""
    originals = {s.id: np.asarray(s.open()) for s in dataset.train}
    distances, pairs, psnr = [], [], []
    by_source: dict[str, list[torch.Tensor]] = {}
    decisions: dict[str, int] = {}
    rejected: dict[str, int] = {}
    invented = 0
    for item in made:
        if item.rejected:
            rejected[item.rejected] = rejected.get(item.rejected, 0) + 1
        if "psnr_known" not in item.about:
            continue
        z = latent(prior, np.asarray(item.image))
        if item.variant.index == 0:
            distances.append(float((z - latent(prior, originals[item.variant.source.id])).norm()))
            psnr.append(item.about["psnr_known"])
            invented += item.about.get("hallucinations", 0)
            for row in item.about.get("box_decisions", []):
                decisions[row["decision"]] = decisions.get(row["decision"], 0) + 1
        by_source.setdefault(item.variant.source.id, []).append(z)
    for group in by_source.values():
        pairs += [float((a - b).norm()) for i, a in enumerate(group) for b in group[i + 1 :]]
    return {
        "images": len(distances),
        "psnr_known_db": round(float(np.mean(psnr)), 3),
        "hole_distance": round(float(np.mean(distances)), 4),
        "diversity": round(float(np.mean(pairs)), 4) if pairs else None,
        "box_decisions": decisions,
        "invented_objects": invented,
        "rejected": rejected,
    }


def several(config: Psld, dataset: Dataset, prior: Prior, diverse: int, fitted: Path | None) -> list[Generated]:
    """One variant of every image, and three more of the first ``diverse``."""
    first = dataclasses.replace(dataset, train=dataset.train[:diverse])
    more = [item for item in images(config, first, prior, 4, fitted) if item.variant.index > 0] if diverse else []
    return images(config, dataset, prior, 1, fitted) + more


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=50, help="images of the quality protocol")
    options.add_argument("--diverse", type=int, default=6, help="of these, images with four variants")
    options.add_argument("--baseline-steps", type=int, default=100, help="steps of the quality baseline")
    options.add_argument("--timed-images", type=int, default=4, help="images per timing of the cheap modes")
    options.add_argument(
        "--reference-steps", type=int, default=50, help="steps timed of the reference, then scaled to its 1000"
    )
    options.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = options.parse_args()
    args.image_size = args.image_size or (384 if args.sd15_shapes else 64)
    prior = load_prior(args)
    data = DigitScenes(
        seed=0, image_size=args.image_size, num_train=NUM_TUNING + args.images, num_val=1, num_test=1
    ).load()
    scenes = dataclasses.replace(data, train=data.train[NUM_TUNING:])
    report: dict[str, Any] = {
        "device": args.device,
        "image_size": args.image_size,
        "torch": torch.__version__,
        "cost": {},
    }
    images(mode("psld", "num_steps=1"), dataclasses.replace(scenes, train=scenes.train[:1]), prior)  # warm-up

    for name in MODES:
        config = mode(name, f"batch_size={1 if name == 'psld_reference' else 16}")
        steps = config.num_taken()
        if name == "psld_reference":
            solver = dataclasses.replace(config.solver, reference_shift=False, joint_copies=1)
            short = dataclasses.replace(config, num_steps=args.reference_steps, solver=solver)
            seconds, memory = timed(short, scenes, prior, 1)
            seconds *= steps / args.reference_steps
        else:
            seconds, memory = timed(config, scenes, prior, args.timed_images)
        flops = flops_per_step(config, scenes, prior) * steps
        report["cost"][name] = {"steps": steps, "tflop": flops / 1e12, "seconds": seconds, "peak_gb": memory}
        print(f"{name:16s} {steps:5d} steps  {flops / 1e12:9.4f} TFLOP  {seconds:8.2f} s per image", flush=True)
    reference = report["cost"]["psld_reference"]
    for name in MODES[1:]:
        row = report["cost"][name]
        ratios = reference["tflop"] / row["tflop"], reference["seconds"] / row["seconds"]
        row["cheaper_tflop"], row["cheaper_seconds"] = ratios
        print(
            f"{name}: {ratios[0]:.1f} times fewer FLOPs, {ratios[1]:.1f} times less time than psld_reference",
            flush=True,
        )

    if not args.sd15_shapes:
        report["quality"] = protocol(args, scenes, prior)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")


def protocol(args: Any, scenes: Dataset, prior: Prior) -> dict[str, Any]:
    """Quality of the baseline and of the cheap modes, and what of the protocol each passes."""
    baseline = quality(
        several(mode("psld", f"num_steps={args.baseline_steps}"), scenes, prior, args.diverse, None), scenes, prior
    )
    result: dict[str, Any] = {"baseline": {"steps": args.baseline_steps, **baseline}}
    print("baseline", result["baseline"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        teacher = (f"teacher.image_size={args.image_size}", "teacher.num_steps=120")
        mode("psld", *teacher).fit(scenes, prior, Path(folder), prior.device.type)
        for name in MODES[1:]:
            config = mode(name, *teacher, audit="detector")
            ours = quality(several(config, scenes, prior, args.diverse, Path(folder)), scenes, prior)
            checks = {
                "psnr": ours["psnr_known_db"] >= baseline["psnr_known_db"] - 0.5,
                "hole": ours["hole_distance"] <= 1.05 * baseline["hole_distance"],
                "diversity": ours["diversity"] is None or ours["diversity"] >= 0.9 * baseline["diversity"],
            }
            result[name] = {**ours, "passes": checks}
            print(name, result[name], flush=True)
    return result


if __name__ == "__main__":
    main()
