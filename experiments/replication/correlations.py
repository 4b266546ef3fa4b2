"""Do quality measures of generated images say whether they help? ``python experiments/replication/correlations.py outputs``.

A cell is the pools of a generator at a number of images per class. Its gain is the mean difference in test accuracy to the run
without generated images of the same seed, over all settings that trained with these pools (alpha, augmentation, model); its
measures are the means over the pools of two seeds, all on pixels. Printed and written
beside the records: Spearman's rank correlation between each measure and the gain over all cells, and within each number of
images per class. Without an argument the cells that are written already are read.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from genaug.core.store import Store
from genaug.evaluation.agreement import label_agreement
from genaug.evaluation.quality import measure
from genaug.runs.collection import read_results
from genaug.runs.pools import dataset_of, pool_of

LEAST_SEEDS = 4
MEASURED = 2
"""Seeds whose pools are measured."""
NUM_PERMUTATIONS = 9999
METRIC, FEATURES = "test/accuracy_macro", "pixels"
CELLS = Path(__file__).parents[1] / "results" / "replication" / "correlations.csv"
PAGE = CELLS.with_suffix(".md")


def trial(result: dict[str, Any]) -> tuple[Any, ...]:
    """What a run shares with the run without generated images that it is paired with."""
    names, config = result["names"], result["config"]
    return (names["dataset"], config["dataset"]["shots"], names["augment"], names["downstream"], result["seed"])


def cells(outputs: Path) -> list[dict[str, Any]]:
    """Every pool that runs of enough seeds trained with: gain, settings and runs, measures."""
    results = [r for r in read_results(sorted((outputs / "runs").iterdir())) if METRIC in r["metrics"]]
    baselines = {trial(r): r["metrics"][METRIC] for r in results if r["names"]["generator"] == "none"}
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["pool"] and trial(result) in baselines and result["names"]["generator"] != "control":
            found.setdefault(result["setting"], []).append(result)
    shared: dict[tuple[Any, ...], list[list[dict[str, Any]]]] = {}
    for members in found.values():
        if len(members) >= LEAST_SEEDS:
            members = sorted(members, key=lambda result: result["seed"])
            pools = [result["pool"] for result in members[:MEASURED]]
            shared.setdefault((members[0]["config"]["mix"]["m"], *pools), []).append(members)
    rows = []
    for settings in shared.values():
        gains = [r["metrics"][METRIC] - baselines[trial(r)] for members in settings for r in members]
        measures = measured(settings[0][:MEASURED], outputs)
        config = settings[0][0]["config"]
        names = settings[0][0]["names"]
        rows.append({
            "generator": names["generator"], "leakage": names["leakage"], "t0": config["generator"].get("t0", ""),
            "m": config["mix"]["m"], "shots": config["dataset"]["shots"], "settings": len(settings), "runs": len(gains),
            "gain": float(np.mean(gains)), **measures,
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["shots"], row["generator"], row["leakage"], str(row["t0"]), row["m"]))


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


def correlation(groups: list[list[tuple[float, float]]]) -> str:
    """Spearman's rho of pairs (measure, gain) that are ranked within their group, and its permutation p."""
    ranks = [(centred([x for x, _ in group]), centred([y for _, y in group])) for group in groups]
    gain = np.concatenate([y for _, y in ranks])

    def rho(parts: list[np.ndarray]) -> float:
        x = np.concatenate(parts)
        return float(x @ gain / max(np.linalg.norm(x) * np.linalg.norm(gain), 1e-12))

    rng = np.random.default_rng(0)
    found = rho([x for x, _ in ranks])
    chance = [abs(rho([rng.permutation(x) for x, _ in ranks])) >= abs(found) - 1e-12 for _ in range(NUM_PERMUTATIONS)]
    p = (1 + sum(chance)) / (1 + NUM_PERMUTATIONS)
    return f"{found:+.2f} ({f'p = {p:.3f}' if p >= 0.001 else 'p < 0.001'})"


def centred(values: list[float]) -> np.ndarray:
    """Ranks in [-1, 1]."""
    return 2 * (rankdata(values) - 1) / max(len(values) - 1, 1) - 1


def table(rows: list[dict[str, Any]]) -> str:
    """A line per measure, over the cells that have it: all, within the numbers of images per class, and at the one with most
    cells. One variant of an image has no distance to others."""
    groups = [[row for row in rows if row["shots"] == shots] for shots in dict.fromkeys(row["shots"] for row in rows)]
    largest = max(groups, key=len)
    heads = [
        f"all {len(rows)} cells",
        "ranked within each number of images",
        f"{largest[0]['shots']} per class ({len(largest)} cells)",
    ]
    lines = [f"| measure | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    names = list(rows[0])
    for name in names[names.index("gain") + 1 :]:
        parts = [
            [[(float(row[name]), float(row["gain"])) for row in group if row[name]] for group in some]
            for some in ([rows], groups, [largest])
        ]
        lines.append(f"| {name} | {' | '.join(map(correlation, parts))} |")
    return "\n".join(lines) + "\n"


def main(outputs: Path | None) -> None:
    """Measure the cells of ``outputs``, or take those that are written already."""
    if outputs is not None:
        rows = cells(outputs)
        with CELLS.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    with CELLS.open(newline="") as file:
        PAGE.write_text(table(list(csv.DictReader(file))))
    print(PAGE.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
