"""One cell, from its data set to its result: the picture of the README in code.

dataset ─► split ─► generator.fit ─► generator.generate ─► pool ─► mix ─► downstream ─► result
            prior ───────┘
Every stage may be answered from the store instead of being computed.
"""

from pathlib import Path
from typing import Any

from genaug.cell import Cell, Result, headline
from genaug.data.pool import Pool, make_pool
from genaug.data.sample import Dataset
from genaug.downstream.base import TrainingData
from genaug.environment import check_libraries, describe_environment
from genaug.gallery import contact_sheet
from genaug.priors.recipe import train_prior
from genaug.store import check_writable, read_json, write_json
from genaug.tracking import Record


def run(cell: Cell) -> Result:
    """Compute and publish the result of a cell (or read it, if another process published it meanwhile)."""
    check_writable(cell.config.paths.outputs)
    check_libraries()
    with cell.config.paths.store.lock(cell.fingerprint):
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
        return finish(cell, record, {}, {})

    with record.stage("data"):
        dataset = cfg.dataset.load()
        record.say(
            f"{dataset.name}: {len(dataset.train)} train, {len(dataset.val)} val, {len(dataset.test)} test images, "
            f"{len(dataset.class_names)} classes" + (f"; {dataset.notes}" if dataset.notes else "")
        )
    if cfg.task == "train":
        cfg.downstream.check_dataset(dataset)
    counts: dict[str, Any] = {"images_generated": 0, "images_reused": 0, "network_evaluations": 0}
    pool = None
    if cfg.pool_size or cfg.task in ("fit", "generate"):
        with record.stage("fit"):
            fitted, fitted_fingerprint, fit_counts = fit(cell, dataset, record)
        counts |= fit_counts
        if cfg.task != "fit":
            with record.stage("generate"):
                pool = generate(cell, dataset, fitted, fitted_fingerprint, record)
            counts |= pool.counts | {"images_rejected": sum(pool.rejected.values())}
    if cfg.task != "train":
        return finish(cell, record, {}, counts, pool)

    with record.stage("train"):
        data = TrainingData(dataset=dataset, mix=cfg.mix, pool=pool, augment=cfg.augment)
        outcome = cfg.downstream.train(data, cfg.trainer, cell.folder, record)
    counts |= {"train_images": len(dataset.train), "test_images": len(dataset.test)}
    return finish(cell, record, outcome, counts, pool)


def fit(cell: Cell, dataset: Dataset, record: Record) -> tuple[Path | None, str, dict[str, int]]:
    """What the generator learned from this training set: its folder (None if it learns nothing), identity and cost."""
    cfg = cell.config
    generator = cfg.generator
    identity = generator.fit_fingerprint(dataset, cfg.prior.identity() if generator.uses_prior else None)
    if not generator.fits:
        return None, identity, {"fit_network_evaluations": 0}

    def make(work: Path) -> dict[str, Any]:
        record.say(f"fitting {generator.name} on {len(dataset.train)} images")
        prior = cfg.prior.load(cfg.trainer.device()) if generator.uses_prior else None
        before = prior.num_evaluations if prior is not None else 0
        about = generator.fit(dataset, prior, work)
        return {**about, "network_evaluations": prior.num_evaluations - before if prior is not None else 0}

    name = type(generator).__name__.lower()
    folder, made = cfg.paths.store.folder("fitted", name, identity, make)
    if not made:
        record.say(f"fitted already: {folder.name}")
        return folder, identity, {"fit_network_evaluations": 0}
    return folder, identity, {"fit_network_evaluations": read_json(folder / "artefact.json")["network_evaluations"]}


def generate(cell: Cell, dataset: Dataset, fitted: Path | None, fitted_fingerprint: str, record: Record) -> Pool:
    """The generator's images for this training set; those of an earlier run are reused."""
    cfg = cell.config
    pool = make_pool(
        store=cfg.paths.store,
        generator=cfg.generator,
        dataset=dataset,
        fitted=fitted,
        fitted_fingerprint=fitted_fingerprint,
        load_prior=lambda: cfg.prior.load(cfg.trainer.device()),
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


def finish(
    cell: Cell, record: Record, outcome: dict[str, Any], counts: dict[str, Any], pool: Pool | None = None
) -> Result:
    """Publish ``result.json`` and close the record."""
    predictions = outcome.pop("predictions", None)
    if predictions is not None:
        write_json(cell.folder / "predictions.json", predictions)
    environment = describe_environment()
    result: Result = {
        "cell": cell.folder.name,
        "fingerprint": cell.fingerprint,
        "names": cell.names,
        "seed": cell.config.seed,
        "metric": cell.config.downstream.metric,
        "metrics": outcome.get("metrics", {}),
        "protocol": outcome.get("protocol", {}),
        "counts": counts,
        "seconds": record.seconds,
        "pool": pool.fingerprint if pool is not None else None,
        "rejected": pool.rejected if pool is not None else {},
        "environment": environment,
        "overrides": list(cell.overrides),
        "config": cell.resolved,
    }
    numbers = {key: value for key, value in result["metrics"].items() if isinstance(value, int | float)}
    record.finish({**numbers, **counts, **{f"seconds/{k}": v for k, v in record.seconds.items()}})
    write_json(cell.folder / "result.json", result)
    record.say(f"complete: {cell.folder.name} {headline(result)}")
    return result
