"""One run, from its data set to its result: the picture of the README in code.

dataset ─► split ─► generator.fit ─► generator.generate ─► pool ─► filter ─► mix ─► downstream ─► result
            prior ───────┘
Every stage may be answered from the store instead of being computed; ``stages.py`` says how each is found and made.
"""

import shutil
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from genaug.config import RunConfig
from genaug.core import secret
from genaug.core.claims import GARBAGE, REMOVES
from genaug.core.device import num_threads, use_threads
from genaug.core.errors import GenaugError
from genaug.core.files import write_json, write_sealed
from genaug.core.store import check_writable
from genaug.data.pool import Pool
from genaug.data.sample import Dataset
from genaug.data.summary import summary
from genaug.downstream.base import TrainingData
from genaug.drawing.contact_sheet import contact_sheet
from genaug.evaluation.prior_check import source_identity, stored_check
from genaug.following import followers
from genaug.generators.labelling.config import REASONS
from genaug.line import Line, line_of
from genaug.priors.config import TINY
from genaug.runs.cell import Cell, Result, headline, setting_fingerprint
from genaug.runs.environment import check_libraries, describe_environment
from genaug.spreading import helps, spread
from genaug.stages import Artefact, Erase, Fit, Generate, Select, Train, TrainPrior, WorkingPrior
from genaug.tracking.record import Record
from genaug.tracking.wandb_sync import summary_of


class _CallableModule(types.ModuleType):
    """``genaug.run`` is this module and the function of the public API at once."""

    def __call__(self, overrides: Sequence[str] = ()) -> Result:
        from genaug.api import run as run_overrides

        return run_overrides(overrides)


sys.modules[__name__].__class__ = _CallableModule


def run(cell: Cell) -> Result:
    """Compute and publish the result of a run (or read it, if another process published it meanwhile)."""
    cfg = cell.config
    secret.check_values(cell.resolved)
    if cfg.synthesises and cfg.generator.uses_prior and not cfg.paths.store.has_pools:
        cfg.prior.check_available()  # no earlier pool can do without the model, so its absence is said before the slow imports
    cfg.check()
    check_writable(cfg.paths.outputs)
    check_libraries()
    helps(cell)
    with cfg.paths.store.lock(cell.fingerprint):
        with cfg.paths.store.lock(GARBAGE, work=REMOVES):  # whoever removes garbage sees this run, or has ended
            pass
        if (known := cell.result()) is not None:  # another process finished it meanwhile
            return known
        with cell.claim() as record:
            return compute(cell, record)


@dataclass(kw_only=True, slots=True)
class Synthetic:
    """What a generator gives to training: a pool, or a batch augmentation (online generators), or nothing."""

    pool: Pool | None = None
    interpolate: Callable[..., Any] | None = None
    counts: dict[str, Any] = field(
        default_factory=lambda: {"images_generated": 0, "images_reused": 0, "network_evaluations": 0}
    )
    """Images and network evaluations of this call, and what the fit reports of itself."""
    warning: str | None = None
    """Why the prior cannot draw such images, where it cannot."""


def compute(cell: Cell, record: Record) -> Result:
    """All stages of one run, in order."""
    use_threads(cell.config.num_threads)
    record.say(cell.folder.name)
    if cell.config.task == "prior":
        return train_prior(cell, record)
    with record.stage("data"):
        dataset = read(cell.config, record)
    line = line_of(cell.config, dataset)
    needs = [place.relative_to(cell.config.paths.outputs).as_posix() for place in line.places]
    record.state(artefacts=needs)
    synthetic = synthesise(line, dataset, cell, record)
    outcome: dict[str, Any] = {}
    if line.train is not None:
        outcome = train(line.train, dataset, synthetic, cell, record)
    return finish(cell, record, outcome, synthetic, needs)


def train_prior(cell: Cell, record: Record) -> Result:
    """The whole of ``task=prior``."""
    stage = TrainPrior(config=cell.config)
    with record.stage(stage.name):
        folder = stage.make()
    record.say(f"trained: {folder}; use it with prior.path={folder}")
    return finish(cell, record, {}, Synthetic())


def read(cfg: RunConfig, record: Record) -> Dataset:
    """The data set of this trial; one that generator or downstream model cannot use is refused before anything is made."""
    dataset = cfg.dataset.load()
    for line in (*summary(dataset), *cfg.remarks()):
        record.say(line)
    if cfg.task == "train":
        cfg.downstream.check_dataset(dataset)
    if cfg.synthesises:
        cfg.generator.check_dataset(dataset)
    return dataset


def synthesise(line: Line, dataset: Dataset, cell: Cell, record: Record) -> Synthetic:
    """Erase, fit, generate and filter, as far as this run needs them."""
    result = Synthetic()
    prior = WorkingPrior(config=cell.config)
    if line.fit is not None and cell.config.generator.uses_prior:
        result.warning = look_at_prior(prior, dataset, cell, record)
    if line.erase:
        prior.erasures = erase(line.erase, result, record)
    if line.fit is None:
        return result
    fitted = fit(line.fit, prior, result, record)
    if line.interpolate is not None:
        with record.stage(line.interpolate.name):
            result.interpolate = line.interpolate.make(prior, fitted)
    if line.generate is not None:
        result.pool = generate(line.generate, line.select, prior, fitted, cell, record)
        result.counts |= result.pool.counts | {"images_rejected": sum(result.pool.rejected.values())}
        if result.pool.sharpness is not None:
            result.counts["sharpness_outside_boxes"] = round(result.pool.sharpness, 4)
    return result


def look_at_prior(prior: WorkingPrior, dataset: Dataset, cell: Cell, record: Record) -> str | None:
    """The prior check on data that the prior was not trained on: why it cannot draw such images, or None. Never fails a run."""
    cfg = cell.config
    if cfg.dataset.embedded and cfg.prior.path == TINY:
        return None
    try:
        with record.stage("check"):
            found, picture = stored_check(
                cfg.paths.store,
                cfg.prior,
                source_identity(cfg.dataset),
                dataset,
                prior.load,
                cfg.leakage.class_names,
            )
    except GenaugError as error:
        record.say(f"note: {error}")
        return None
    record.say(found.sentence)
    shutil.copyfile(picture, record.folder / picture.name)
    record.image(picture.stem, record.folder / picture.name)
    return None if found.can_draw else found.sentence


def erase(stages: list[Erase], result: Synthetic, record: Record) -> dict[str, Any]:
    """Per class, the folder of the change of weights that erases its name from the prior."""
    folders, evaluations = {}, 0
    with record.stage("erase"):
        for stage in stages:
            made = stage.make()
            folders[stage.concept] = made.folder
            evaluations += made.evaluations
            if made.is_new:
                losses = f"{made.about['loss_first_tenth']:.4f} to {made.about['loss_last_tenth']:.4f}"
                record.say(f"erased {stage.concept!r}: loss {losses}")
    result.counts["erase_network_evaluations"] = evaluations
    return folders


def fit(stage: Fit, prior: WorkingPrior, result: Synthetic, record: Record) -> Artefact:
    """What the generator learned; its ``diagnostics`` and pictures are recorded with every run that uses it."""
    with record.stage(stage.name):
        fitted = stage.make(prior, record.say)
    result.counts |= {"fit_network_evaluations": fitted.evaluations, **fitted.about.get("diagnostics", {})}
    if fitted.folder is None:
        return fitted
    for picture in sorted(fitted.folder.glob("*.png")):
        record.image(f"fit/{picture.stem}", picture)
    if fitted.is_new:
        record.add_seconds(fitted.about.get("seconds_before", 0.0))
    else:
        record.say(f"fitted already: {fitted.folder.name}")
    return fitted


def generate(
    stage: Generate,
    select: Select | None,
    prior: WorkingPrior,
    fitted: Artefact,
    cell: Cell,
    record: Record,
) -> Pool:
    """The pool that is trained on: all images that the generator accepts, without those that the filter rejects."""
    with record.stage(stage.name):
        others = spread(stage, prior, fitted, record.say) if cell.config.generation.workers > 1 else None
        pool = stage.make(prior, fitted, record.say)
        if others is not None:
            pool.counts["images_generated"] += others["made"]
            pool.counts["images_reused"] -= others["made"]
            pool.counts["network_evaluations"] += others["evaluations"]
        record.say(
            f"pool {pool.fingerprint}: {pool.counts['images_generated']} images generated, "
            f"{pool.counts['images_reused']} reused, {sum(pool.rejected.values())} rejected"
        )
        for reason, number in sorted(pool.rejected.items()):
            record.say(f"  rejected {number} as {reason}" + (f": {REASONS[reason]}" if reason in REASONS else ""))
        if pool.sharpness is not None:
            record.say(f"  outside the boxes the images have {pool.sharpness:.0%} of their sources' gradient")
        sheet = record.folder / "gallery.png"
        contact_sheet(pool, stage.dataset, num_sources=10, num_variants=min(cell.config.mix.m, 8)).save(sheet)
        record.image("gallery", sheet)
    if select is not None:
        with record.stage(select.name):
            pool = select.make(pool, record.say)
    record.pool(pool.folder, is_new=pool.counts["images_generated"] > 0)
    return pool


def train(stage: Train, dataset: Dataset, synthetic: Synthetic, cell: Cell, record: Record) -> dict[str, Any]:
    """Metrics, protocol and predictions of the downstream model."""
    cfg = cell.config
    data = TrainingData(
        dataset=dataset,
        mix=cfg.mix,
        pool=synthetic.pool,
        augment=cfg.augment,
        interpolate=synthetic.interpolate,
        store=cfg.paths.store,
    )
    synthetic.counts |= {"train_images": len(dataset.train), "test_images": len(dataset.test)}
    with record.stage(stage.name), followers(cell):
        outcome = stage.make(data, cell.folder, record)
    cfg.downstream.check_outcome(outcome)
    return outcome


def finish(
    cell: Cell, record: Record, outcome: dict[str, Any], synthetic: Synthetic, needs: Sequence[str] = ()
) -> Result:
    """Publish ``result.json`` and close the record."""
    cfg, pool, counts = cell.config, synthetic.pool, synthetic.counts
    predictions = outcome.pop("predictions", None)
    if predictions is not None:
        write_json(cell.folder / "predictions.json", predictions)
    result: Result = {
        "cell": cell.folder.name,
        "fingerprint": cell.fingerprint,
        "setting": setting_fingerprint(cfg),
        "names": cell.names,
        "seed": cfg.seed,
        "metric": cfg.downstream.metric,
        "metrics": outcome.get("metrics", {}),
        "protocol": outcome.get("protocol", {}),
        "counts": counts,
        "seconds": record.seconds,
        "pool": pool.fingerprint if pool is not None else None,
        "rejected": pool.rejected if pool is not None else {},
        "prior_check": synthetic.warning,
        "artefacts": list(needs),
        "source": type(cfg.dataset).identity_name,
        "environment": {**describe_environment(), "threads": num_threads()},
        "overrides": list(cell.overrides),
        "config": cell.resolved,
    }
    write_sealed(cell.folder / "result.json", result)
    record.finish(summary_of(result))
    record.say(f"complete: {cell.folder.name} {headline(result)}")
    return result
