"""Cost of PSLD's modes per image, and what the cheap ones lose, on digit scenes of 64 px.

Cost: network FLOPs of one step (counted by torch, forward and backward) times the steps, and seconds of whole images, all
modes in one run. The reference is timed with one copy per image, its joint norm then being that image's own.

Quality (same images, masks and seeds): known-region PSNR before pasting back; distance of the hole to the original in the
VAE's latent space (LPIPS needs weights that are not shipped); diversity, the same distance between variants of one image;
what becomes of the labels. The baseline is the corrected gradient mode with more steps. A fast mode passes with PSNR within
0.5 dB, hole distance at most 5 % above and diversity at most 10 % below it.

    python -m benchmarks psld                              # times
    python -m benchmarks psld --images 50 --diverse 10     # and quality
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import RESULTS, Row, Side, circumstances, compare, say, write
from benchmarks.setting import Setting
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


def compare_mode(
    name: str, scenes: Dataset, prior: Prior, reference_steps: int, count: int, target: float | None, **options: Any
) -> Row:
    """``count`` images by a mode against ``reference_steps`` of the 1000 steps of ``psld_reference`` for one; per image."""
    config, reference = mode(name), mode("psld_reference", "batch_size=1")
    solver = dataclasses.replace(reference.solver, reference_shift=False, joint_copies=1)
    short = dataclasses.replace(reference, num_steps=reference_steps, solver=solver)
    several_scenes = dataclasses.replace(scenes, train=scenes.train[:count])
    one = dataclasses.replace(scenes, train=scenes.train[:1])
    flops = [flops_per_step(each, scenes, prior) * each.num_taken() for each in (config, reference)]
    return compare(
        f"PSLD at {prior.image_size} px",
        Side(f"{name}, {config.num_taken()} steps", lambda: images(config, several_scenes, prior), count),
        Side(
            f"psld_reference, {reference.num_taken()} steps, of which {reference_steps} are timed",
            lambda: images(short, one, prior),
            reference_steps / reference.num_taken(),
        ),
        lambda *_: f"not the same picture, by the table of quality; {flops[1] / flops[0]:.0f} times fewer FLOPs",
        target=target,
        **options,
    )


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0, help="images of the quality protocol; 0 leaves it out")
    parser.add_argument("--diverse", type=int, default=10, help="of these, images with four variants")
    parser.add_argument("--baseline-steps", type=int, default=100, help="steps of the quality baseline")
    parser.add_argument("--timed-images", type=int, default=2)
    parser.add_argument("--reference-steps", type=int, default=10, help="of the reference's 1000")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, scenes = Setting(image_size=64).prior(), digit_scenes(64, max(options.images, options.timed_images))
    images(mode("psld", "num_steps=1"), dataclasses.replace(scenes, train=scenes.train[:1]), prior)  # warm-up
    rows = []
    for name in MODES[1:]:
        rows.append(
            compare_mode(
                name, scenes, prior, options.reference_steps, options.timed_images, None, repeats=options.repeats
            )
        )
        print(say(rows[-1]), flush=True)
    write("psld", rows)
    if options.images:
        report = {"quality": protocol(options, scenes, prior), **circumstances()}
        (RESULTS / "psld_quality.json").write_text(json.dumps(report, indent=1) + "\n")


def digit_scenes(size: int, count: int) -> Dataset:
    """``count`` scenes that chose none of the modes."""
    data = DigitScenes(seed=0, image_size=size, num_train=NUM_TUNING + count, num_val=1, num_test=1).load()
    return dataclasses.replace(data, train=data.train[NUM_TUNING:])


def protocol(args: Any, scenes: Dataset, prior: Prior) -> dict[str, Any]:
    """Quality of the baseline and of the cheap modes, and what of the protocol each passes."""
    baseline = quality(
        several(mode("psld", f"num_steps={args.baseline_steps}"), scenes, prior, args.diverse, None), scenes, prior
    )
    result: dict[str, Any] = {"baseline": {"steps": args.baseline_steps, **baseline}}
    print("baseline", result["baseline"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        teacher = (f"teacher.image_size={prior.image_size}", "teacher.num_steps=120")
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
