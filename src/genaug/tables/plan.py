"""What an experiment would still cost: cells by state, what they share, network evaluations, hours; without data or GPU.

Where the data set is on this machine its own images are counted; where it is not, a stand-in of the size that the
experiment's ``table.scale`` states.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genaug.config import RunConfig
from genaug.core.cost import GPUS, TRAIN_USE, USE, ForwardPasses, hours, unet_gflop, vae_gflop
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical, fingerprint
from genaug.core.names import safe_name
from genaug.core.paths import Paths
from genaug.data.sample import Dataset, Sample
from genaug.data.splits import few_shot, fraction_of
from genaug.generators.base import Variant
from genaug.generators.publishing import pool_identity
from genaug.generators.tokens.prompts import readable
from genaug.priors.config import TINY
from genaug.tables.spec import TableSpec
from genaug.tables.sweep import PlannedCell, Sweep

STAND_IN = "stand-in for "
NOWHERE = "no outputs"  # a folder that does not exist: nothing is in its store
STAGES = ("erase", "fit", "generate", "train")


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
    trainings: int = 0
    """Distinct cells that train a downstream model."""
    passes: dict[str, dict[str, int]] = field(default_factory=lambda: {stage: {} for stage in STAGES})
    """Images through each network, by stage and network."""
    tflop: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Floating-point operations by stage, 1e12."""

    def add(self, stage: str, work: ForwardPasses, gflop: float) -> None:
        """Count passes whose forward costs ``gflop``."""
        known = self.passes[stage]
        known[work.network] = known.get(work.network, 0) + work.count
        self.tflop[stage] += work.count * gflop * work.relative_cost / 1000

    def count(self, *stages: str) -> int:
        """Images through networks in these stages."""
        return sum(sum(self.passes[stage].values()) for stage in stages)

    def hours(self, gpu: str, use: float = USE, train_use: float = TRAIN_USE) -> dict[str, float]:
        """Expected hours of each stage on a named GPU of whose rate these shares are reached."""
        return {s: hours(tflop, gpu, train_use if s == "train" else use) for s, tflop in self.tflop.items()}


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


def plan(sweep: Sweep, spec: TableSpec, use_data: bool = True) -> Plan:
    """Count what the cells that are not complete would need.

    Args:
        use_data: false takes the stand-in also where the data set is on this machine, so that every machine counts alike.
    """
    states: dict[str, int] = {}
    for cell in sweep.cells:
        states[cell.state] = states.get(cell.state, 0) + 1
    result = Plan(
        sweep=sweep,
        states=states,
        distinct_cells=len({_identity(cell) for cell in sweep.cells}),
        cost=Cost(),
    )
    missing = {_identity(c): c.config for c in sweep.cells if c.config is not None and c.state != "complete"}
    _Counter(result, spec, use_data).add([config for config in missing.values() if config is not None])
    return result


def evaluations_alone(configs: Sequence[RunConfig], spec: TableSpec) -> list[int]:
    """Network evaluations that each of these cells would need with an empty store: what its gain costs on its own."""
    datasets: dict[str, Dataset | None] = {}
    counts = []
    for config in configs:
        empty = Plan(sweep=Sweep(item="", extra=(), cells=[], outputs=Path()), states={}, distinct_cells=1, cost=Cost())
        counter = _Counter(empty, spec, use_data=True)
        counter.datasets = datasets
        counter.add([replace(config, paths=Paths(outputs_dir=NOWHERE))])
        counts.append(empty.cost.count("erase", "fit", "generate"))
    return counts


def _identity(cell: PlannedCell) -> Any:
    """The cell's fingerprint; without the data, everything of it but their content."""
    config = cell.config
    if cell.fingerprint is not None or config is None:
        return cell.fingerprint or cell.overrides
    synthetic = [config.generator, config.mix] if config.pool_size or config.generator.online else None
    return fingerprint(config.seed, config.dataset, synthetic, config.augment, config.downstream)


class _Counter:
    """Goes through the cells once and counts what differs."""

    def __init__(self, plan: Plan, spec: TableSpec, use_data: bool):
        self.plan, self.spec, self.use_data, self.cost = plan, spec, use_data, plan.cost
        self.images: dict[str, dict[Any, Variant]] = {}  # by law, then by what differs under it
        self.configs: dict[str, RunConfig] = {}  # one for each law
        self.seen: dict[tuple[str, str], int] = {}  # variants counted so far, by generator with weights and by source
        self.fitted: set[str] = set()
        self.erased: set[str] = set()
        self.pools: set[str] = set()
        self.datasets: dict[str, Dataset | None] = {}

    def add(self, configs: Iterable[RunConfig]) -> None:
        for config in configs:
            self._add_training(config)
            if not (config.pool_size or config.generator.online):
                continue
            dataset = self._dataset(config)
            if dataset is not None:
                self._add_synthesis(config, dataset)
        for law, images in self.images.items():
            config = self.configs[law]
            self.cost.images += len(images)
            work = config.generator.forward_passes(list(images.values()))
            if work.count:
                self.cost.add("generate", work, self._gflop(config, work))
            if config.generator.uses_prior:
                self.cost.tflop["generate"] += len(images) * vae_gflop(*_size(config)) / 1000
        self.cost.pools = len(self.pools)

    def _add_training(self, config: RunConfig) -> None:
        if config.task != "train":
            return
        work = config.downstream.forward_passes()
        if config.generator.online:
            work = replace(work, count=work.count * config.generator.images_per_draw)
        self.cost.trainings += 1
        self.cost.add("train", work, self._gflop(config, work))

    def _add_synthesis(self, config: RunConfig, dataset: Dataset) -> None:
        generator, store = config.generator, config.paths.store
        if config.leakage.erasure is not None and generator.uses_prior:
            self._add_erasures(config, dataset)
        prior = config.prior_identity()
        fitted = generator.fit_fingerprint(dataset, prior)
        if generator.fits and fitted not in self.fitted:
            self.fitted.add(fitted)
            if (store.root / "fitted" / f"{generator.component_name}-{fitted}").exists():
                self.cost.known_fitted += 1
            else:
                self.cost.fitted += 1
                if (work := generator.fit_forward_passes(dataset)) is not None:
                    self.cost.add("fit", work, self._gflop(config, work))
        if config.pool_size:
            self._add_pool(config, dataset, fitted)

    def _add_erasures(self, config: RunConfig, dataset: Dataset) -> None:
        erasure = config.leakage.erasure
        assert erasure is not None
        for name in sorted({dataset.class_names[sample.class_index] for sample in dataset.train if sample.has_class}):
            identity = fingerprint(config.prior.identity(), erasure, readable(name))
            folder = config.paths.store.root / "erasures" / f"{safe_name(name, 'token')}-{identity}"
            if identity not in self.erased and not folder.exists():
                work = erasure.forward_passes(readable(name))
                self.cost.add("erase", work, self._gflop(config, work))
            self.erased.add(identity)

    def _add_pool(self, config: RunConfig, dataset: Dataset, fitted: str) -> None:
        generator = config.generator
        self.pools.add(pool_identity(generator, dataset, fitted))
        law = fingerprint(fitted, canonical(generator, stage="sample"), config.prior.image_size)
        whole = fingerprint(fitted, generator)
        self.configs.setdefault(law, config)
        self.cost.requested_images += len(dataset.train) * config.pool_size
        for source in dataset.train:
            for j in range(self.seen.get((whole, source.digest), 0), config.pool_size):
                self._add_image(config, dataset, source, j, fitted, self.images.setdefault(law, {}))
            self.seen[whole, source.digest] = max(self.seen.get((whole, source.digest), 0), config.pool_size)

    def _add_image(
        self, config: RunConfig, dataset: Dataset, source: Sample, j: int, fitted: str, known: dict[Any, Variant]
    ) -> None:
        draws = config.generator.draw(source, j, dataset)
        key = (source.digest, str(draws), j)
        if key in known:
            return
        # a generator that shares work among an image's variants asks for the source alone
        variant = Variant(source=source, index=j, draws=draws, fingerprint=f"{source.digest}-{j}")
        if not dataset.name.startswith(STAND_IN):
            variant = config.generator.variant_of(source, j, dataset, fitted)
            if config.paths.store.has_image(variant.fingerprint):
                self.cost.known_images += 1
                return
        known[key] = variant

    def _gflop(self, config: RunConfig, work: ForwardPasses) -> float:
        """GFLOP of one forward pass; 0, and a line in the plan, for a network that nobody counted."""
        if work.gflop is not None:
            return work.gflop
        if work.network == "U-Net":
            given = self.spec.gflop.get(config.generator.name)
            return unet_gflop(*_size(config)) if given is None else given
        hint = f"{work.network} is not in FORWARD_GFLOP of genaug.core.cost: its hours are missing."
        if hint not in self.plan.uncounted:
            self.plan.uncounted.append(hint)
        return 0.0

    def _dataset(self, config: RunConfig) -> Dataset | None:
        source = config.dataset
        key = fingerprint(source)
        if key not in self.datasets:
            self.datasets[key] = self._load(config)
        return self.datasets[key]

    def _load(self, config: RunConfig) -> Dataset | None:
        source = config.dataset
        scale = self.spec.scale.get(source.name)
        if self.use_data or source.embedded:
            try:
                return source.load()
            except GenaugError:
                pass
        if scale is None and not config.pool_size:  # what an online generator learns costs the same on any data
            return stand_in(source.name, source.task, num_classes=2, per_class=2)
        if scale is None:
            hint = f"{source.name} is neither on this machine nor under table.scale of the experiment: no image is counted."
            if hint not in self.plan.uncounted:
                self.plan.uncounted.append(hint)
            return None
        text = f"{source.name} ({scale.classes} classes, {scale.train} training images per class)"
        if text not in self.plan.stand_ins:
            self.plan.stand_ins.append(text)
        full = stand_in(source.name, source.task, scale.classes, max(scale.train, source.shots or 1))
        if source.shots is not None:
            return few_shot(full, source.shots, source.seed)
        return full if source.fraction is None else fraction_of(full, source.fraction, source.seed)


def _size(config: RunConfig) -> tuple[int, bool]:
    return config.prior.image_size, config.prior.path == TINY


def stand_in(name: str, task: str, num_classes: int, per_class: int) -> Dataset:
    """A data set of the right size without pixels: enough to count what distinct images a sweep asks for."""
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    train = tuple(
        Sample(id=f"{c}/{i}", digest=f"{c}/{i}", image=blank, label={c: 1.0})
        for c in range(num_classes)
        for i in range(per_class)
    )
    names = tuple(f"class {c}" for c in range(num_classes))
    return Dataset(name=f"{STAND_IN}{name}", task=task, class_names=names, train=train, val=(), test=())


def report_plan(found: Plan, gpu: str, use: float = USE, train_use: float = TRAIN_USE) -> str:
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
    spent = cost.hours(gpu, use, train_use)
    titles = {"erase": "erasing", "fit": "fitting", "generate": "generating", "train": "training"}
    for stage in STAGES:
        counts = ", ".join(f"{count:,} through {name}" for name, count in cost.passes[stage].items())
        beside = f" in {cost.trainings} cells" if stage == "train" else ""
        if counts:
            lines.append(f"{titles[stage]:<13}{counts}{beside}: {spent[stage]:.1f} h")
    lines.append(
        f"time         {sum(spent.values()):.1f} h on one {gpu.upper()}, at {use:.0%} of its {GPUS[gpu.lower()]:.0f} "
        f"half-precision TFLOP/s (--use), {train_use:.0%} in training (--train-use); evaluations are not counted"
    )
    lines += [f"stand-in     {text}" for text in found.stand_ins]
    return "\n".join([*lines, *(f"not counted  {text}" for text in found.uncounted)])
