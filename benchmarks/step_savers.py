"""Ways to spend less of the U-Net on an edit: deep features used again, and fewer steps; how much faster, and how far away.

    python -m benchmarks step_savers [--images 30]

Real digits edited by the shipped prior at four levels, against 50 DDIM steps from the same noise. The distance of two pictures
is that of their latents, in units of what other noise makes of it: 0 is the same picture, 1 another draw. The share is of the
U-Net's operations, counted by torch: of all steps for Stable Diffusion 1.5 at 512 px.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Row, Side, compare, say, write
from benchmarks.sdedit import LEVELS
from genaug.composition import compose_typed
from genaug.core.seeding import derive
from genaug.generators.base import steps_taken
from genaug.generators.sdedit.sampler import sdedit, to_tensor
from genaug.priors.kept import kept_depths
from genaug.priors.noise import draw_noise
from genaug.priors.random_weights import random_parts

STEPS = 50
GUIDANCES = (2.0, 7.5)
"""Where the shipped prior is at its best, and what papers take of Stable Diffusion."""
WAYS: dict[str, dict[str, Any]] = {
    **{f"cache_interval={interval}": {"cache_interval": interval} for interval in (2, 3, 5)},
    **{f"{steps} steps": {"num_steps": steps} for steps in (25, 20, 12)},
    "20 steps of DPM-Solver++": {"num_steps": 20, "scheduler": "dpmsolver++"},
}


class Edits:
    """Edits of training digits."""

    def __init__(self, images: int, guidance: float):
        config = compose_typed(["dataset=digits"])
        self.prior, self.guidance = config.prior.load("cpu"), guidance
        dataset = config.dataset.load()
        self.sources = dataset.train[:images]
        self.z = self.prior.encode(torch.stack([to_tensor(s.open(), self.prior.image_size) for s in self.sources]))
        self.cond = self.prior.embed([f"a photo of a {dataset.class_names[s.class_index]}" for s in self.sources])
        self.uncond = self.prior.embed([""])

    def made(self, noise: str = "noise", num_steps: int = STEPS, **options: Any) -> list[Tensor]:
        """Latents float32 [n, 4, h, w] of each level."""
        found = []
        for level in LEVELS:
            noise_bchw = draw_noise([derive(s.digest, noise, level) for s in self.sources], self.z.shape[1:])
            taken = {"num_steps": num_steps, "num_taken": steps_taken(num_steps, level), "guidance": self.guidance}
            found.append(sdedit(self.prior, self.z, noise_bchw, self.cond, self.uncond, **taken, **options))
        return found


def distances(a: list[Tensor], b: list[Tensor]) -> list[float]:
    """Of each level, the root of the mean square."""
    return [float((x - y).square().mean().sqrt()) for x, y in zip(a, b, strict=True)]


def shallow_share() -> float:
    """What remains of a U-Net evaluation whose deep features are used again, at 512 px."""
    with torch.device("meta"):
        unet: Any = random_parts("sd15")["unet"]
        z, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, unet.config.cross_attention_dim)
        t = torch.empty(1)
    operations = []
    with kept_depths(unet, 2) as depths, torch.no_grad():
        for _ in range(2):
            depths.next(text)
            with FlopCounterMode(display=False) as counter:
                unet(z, t, encoder_hidden_states=text)
            operations.append(counter.get_total_flops())
    return operations[1] / operations[0]


def rows_of(edits: Edits, shallow: float, repeats: int) -> Iterator[Row]:
    """Each way against all steps."""
    unit = distances(edits.made(), edits.made("other noise"))
    for way, chosen in WAYS.items():
        interval, steps = chosen.get("cache_interval", 1), chosen.get("num_steps", STEPS)
        share = steps / STEPS * (1 + (interval - 1) * shallow) / interval

        def same(ours: list[Tensor], theirs: list[Tensor]) -> str:
            apart = [d / u for d, u in zip(distances(ours, theirs), unit, strict=True)]
            levels = " ".join(f"{value:.2g}" for value in apart)
            at = " ".join(f"{level:g}" for level in LEVELS)
            return f"distance {levels} at t0 = {at}; {share:.0%} of the operations at 512 px"  # noqa: B023

        yield compare(
            f"edits of {len(edits.sources)} digits at each of four levels, guidance {edits.guidance:g}",
            Side(way, lambda: edits.made(**chosen)),  # noqa: B023
            Side(f"{STEPS} DDIM steps", edits.made),
            same,
            repeats=repeats,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shallow, rows = shallow_share(), list[Row]()
    print(f"a step with features used again: {shallow:.1%} of a whole one at 512 px")
    for guidance in GUIDANCES:
        for row in rows_of(Edits(options.images, guidance), shallow, options.repeats):
            rows.append(row)
            print(say(row), flush=True)
    write("step_savers", rows)


if __name__ == "__main__":
    main()
