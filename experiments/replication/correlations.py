"""Do quality measures of generated images say whether they help? ``python experiments/replication/correlations.py outputs``.

A cell is a setting at a number of images per class. Its gain is the mean difference in test accuracy to the run without
generated images of the same seed, its measures are the means over the pools of two seeds, all on pixels. Printed and written
beside the records: Spearman's rank correlation between each measure and the gain over all cells, and among those of one
number of images.
"""

import csv
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.stats import permutation_test, spearmanr

from genaug.core.store import Store
from genaug.evaluation.agreement import label_agreement
from genaug.evaluation.quality import measure
from genaug.runs.collection import read_results
from genaug.runs.pools import dataset_of, pool_of

LEAST_SEEDS = 4
MEASURED = 2
"""Seeds whose pools are measured."""
METRIC, FEATURES = "test/accuracy_macro", "pixels"
CELLS = Path(__file__).parents[1] / "results" / "replication" / "correlations.csv"
PAGE = CELLS.with_suffix(".md")


def trial(result: dict[str, Any]) -> tuple[Any, ...]:
    """What a run shares with the run without generated images that it is paired with."""
    names, config = result["names"], result["config"]
    return (names["dataset"], config["dataset"]["shots"], names["augment"], names["downstream"], result["seed"])


def cells(outputs: Path) -> list[dict[str, Any]]:
    """Every setting with a pool: gain, number of seeds and measures."""
    results = [r for r in read_results(sorted((outputs / "runs").iterdir())) if METRIC in r["metrics"]]
    baselines = {trial(r): r["metrics"][METRIC] for r in results if r["names"]["generator"] == "none"}
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["pool"] and trial(result) in baselines and result["names"]["generator"] != "control":
            found.setdefault(result["setting"], []).append(result)
    rows = []
    for setting, members in found.items():
        if len(members) < LEAST_SEEDS:
            continue
        members = sorted(members, key=lambda result: result["seed"])
        gains = [result["metrics"][METRIC] - baselines[trial(result)] for result in members]
        measures = measured(members[:MEASURED], outputs)
        config = members[0]["config"]
        rows.append({
            "setting": setting, "generator": members[0]["names"]["generator"], "leakage": members[0]["names"]["leakage"],
            "t0": config["generator"].get("t0", ""), "alpha": config["mix"].get("alpha", ""),
            "shots": config["dataset"]["shots"], "n": len(gains), "gain": float(np.mean(gains)),
            **measures,
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["shots"], row["generator"], row["setting"]))


def measured(results: list[dict[str, Any]], outputs: Path) -> dict[str, float]:
    """The measures of the pools of these runs of one setting, on average."""
    samples, found = [], []
    for result in results:
        pool, dataset = pool_of(outputs, result, result["config"]["mix"]["m"])
        measures = measure(pool, dataset, Store(outputs / "store"), FEATURES)["measures"]
        found.append({name: value["value"] for name, value in measures.items()})
        samples += pool.samples
    whole = dataset_of({**result, "config": {"dataset": {**result["config"]["dataset"], "shots": None}}})
    agreement = label_agreement(samples, [*whole.train, *whole.val], FEATURES, outputs / "store")
    assert agreement is not None
    right, total = np.sum(list(agreement.by_strength.values()), axis=0)
    means = {name: float(np.mean([measures[name] for measures in found])) for name in found[0]}
    return means | {"label agreement": float(right / total)}


def correlation(x: list[float], y: list[float]) -> str:
    """Spearman's rho with its permutation p-value; empty for fewer than five cells or no spread."""
    if len(x) < 5 or len(set(x)) < 2:
        return ""

    def rho(values: Any) -> Any:
        return cast(Any, spearmanr(values, y)).statistic

    test = permutation_test((x,), rho, permutation_type="pairings", n_resamples=999, rng=np.random.default_rng(0))
    return f"{float(rho(x)):+.2f} (p = {test.pvalue:.3f})"


def table(rows: list[dict[str, Any]]) -> str:
    """A line per measure: over all cells, and among the cells of each number of images per class."""
    shots = sorted({int(row["shots"]) for row in rows})
    groups = [rows, *([row for row in rows if int(row["shots"]) == count] for count in shots)]
    heads = [
        f"all {len(rows)} cells",
        *(f"{count} per class ({len(g)})" for count, g in zip(shots, groups[1:], strict=True)),
    ]
    lines = [f"| measure | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    names = list(rows[0])
    for name in names[names.index("gain") + 1 :]:
        found = [correlation([float(r[name]) for r in group], [float(r["gain"]) for r in group]) for group in groups]
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


def main(outputs: Path) -> None:
    rows = cells(outputs)
    CELLS.parent.mkdir(parents=True, exist_ok=True)
    with CELLS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    PAGE.write_text(table(rows))
    print(PAGE.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
