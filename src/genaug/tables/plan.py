"""What an experiment would still cost: runs by state, what they share, forward passes, hours; without data or GPU.

The stages (``stages.py``) say what each run needs; here those that are missing are added up, each once. Where the data set
is on this machine its own images are counted; where it is not, a stand-in of the size that ``table.scale`` states.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genaug.config import RunConfig
from genaug.core.cost import GPUS, TRAIN_USE, USE, ForwardPasses, duration, hours
from genaug.core.errors import GenaugError
from genaug.core.identity import Texts, canonical, fingerprint
from genaug.core.paths import Paths
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source
from genaug.generators.base import Variant
from genaug.line import Line, line_of
from genaug.stages import UNET, VAE, Generate, Train
from genaug.tables.spec import TableSpec
from genaug.tables.sweep import PlannedCell, Sweep

STAND_IN = "stand-in for "
NOWHERE = "no outputs"  # a folder that does not exist: nothing is in its store
COUNTED = {"erase": "erasing", "fit": "fitting", "generate": "generating", "filter": "filtering", "train": "training"}
"""Stages that make something, and what a line of the plan calls them."""
UNITS = {"erase": "classes", "fit": "artefacts", "generate": "images", "filter": "pools", "train": "runs"}


@dataclass(kw_only=True, slots=True)
class Cost:
    """Work that is still to do, by stage."""

    to_make: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    """Distinct artefacts (classes erased, what generators learn, images, pools scored) and runs that are missing."""
    in_store: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    """Distinct artefacts that missing runs need and that are made already."""
    requested_images: int = 0
    """Images that all missing runs draw from, each run counted on its own."""
    pools: int = 0
    """Distinct pools that the missing runs read."""
    passes: dict[str, dict[str, int]] = field(default_factory=lambda: {stage: {} for stage in COUNTED})
    """Forward passes through each network, by stage and network."""
    tflop: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0.0))
    """Floating-point operations by stage, 1e12."""

    def add(self, stage: str, work: ForwardPasses, gflop: float) -> None:
        """Count forward passes of ``gflop`` each."""
        known = self.passes[stage]
        known[work.network] = known.get(work.network, 0) + work.count
        self.tflop[stage] += work.count * gflop * work.relative_cost / 1000

    def count(self, *stages: str) -> int:
        """Forward passes in these stages; those of the VAE apart, as a result counts its network evaluations."""
        return sum(n for stage in stages for network, n in self.passes[stage].items() if network != VAE)

    def hours(self, gpu: str, use: float = USE, train_use: float = TRAIN_USE) -> dict[str, float]:
        """Expected hours of each stage on a named GPU of whose rate these shares are reached."""
        return {s: hours(tflop, gpu, train_use if s == "train" else use) for s, tflop in self.tflop.items()}


@dataclass(kw_only=True, slots=True)
class Plan:
    sweep: Sweep
    states: dict[str, int]
    distinct_runs: int
    cost: Cost
    stand_ins: list[str] = field(default_factory=list)
    """Data sets that are not here and were replaced by their stated size."""
    uncounted: list[str] = field(default_factory=list)
    """What could not be counted, and what to write so that it can."""


def plan(sweep: Sweep, spec: TableSpec, use_data: bool = True) -> Plan:
    """Count what the runs that are not complete would need.

    Args:
        use_data: false takes the stand-in also where the data set is on this machine, so that every machine counts alike.
    """
    states: dict[str, int] = {}
    for cell in sweep.cells:
        states[cell.state] = states.get(cell.state, 0) + 1
    texts = Texts()
    identities = [_identity(cell, texts) for cell in sweep.cells]
    result = Plan(sweep=sweep, states=states, distinct_runs=len(set(identities)), cost=Cost())
    missing = {i: c.config for i, c in zip(identities, sweep.cells, strict=True) if c.config and c.state != "complete"}
    _Counter(result, _Datasets(result, spec, use_data), spec).add(missing.values())
    return result


def evaluations_alone(configs: Sequence[RunConfig], spec: TableSpec) -> list[int]:
    """Network evaluations that each of these runs would need with an empty store: what its gain costs on its own."""
    counts = []
    datasets: _Datasets | None = None
    for config in configs:
        empty = Plan(sweep=Sweep(item="", extra=(), cells=[], outputs=Path()), states={}, distinct_runs=1, cost=Cost())
        datasets = datasets or _Datasets(empty, spec, use_data=True)
        _Counter(empty, datasets, spec).add([replace(config, paths=Paths(outputs_dir=NOWHERE))])
        counts.append(empty.cost.count("erase", "fit", "generate"))
    return counts


def _identity(cell: PlannedCell, texts: Texts) -> Any:
    """The run's fingerprint; without the data, everything of it but their content."""
    config = cell.config
    if cell.fingerprint is not None or config is None:
        return cell.fingerprint or cell.overrides
    synthetic = [config.generator, config.mix] if config.pool_size or config.generator.online else []
    parts = [config.dataset, *synthetic, config.augment, config.downstream]
    return fingerprint(
        config.seed, *(texts.of("own fields", lambda part=part: canonical(part, read=False), part) for part in parts)
    )


class _Datasets:
    """The data set of each trial: every source is read once, and all its draws are taken from that."""

    def __init__(self, plan: Plan, spec: TableSpec, use_data: bool):
        self.plan, self.spec, self.use_data = plan, spec, use_data
        self.whole: dict[str, Dataset | None] = {}
        self.drawn: dict[tuple[str, bool], Dataset | None] = {}
        self.texts = Texts()

    def of(self, config: RunConfig) -> Dataset | None:
        """None where nothing says how large the data set is."""
        source = config.dataset
        learns_alone = not config.pool_size  # what an online generator learns costs the same on any data
        key = self.texts.of("source", lambda: canonical(source, read=False), source), learns_alone
        if key not in self.drawn:
            self.drawn[key] = self._draw(source, learns_alone)
        return self.drawn[key]

    def _draw(self, source: Source, learns_alone: bool) -> Dataset | None:
        whole = self._whole(source)
        if whole is not None:
            try:
                return source.draw(whole)
            except GenaugError:  # e.g. masks that are not here
                pass
        scale = self.spec.scale.get(source.name)
        if scale is None and learns_alone:
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
        return Source.draw(source, full)

    def _whole(self, source: Source) -> Dataset | None:
        if not (self.use_data or source.embedded):
            return None
        key = fingerprint(canonical(replace(source, shots=None, fraction=None, seed=0), read=False))
        if key not in self.whole:
            try:
                self.whole[key] = source.whole()
            except GenaugError:
                self.whole[key] = None
        return self.whole[key]


class _Counter:
    """Goes through the runs once and counts what differs."""

    def __init__(self, plan: Plan, datasets: _Datasets, spec: TableSpec):
        self.plan, self.datasets, self.spec, self.cost = plan, datasets, spec, plan.cost
        self.texts = Texts()
        self.lines: dict[tuple[int, ...], Line] = {}  # by the components that its stages come from
        self.seen: set[tuple[str, str]] = set()  # stages counted so far, by name and key
        self.pools: dict[str, tuple[Generate, int]] = {}  # by key, with the largest M that is asked for

    def add(self, configs: Iterable[RunConfig]) -> None:
        for config in configs:
            if config.task == "train":
                self.cost.to_make["train"] += 1
                self._add_work("train", Train(config=config).forward_passes(), config)
            if config.synthesises and (dataset := self.datasets.of(config)) is not None:
                line = self._line(config, dataset)
                if line.generate is not None:
                    stage, most = self.pools.get(line.generate.key, (line.generate, 0))
                    self.pools[line.generate.key] = stage, max(most, config.mix.m)
                    self.cost.requested_images += len(dataset.train) * config.mix.m
        self.cost.pools = len(self.pools)
        families: dict[str, list[tuple[Generate, int]]] = {}
        for stage, num_variants in self.pools.values():
            families.setdefault(stage.family, []).append((stage, num_variants))
        for family in families.values():
            self._add_images(family)

    def _line(self, config: RunConfig, dataset: Dataset) -> Line:
        """The stages of a run, whose artefacts are counted when they are first met."""
        parts = (dataset, config.generator, config.prior, config.leakage, config.filter)
        key = (*map(id, parts), config.task == "train")
        if key not in self.lines:
            self.lines[key] = line_of(config, dataset, self.texts)
            self._add_artefacts(self.lines[key], config)
        return self.lines[key]

    def _add_artefacts(self, line: Line, config: RunConfig) -> None:
        for stage in (*line.erase, line.fit, line.select):
            if stage is None or stage.place is None or (stage.name, stage.key) in self.seen:
                continue
            self.seen.add((stage.name, stage.key))
            if stage.place.exists():
                self.cost.in_store[stage.name] += 1
            else:
                self.cost.to_make[stage.name] += 1
                self._add_work(stage.name, stage.forward_passes(), config)

    def _add_images(self, family: list[tuple[Generate, int]]) -> None:
        """The images of pools that may share some; one that several ask for is counted once."""
        wanted: dict[str, Variant] = {}
        for stage, num_variants in family:
            wanted |= {variant.fingerprint: variant for variant in stage.images(num_variants)}
        first = family[0][0]
        known = first.config.paths.store.known(wanted)
        missing = [variant for name, variant in wanted.items() if name not in known]
        self.cost.to_make["generate"] += len(missing)
        self.cost.in_store["generate"] += len(wanted) - len(missing)
        self._add_work("generate", first.cost_of(missing), first.config)

    def _add_work(self, stage: str, passes: list[ForwardPasses], config: RunConfig) -> None:
        """Add forward passes; a network of unknown cost adds no hours, but a line to the plan."""
        for work in passes:
            gflop = self.spec.gflop.get(config.generator.name, work.gflop) if work.network == UNET else work.gflop
            if gflop is None:
                hint = f"{work.network} is not in FORWARD_GFLOP of genaug.core.cost: its hours are missing."
                if hint not in self.plan.uncounted:
                    self.plan.uncounted.append(hint)
            self.cost.add(stage, work, gflop or 0.0)


@functools.lru_cache(maxsize=8)
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
    """The plan, a line or two for each stage."""
    cost, sweep = found.cost, found.sweep
    total = len(sweep.cells)
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    lines = [sweep.command, f"runs         {total} combinations, {found.distinct_runs} distinct: {states}"]
    lines += [f"             {note}" for note in sweep.notes]
    reasons = dict.fromkeys(c.reason.splitlines()[0] for c in sweep.cells if c.reason and c.state != "complete")
    lines += [f"             {reason}" for reason in list(reasons)[:5]]
    spent = cost.hours(gpu, use, train_use)
    for stage, title in COUNTED.items():
        to_make, in_store = cost.to_make[stage], cost.in_store[stage]
        if not (to_make or in_store):
            continue
        text = f"{to_make:,} {UNITS[stage]} to make" + ("" if stage == "train" else f", {in_store:,} in the store")
        if stage == "generate":
            text += f"; {cost.pools} pools; made again for each run they would be {cost.requested_images:,}"
        lines.append(f"{title:<13}{text}")
        counts = ", ".join(f"{count:,} through {name}" for name, count in cost.passes[stage].items())
        if counts:
            lines.append(f"{'':<13}{counts}: {duration(spent[stage])}")
    lines.append(
        f"time         {duration(sum(spent.values()))} on one {gpu.upper()}, at {use:.0%} of its {GPUS[gpu.lower()]:.0f} "
        f"half-precision TFLOP/s (--use), {train_use:.0%} in training (--train-use); evaluations are not counted"
    )
    lines += [f"stand-in     {text}" for text in found.stand_ins]
    return "\n".join([*lines, *(f"not counted  {text}" for text in found.uncounted)])
