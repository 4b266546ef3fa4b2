"""What an experiment would still cost: cells by state, what they share, network evaluations, hours; without data or GPU.

Where the data set is on this machine its own images are counted; where it is not, a stand-in of the size that the
experiment's ``table.scale`` states.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genaug.config import RunConfig
from genaug.data.sample import Dataset, Sample
from genaug.data.splits import few_shot, fraction_of
from genaug.errors import GenaugError
from genaug.generators.base import Variant
from genaug.identity import canonical, fingerprint
from genaug.tables.spec import TableSpec
from genaug.tables.sweep import PlannedCell, Sweep

UNET_GFLOP = {256: 180.0, 384: 423.0, 512: 803.0, 768: 2148.0}
"""One forward of the SD 1.x U-Net, by image side in pixels (FlopCounterMode, 1 MAC = 2 FLOP)."""
VAE_GFLOP = 1117.0 + 2515.0
"""Encode and decode of the SD VAE at 512 px."""
GPUS = {"h200": 790.0, "h100": 790.0, "a100": 312.0, "l40s": 362.0, "4090": 165.0, "3090": 71.0, "v100": 125.0}
"""Dense half-precision TFLOP/s: measured on a large product for the H200, from the data sheets for the others."""
STAND_IN = "stand-in for "
USE = 0.4
"""Share of that rate which batched sampling reaches."""


@dataclass(kw_only=True, slots=True)
class Cost:
    """Work that is still to do."""

    images: int = 0
    """Distinct synthetic images that no earlier cell has made."""
    known_images: int = 0
    """Distinct images that the store already holds."""
    requested_images: int = 0
    """Images that all missing cells draw from, each cell counted on its own."""
    fitted: int = 0
    """Distinct fitted artefacts that are not in the store."""
    known_fitted: int = 0
    pools: int = 0
    """Distinct pools that the missing cells read."""
    evaluations: int = 0
    """Network evaluations of generating the images."""
    fit_evaluations: int = 0
    tflop: float = 0.0

    def hours(self, gpu: str) -> float:
        """Expected hours on a named GPU at 40 % of its dense half-precision rate."""
        if gpu.lower() not in GPUS:
            raise GenaugError(f"gpu={gpu} is not known. Write one of {', '.join(GPUS)}.")
        return self.tflop / (GPUS[gpu.lower()] * USE) / 3600


@dataclass(kw_only=True, slots=True)
class Plan:
    sweep: Sweep
    states: dict[str, int]
    distinct_cells: int
    cost: Cost
    stand_ins: list[str] = field(default_factory=list)
    """Data sets that are not here and were replaced by their stated size."""
    uncounted: list[str] = field(default_factory=list)
    """What could not be counted, and what to write so that it can."""


def plan(sweep: Sweep, spec: TableSpec) -> Plan:
    """Count what the cells that are not complete would need."""
    states: dict[str, int] = {}
    for cell in sweep.cells:
        states[cell.state] = states.get(cell.state, 0) + 1
    result = Plan(
        sweep=sweep,
        states=states,
        distinct_cells=len({_identity(cell) for cell in sweep.cells}),
        cost=Cost(),
    )
    missing = [c for c in sweep.cells if c.config is not None and c.state != "complete" and c.config.pool_size]
    _Counter(result, spec).add(missing)
    return result


def _identity(cell: PlannedCell) -> Any:
    """The cell's fingerprint; without the data, everything of it but their content."""
    config = cell.config
    if cell.fingerprint is not None or config is None:
        return cell.fingerprint or cell.overrides
    synthetic = [config.generator, config.mix] if config.pool_size else None
    return fingerprint(config.seed, config.dataset, synthetic, config.augment, config.downstream)


class _Counter:
    """Goes through the cells once and counts what differs."""

    def __init__(self, plan: Plan, spec: TableSpec):
        self.plan, self.spec, self.cost = plan, spec, plan.cost
        self.images: dict[Any, tuple[Variant, RunConfig]] = {}
        self.seen: dict[tuple[str, str], int] = {}  # variants counted so far, by generator with weights and by source
        self.fitted: set[str] = set()
        self.pools: set[str] = set()
        self.datasets: dict[str, Dataset | None] = {}

    def add(self, cells: Iterable[PlannedCell]) -> None:
        for cell in cells:
            assert cell.config is not None
            dataset = self._dataset(cell.config)
            if dataset is not None:
                self._add_cell(cell.config, dataset)
        by_generator: dict[str, list[tuple[Variant, RunConfig]]] = {}
        for variant, config in self.images.values():
            by_generator.setdefault(fingerprint(config.generator, config.prior.image_size), []).append(
                (variant, config)
            )
        for members in by_generator.values():
            config = members[0][1]
            evaluations = config.generator.cost([variant for variant, _ in members])
            self.cost.images += len(members)
            self.cost.evaluations += evaluations
            if config.generator.uses_prior:
                self.cost.tflop += evaluations * self._gflop(config) / 1000
                self.cost.tflop += len(members) * VAE_GFLOP * (config.prior.image_size / 512) ** 2 / 1000
        self.cost.pools = len(self.pools)

    def _add_cell(self, config: RunConfig, dataset: Dataset) -> None:
        generator, store = config.generator, config.paths.store
        prior = config.prior.identity() if generator.uses_prior else None
        fitted = generator.fit_fingerprint(dataset, prior)
        if generator.fits and fitted not in self.fitted:
            self.fitted.add(fitted)
            if (store.root / "fitted" / f"{type(generator).__name__.lower()}-{fitted}").exists():
                self.cost.known_fitted += 1
            else:
                self.cost.fitted += 1
                spent = generator.fit_cost(dataset)
                self.cost.fit_evaluations += spent
                # a step of inversion is a forward and a backward pass to the embedding: 2.08 forwards
                self.cost.tflop += spent * 2.08 * self._gflop(config) / 1000 if generator.uses_prior else 0.0
        self.pools.add(fingerprint(fitted, generator, dataset.train_identity()))
        law, whole = fingerprint(fitted, canonical(generator, stage="sample")), fingerprint(fitted, generator)
        self.cost.requested_images += len(dataset.train) * config.pool_size
        for source in dataset.train:
            for j in range(self.seen.get((whole, source.digest), 0), config.pool_size):
                self._add_image(config, dataset, source, j, fitted, law)
            self.seen[whole, source.digest] = max(self.seen.get((whole, source.digest), 0), config.pool_size)

    def _add_image(self, config: RunConfig, dataset: Dataset, source: Sample, j: int, fitted: str, law: str) -> None:
        generator = config.generator
        draws = generator.draw(source, j, dataset)
        key = (law, source.digest, tuple(draws.items()), j)
        if key in self.images:
            return
        variant = Variant(source=source, index=j, draws=draws, fingerprint="")
        if not dataset.name.startswith(STAND_IN):
            variant = generator.variant(source, j, dataset, fitted)
            if config.paths.store.has_image(variant.fingerprint):
                self.cost.known_images += 1
                return
        self.images[key] = (variant, config)

    def _gflop(self, config: RunConfig) -> float:
        if config.generator.name in self.spec.gflop:
            return self.spec.gflop[config.generator.name]
        size = config.prior.image_size
        # between the measured sizes the cost follows the number of latent cells
        return UNET_GFLOP.get(size, UNET_GFLOP[512] * (size / 512) ** 2)

    def _dataset(self, config: RunConfig) -> Dataset | None:
        source = config.dataset
        key = fingerprint(source)
        if key not in self.datasets:
            self.datasets[key] = self._load(config)
        return self.datasets[key]

    def _load(self, config: RunConfig) -> Dataset | None:
        source = config.dataset
        try:
            return source.load()
        except (GenaugError, OSError, ImportError):
            pass
        scale = self.spec.scale.get(source.name)
        if scale is None:
            hint = f"{source.name} is neither on this machine nor under table.scale of the experiment: no image is counted."
            if hint not in self.plan.uncounted:
                self.plan.uncounted.append(hint)
            return None
        text = f"{source.name} ({scale.classes} classes, {scale.train} training images per class)"
        if text not in self.plan.stand_ins:
            self.plan.stand_ins.append(text)
        full = stand_in(source.name, scale.classes, max(scale.train, source.shots or 1))
        if source.shots is not None:
            return few_shot(full, source.shots, source.seed)
        return full if source.fraction is None else fraction_of(full, source.fraction, source.seed)


def stand_in(name: str, num_classes: int, per_class: int) -> Dataset:
    """A data set of the right size without pixels: enough to count what distinct images a sweep asks for."""
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    train = tuple(
        Sample(id=f"{c}/{i}", digest=f"{c}/{i}", image=blank, label={c: 1.0})
        for c in range(num_classes)
        for i in range(per_class)
    )
    names = tuple(f"class {c}" for c in range(num_classes))
    return Dataset(name=f"{STAND_IN}{name}", task="classification", class_names=names, train=train, val=(), test=())


def report_plan(found: Plan, gpu: str) -> str:
    """The plan as a paragraph per question."""
    cost, sweep = found.cost, found.sweep
    total = len(sweep.cells)
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    lines = [sweep.command, f"cells        {total} combinations, {found.distinct_cells} distinct: {states}"]
    reasons = dict.fromkeys(c.reason.splitlines()[0] for c in sweep.cells if c.reason and c.state != "complete")
    lines += [f"             {reason}" for reason in list(reasons)[:5]]
    lines.append(f"fitted       {cost.fitted} to make, {cost.known_fitted} in the store")
    lines.append(
        f"images       {cost.images:,} to make, {cost.known_images:,} in the store; {found.cost.pools} pools; "
        f"made for each cell anew they would be {cost.requested_images:,}"
    )
    lines.append(
        f"evaluations  {cost.evaluations:,} to generate, {cost.fit_evaluations:,} to fit (network evaluations)"
    )
    hours = cost.hours(gpu)
    lines.append(
        f"time         {hours:.1f} h on one {gpu.upper()} for fitting and generating, at {USE:.0%} of {GPUS[gpu.lower()]:.0f} "
        "TFLOP/s; training is not counted"
    )
    lines += [f"stand-in     {text}: not on this machine" for text in found.stand_ins]
    return "\n".join([*lines, *(f"not counted  {text}" for text in found.uncounted)])
