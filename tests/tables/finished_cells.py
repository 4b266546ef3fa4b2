"""A small experiment and results in the format of ``run.finish``, made by hand."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genaug.runs.cell import Cell, setting_fingerprint
from genaug.tables.sweep import PlannedCell, Sweep, look_up

EXPERIMENT: dict[str, Any] = {
    "defaults": [{"override /dataset": "digits"}],
    "mix": {"m": 2},
    "hydra": {
        "mode": "MULTIRUN",
        "sweeper": {
            "params": {
                "generator": "none,real_guidance",
                "dataset.shots": "1,2",
                "mix.alpha": "0.5",
                "seed": "range(0,6)",
            }
        },
    },
    "smoke": {"hydra": {"sweeper": {"params": {"dataset.shots": "1"}}}},
    "table": {
        "title": "A small table",
        "rows": ["generator"],
        "columns": ["dataset.shots"],
        "metric": "test/accuracy_macro",
        "baseline": {"generator": "none"},
        "curve": {"over": "dataset.shots", "area": ["max"]},
        "labels": {"none": "baseline", "real_guidance": "Real Guidance"},
        "publication": {"source": "Paper, Fig. 1", "evidence": "figure", "tolerance": 0.02},
        "published": [
            {"where": {"generator": "none", "dataset.shots": 1}, "value": 0.5},
            {"where": {"generator": "real_guidance", "dataset.shots": 1}, "value": 0.9},
            {"where": {"generator": "none", "dataset.shots": "area(max)"}, "value": 0.3},
        ],
        "notes": ["Steps: 50 instead of 1000."],
    },
}


def write_experiment(project: Path, content: dict[str, Any], item: str = "paper/item") -> None:
    path = project / "experiments" / f"{item}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# @package _global_\n" + yaml.safe_dump(content))


def finish(cell: PlannedCell, outputs: Path, accuracy: float, **changes: Any) -> Path:
    """Publish a result as ``run.finish`` does, with predictions on 40 test images of 4 classes."""
    assert cell.config is not None
    real = Cell.of(cell.config, cell.overrides)
    folder = outputs / "runs" / f"{real.slug}-{real.fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    has_pool = bool(cell.config.pool_size)
    result = {
        "cell": folder.name,
        "fingerprint": real.fingerprint,
        "setting": setting_fingerprint(cell.config),
        "names": real.names,
        "seed": cell.config.seed,
        "metric": "test/accuracy_macro",
        "metrics": {"test/accuracy_macro": accuracy, "test/accuracy_per_class": [accuracy] * 4},
        "protocol": {"select": "last", "oracle": False},
        "counts": {"images_generated": 20 * has_pool, "images_reused": 0, "network_evaluations": 500 * has_pool},
        "seconds": {"data": 0.5, "train": 9.5},
        "pool": "0123456789abcdef" if has_pool else None,
        "rejected": {},
        "artefacts": [],
        "source": type(cell.config.dataset).identity_name,
        "environment": {
            "versions": {"genaug": "0.1.0", "torch": "2.15.0"},
            "python": "3.11.9",
            "platform": "Linux",
            "cpu": "A CPU (2 cores)",
            "gpu": None,
            "git_revision": "abc",
        },
        "overrides": list(cell.overrides),
        "config": asdict(cell.config),
        **changes,
    }
    rows = [
        {"id": f"test/{i}", "target": i % 4, "predicted": i % 4 if i < round(40 * accuracy) else (i + 1) % 4}
        for i in range(40)
    ]
    (folder / "predictions.json").write_text(json.dumps(rows))
    (folder / "status.json").write_text(json.dumps({"state": "complete", "attempt": 0, "host": "h", "pid": 1}))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def accuracy(cell: PlannedCell) -> float:
    """Baseline near .5, the generator .1 above it, .2 more with two shots; a little noise per seed."""
    assert cell.config is not None
    noise = np.random.default_rng(cell.config.seed).normal(0, 0.005)
    gain = 0.1 + 0.002 * cell.config.seed if cell.config.generator.name != "none" else 0.0
    return float(0.5 + gain + 0.2 * ((cell.config.dataset.shots or 0) - 1) + noise)


def finish_all(sweep: Sweep, value: Callable[[PlannedCell], float] = accuracy) -> Sweep:
    """Complete every cell; the same sweep with its results."""
    for cell in sweep.cells:
        finish(cell, sweep.outputs, value(cell))
    look_up(sweep.cells, sweep.outputs / "runs")
    return sweep
