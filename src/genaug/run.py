"""One cell, from its data set to its result: the picture of the README in code.

dataset ─► split ─► generator.fit ─► generator.generate ─► pool ─► filter ─► mix ─► downstream ─► result
            prior ───────┘
Every stage may be answered from the store instead of being computed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genaug.core.files import write_json
from genaug.core.identity import fingerprint
from genaug.core.names import safe_name
from genaug.core.store import artefact, check_writable
from genaug.data.pool import Pool
from genaug.data.sample import Dataset
from genaug.data.splits import by_class
from genaug.data.summary import summary
from genaug.downstream.base import TrainingData
from genaug.drawing.contact_sheet import contact_sheet
from genaug.generators.publishing import make_pool
from genaug.generators.tokens.prompts import readable
from genaug.priors.recipe import train_prior
from genaug.runs.cell import Cell, Result, headline, setting_fingerprint
from genaug.runs.environment import check_libraries, describe_environment
from genaug.tracking.record import Record


def run(cell: Cell) -> Result:
    """Compute and publish the result of a cell (or read it, if another process published it meanwhile)."""
    cfg = cell.config
    if cfg.synthesises and cfg.generator.uses_prior and not cfg.paths.store.has_pools:
        cfg.prior.check_available()  # no earlier pool can do without the model, so its absence is said before the slow imports
    cfg.check()
    check_writable(cfg.paths.outputs)
    check_libraries()
    with cfg.paths.store.lock(cell.fingerprint):
        if (known := cell.result()) is not None:  # another process finished it meanwhile
            return known
        with cell.claim() as record:
            return compute(cell, record)


def compute(cell: Cell, record: Record) -> Result:
    """All stages of one cell, in order."""
    cfg = cell.config
    record.say(f"{cell.folder.name}")
    if cfg.task == "prior":
        with record.stage("train"):
            folder = train_prior(cfg.recipe, cfg.paths.outputs / "prior")
        record.say(f"trained: {folder}; use it with prior.path={folder}")
        return finish(cell, record, {}, Synthetic())

    with record.stage("data"):
        dataset = read(cell, record)
    synthetic = synthesise(cell, dataset, record)
    if cfg.task != "train":
        return finish(cell, record, {}, synthetic)

    with record.stage("train"):
        data = TrainingData(
            dataset=dataset,
            mix=cfg.mix,
            pool=synthetic.pool,
            augment=cfg.augment,
            interpolate=synthetic.interpolate,
        )
        outcome = cfg.downstream.train(data, cfg.trainer, cell.folder, record)
    synthetic.counts |= {"train_images": len(dataset.train), "test_images": len(dataset.test)}
    return finish(cell, record, outcome, synthetic)


def read(cell: Cell, record: Record) -> Dataset:
    """The data set of this trial; one that the downstream model cannot use is refused before anything is generated."""
    cfg = cell.config
    dataset = cfg.dataset.load()
    for line in summary(dataset):
        record.say(line)
    if cfg.task == "train":
        cfg.downstream.check_dataset(dataset)
    return dataset


@dataclass(kw_only=True, slots=True)
class Synthetic:
    """What a generator gives to training: a pool, or a batch augmentation (online generators), or nothing."""

    pool: Pool | None = None
    interpolate: Callable[..., Any] | None = None
    counts: dict[str, Any] = field(
        default_factory=lambda: {"images_generated": 0, "images_reused": 0, "network_evaluations": 0}
    )
    """Images and network evaluations of this call, and what the fit reports of itself."""


def synthesise(cell: Cell, dataset: Dataset, record: Record) -> Synthetic:
    """Erase, fit, generate and filter, as far as this cell's task and mix need them."""
    cfg = cell.config
    result = Synthetic()
    if not cfg.synthesises:
        return result
    cfg.generator.check_dataset(dataset)
    erasures: dict[str, Path] = {}
    if cfg.leakage.erasure is not None and cfg.generator.uses_prior:
        with record.stage("erase"):
            erasures, erase_counts = erase(cell, dataset, record)
        result.counts |= erase_counts
    with record.stage("fit"):
        fitted, fitted_fingerprint, fit_counts = fit(cell, dataset, erasures, record)
    result.counts |= fit_counts
    if cfg.task == "fit":
        return result
    if cfg.generator.online and cfg.task == "train":
        prior = load_prior(cell, erasures) if cfg.generator.uses_prior else None
        result.interpolate = cfg.generator.interpolate(fitted, dataset, prior, cfg.trainer.device())
        return result
    with record.stage("generate"):
        pool = generate(cell, dataset, erasures, fitted, fitted_fingerprint, record)
    if cfg.task == "train":
        with record.stage("filter"):
            pool = cfg.filter.apply(pool, dataset, cfg.paths.store, record.say)
    record.pool(pool.folder)
    result.counts |= pool.counts | {"images_rejected": sum(pool.rejected.values())}
    result.pool = pool
    return result


def erase(cell: Cell, dataset: Dataset, record: Record) -> tuple[dict[str, Path], dict[str, int]]:
    """Per class, the folder of the change of weights that erases its name from the prior; each is made once for all."""
    from genaug.priors.erasure import erase_into

    cfg = cell.config
    erasure = cfg.leakage.erasure
    assert erasure is not None
    folders: dict[str, Path] = {}
    evaluations = 0
    groups = by_class(dataset.train, len(dataset.class_names))
    for name in (name for name, group in zip(dataset.class_names, groups, strict=True) if group):

        def make(work: Path, name: str = name) -> dict[str, Any]:
            return erase_into(work, load_prior(cell, {}), readable(name), erasure)

        identity = fingerprint(cfg.prior.identity(), erasure, readable(name))
        folders[name], made = cfg.paths.store.folder("erasures", safe_name(name, "token"), identity, make)
        if made:
            about = artefact(folders[name])
            evaluations += about["network_evaluations"]
            record.say(f"erased {name!r}: loss {about['loss_first_tenth']:.4f} to {about['loss_last_tenth']:.4f}")
    return folders, {"erase_network_evaluations": evaluations}


def load_prior(cell: Cell, erasures: dict[str, Path]) -> Any:
    """The prior of a cell, which knows the erased U-Nets of its classes."""
    prior = cell.config.prior.load(cell.config.trainer.device())
    prior.erasures = erasures
    return prior


def fit(
    cell: Cell, dataset: Dataset, erasures: dict[str, Path], record: Record
) -> tuple[Path | None, str, dict[str, Any]]:
    """What the generator learned from this training set: its folder (None if it learns nothing), identity and cost.

    Facts that it states as ``diagnostics``, and its pictures, are recorded with every cell that uses it.
    """
    cfg = cell.config
    generator = cfg.generator
    identity = generator.fit_fingerprint(dataset, cfg.prior_identity())
    if not generator.fits:
        return None, identity, {"fit_network_evaluations": 0}

    def make(work: Path) -> dict[str, Any]:
        record.say(f"fitting {generator.name} on {len(dataset.train)} images")
        prior = load_prior(cell, erasures) if generator.uses_prior else None
        before = prior.num_evaluations if prior is not None else 0
        about = generator.fit(dataset, prior, work)
        # a fit that resumes states its evaluations itself, those of interrupted attempts included
        return {"network_evaluations": prior.num_evaluations - before if prior is not None else 0, **about}

    name = generator.component_name
    folder, made = cfg.paths.store.folder("fitted", name, identity, make)
    about = artefact(folder)
    for picture in sorted(folder.glob("*.png")):
        record.image(f"fit/{picture.stem}", picture)
    facts = about.get("diagnostics", {})
    if not made:
        record.say(f"fitted already: {folder.name}")
        return folder, identity, {"fit_network_evaluations": 0, **facts}
    record.seconds["fit"] = record.seconds.get("fit", 0.0) + about.get("seconds_before", 0.0)
    return folder, identity, {"fit_network_evaluations": about["network_evaluations"], **facts}


def generate(
    cell: Cell,
    dataset: Dataset,
    erasures: dict[str, Path],
    fitted: Path | None,
    fitted_fingerprint: str,
    record: Record,
) -> Pool:
    """The generator's images for this training set; those of an earlier run are reused."""
    cfg = cell.config
    pool = make_pool(
        store=cfg.paths.store,
        generator=cfg.generator,
        dataset=dataset,
        fitted=fitted,
        fitted_fingerprint=fitted_fingerprint,
        load_prior=lambda: load_prior(cell, erasures),
        num_variants=cfg.mix.m,
        say=record.say,
    )
    record.say(
        f"pool {pool.fingerprint}: {pool.counts['images_generated']} images generated, {pool.counts['images_reused']} reused, "
        f"{sum(pool.rejected.values())} rejected"
    )
    sheet = cell.folder / "gallery.png"
    contact_sheet(pool, dataset, num_sources=10, num_variants=min(cfg.mix.m, 8)).save(sheet)
    record.image("gallery", sheet)
    return pool


def finish(cell: Cell, record: Record, outcome: dict[str, Any], synthetic: Synthetic) -> Result:
    """Publish ``result.json`` and close the record."""
    pool, counts = synthetic.pool, synthetic.counts
    predictions = outcome.pop("predictions", None)
    if predictions is not None:
        write_json(cell.folder / "predictions.json", predictions)
    result: Result = {
        "cell": cell.folder.name,
        "fingerprint": cell.fingerprint,
        "setting": setting_fingerprint(cell.config),
        "names": cell.names,
        "seed": cell.config.seed,
        "metric": cell.config.downstream.metric,
        "metrics": outcome.get("metrics", {}),
        "protocol": outcome.get("protocol", {}),
        "counts": counts,
        "seconds": record.seconds,
        "pool": pool.fingerprint if pool is not None else None,
        "rejected": pool.rejected if pool is not None else {},
        "environment": describe_environment(),
        "overrides": list(cell.overrides),
        "config": cell.resolved,
    }
    numbers = {key: value for key, value in result["metrics"].items() if isinstance(value, int | float)}
    record.finish({**numbers, **counts, **{f"seconds/{k}": v for k, v in record.seconds.items()}})
    write_json(cell.folder / "result.json", result)
    record.say(f"complete: {cell.folder.name} {headline(result)}")
    return result
