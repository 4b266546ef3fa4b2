"""What ``genaug check`` prints: tables of what is in a folder, what is wrong with it, what to choose and what it costs."""

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genaug.choosing import Choice
from genaug.core.cost import TRAIN_USE, USE, duration, unet_gflop
from genaug.data.sources.layout import Layout
from genaug.data.sources.recognition import LAYOUTS
from genaug.data.summary import counted, per_class, short
from genaug.evaluation.folder_check import SPLITS, FolderCheck
from genaug.priors.config import TINY, PriorConfig
from genaug.tables.plan import Cost

if TYPE_CHECKING:
    from genaug.priors.model import Prior

MOST_ROWS = 40
PROBE_PIXELS, PROBE_PASSES = 2**18, 10


def print_contents(found: FolderCheck, layout: Layout, console: Console) -> None:
    """Layout, task, classes, counts per class and split, sizes, colour modes, and what is left out."""
    what = LAYOUTS.get(layout.preset, "read as you say")
    console.print(f"{layout.root}: {what} (dataset={layout.preset}), {layout.task}", markup=False)
    dataset = found.dataset
    if dataset is None:
        return
    counts = {split: per_class(getattr(dataset, split)) for split in SPLITS}
    what = "boxes" if dataset.task == "detection" else "images"
    grid = Table(box=box.SIMPLE_HEAD, title=f"{what} by class and split", title_justify="left", padding=(0, 1, 0, 0))
    grid.add_column("class", overflow="fold")
    for split in SPLITS:
        grid.add_column(split, justify="right")
    for i, name in enumerate(dataset.class_names[:MOST_ROWS]):
        grid.add_row(Text(short(name)), *(str(counts[split][i]) for split in SPLITS))
    if len(dataset.class_names) > MOST_ROWS:
        grid.add_row(f"and {len(dataset.class_names) - MOST_ROWS} more", "", "", "")
    grid.add_section()
    grid.add_row(f"all {len(dataset.class_names)} classes", *(str(sum(counts[split].values())) for split in SPLITS))
    grid.add_row("image files", *(str(len(getattr(dataset, split))) for split in SPLITS))
    console.print(grid)
    if found.looks:
        least, median, most = found.sizes
        console.print(f"longer sides: {least} to {most} px, median {median}")
        modes = Counter(f"{look.format} {look.mode}".strip() for look in found.looks)
        console.print("files: " + ", ".join(f"{count} {kind}" for kind, count in modes.most_common()), markup=False)
    for reason, count in {**layout.left_out, **dataset.notes}.items():
        console.print(counted(count, reason), markup=False)
    for remark in dict.fromkeys((*layout.remarks, *dataset.remarks)):
        console.print(remark, markup=False)


def print_findings(found: FolderCheck, layout: Layout, console: Console) -> None:
    """Faults, then warnings, each in a sentence."""
    if not found.faults and not found.warnings:
        noted = layout.left_out or (found.dataset is not None and found.dataset.notes)
        console.print(f"Nothing {'else ' if noted else ''}is wrong with it that could be found.")
    for kind, lines in (("fault", found.faults), ("look at", found.warnings)):
        for line in lines:
            console.print(f"{kind}: {line}", markup=False)


def print_settings(choice: Choice, console: Console) -> None:
    """Settings with their reasons, and where they are kept."""
    grid = Table(box=box.SIMPLE_HEAD, title="settings of the experiment", title_justify="left", padding=(0, 1, 0, 0))
    grid.add_column("setting")
    grid.add_column("because", overflow="fold")
    for row in choice.settings:
        grid.add_row(Text(row.override), Text(row.why))
    console.print(grid)
    if choice.file is not None:
        console.print(f"kept in {choice.file}; a key on the command line wins", markup=False)
    if choice.note:
        console.print(choice.note, markup=False)


def probed_gflops(prior: "Prior", config: PriorConfig) -> float:
    """GFLOP/s that this machine reaches in the prior's U-Net: those of the fastest pass, as it may be busy.

    Small images come in batches of up to 64, as samplers give them: with four of them a core reaches a fraction of it.
    """
    import torch

    side, batch = config.image_size // prior.vae_factor, min(max(PROBE_PIXELS // config.image_size**2, 4), 64)
    z = torch.zeros(batch, prior.unet.config.in_channels, side, side, device=prior.device)
    text = prior.embed(["a photo"])
    fastest = math.inf
    with prior.sampling(batch):
        for _ in range(PROBE_PASSES):
            started = time.perf_counter()
            prior.predict_noise(z, 1, text).sum().item()
            fastest = min(fastest, time.perf_counter() - started)
    return batch * unet_gflop(config.image_size, config.path == TINY) / fastest


def cost_lines(cost: Cost, gpu: str, gflops: float | None) -> list[str]:
    """Hours of an experiment on this machine and on a named GPU."""
    tflop = sum(cost.tflop.values())
    work = f"{cost.to_make['generate']:,} images to make, {cost.to_make['train']:,} runs to train, {tflop:,.0f} TFLOP"
    lines = [f"cost of all of it: {work}"]
    if gflops is not None:
        lines.append(
            f"here: about {duration(tflop * 1000 / gflops / 3600)}, at {gflops:,.3g} GFLOP/s measured in the prior's U-Net"
        )
    spent = sum(cost.hours(gpu).values())
    shares = f"at {USE:.0%} of its half-precision rate, {TRAIN_USE:.0%} in training"
    rest = "starting the runs, reading and scoring images come on top"
    return [*lines, f"on one {gpu.upper()}: about {duration(spent)} of arithmetic, {shares}; {rest}"]
