"""Rebuild the W&B runs of an experiment from the local record, which is the truth.

Ids are the runs' fingerprints and everything is written in the record's own order, so a second sync writes the same runs
again and makes no duplicates.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.files import read_json, read_rows
from genaug.core.store import Store
from genaug.data.detections import Detections
from genaug.data.images import decode
from genaug.data.packed import TABLE
from genaug.data.pool import ACCEPTED, images_of, manifest_rows
from genaug.data.sample import Boxes
from genaug.tracking.wandb_run import run_tags, start_run, wandb_mode

COLUMNS = ("source", "variant", "source id", "index", "t0", "label", "prompt", "rejected", "seconds", "scores")
PICTURES = ("gallery", "detections", "prior_check")
MAX_ROWS = 200  # images of one pool's table


def sync(
    results: Iterable[dict[str, Any]],
    outputs: Path,
    group: str,
    project: str,
    entity: str | None = None,
    verdict: str = "",
) -> list[str]:
    """Write one W&B run per result, online or offline as ``WANDB_MODE`` and the login say; returns the run ids.

    Args:
        verdict: what the runs of the group say together; stands in the summary of each.

    Raises:
        GenaugError: if W&B cannot be reached.
    """
    import wandb

    ids = []
    for result in results:
        folder = outputs / "runs" / result["cell"]
        run = start_run(
            mode=wandb_mode(),
            project=project,
            entity=entity,
            group=group,
            job_type=result["config"]["task"],
            name=result["cell"].rpartition("-")[0],
            id=result["fingerprint"],
            tags=run_tags(
                result["names"], group if result["config"]["experiment"] else None, result["config"]["tracking"]["tags"]
            ),
            config={**result["config"], "fingerprint": result["fingerprint"]},
            dir=str(outputs),
        )
        if not run.resumed:  # the server already has the history of a resumed run: logging it again would double it
            for row in read_rows(folder / "metrics.jsonl"):
                run.log(row)
            for name in PICTURES:
                if (folder / f"{name}.png").exists():
                    run.log({name: wandb.Image(str(folder / f"{name}.png"))})
            if result["pool"] is not None:
                log_pool(run, Store(outputs / "store").pool(result["pool"]), result["counts"]["images_generated"] > 0)
        run.summary.update({**summary_of(result), **({"verdict": verdict} if verdict else {})})
        run.finish()
        ids.append(run.id)
    return ids


def summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """Flat numbers and names that sort and group well in W&B's run table; the same while a run runs and after a sync."""
    numbers = {key: value for key, value in result["metrics"].items() if isinstance(value, int | float)}
    seconds = {f"seconds/{key}": value for key, value in result["seconds"].items()}
    return {
        **numbers,
        **result["counts"],
        **seconds,
        **levels(result["names"], result["config"], has_pool=result["pool"] is not None),
        **({"prior_check": result["prior_check"]} if result.get("prior_check") else {}),
        "oracle": oracle(result),
    }


def levels(names: Mapping[str, str], config: Mapping[str, Any], has_pool: bool) -> dict[str, Any]:
    """What runs are grouped by: ``name/<component>``, the seed, and ``alpha``, ``m``, ``t0``, ``shots`` where they matter."""
    keys = {"alpha": ("mix", "alpha"), "m": ("mix", "m"), "shots": ("dataset", "shots"), "t0": ("generator", "t0")}
    used = {"dataset", "mix", "generator"} if has_pool else {"dataset"}
    swept = {
        name: config[group][key]
        for name, (group, key) in keys.items()
        if group in used and config[group].get(key) is not None
    }
    return {**{f"name/{kind}": name for kind, name in names.items()}, **swept, "seed": config["seed"]}


def oracle(result: dict[str, Any]) -> bool:
    """Whether the test split chose what is reported."""
    return bool(result["protocol"].get("oracle"))


def log_pool(run: Any, folder: Path, is_new: bool) -> None:
    """A pool as a table, and as an artifact that the run has made (``is_new``) or used; nothing where the pool is gone.

    The artifact holds the manifest, not the images: they lie in the store. A run that is offline cannot say what it used.
    """
    import wandb

    rows = manifest_rows(folder, MAX_ROWS)
    if not rows:
        return
    run.log({"pool": pool_table(folder, rows)})
    artefact = wandb.Artifact(f"pool-{folder.name}", "pool", metadata={"folder": str(folder)})
    artefact.add_file(str(folder / (TABLE if (folder / TABLE).exists() else ACCEPTED)))
    if is_new:
        run.log_artifact(artefact)
    elif not run.offline:
        run.use_artifact(artefact)


def pool_table(folder: Path, rows: Sequence[dict[str, Any]]) -> Any:
    """A ``wandb.Table`` of rows of a pool's manifest with their pictures."""
    import wandb

    table = wandb.Table(columns=list(COLUMNS))
    scores = _scores(folder)
    classes = sorted({item["category"] for row in rows for item in row.get("objects", [])})
    for row, image in zip(rows, images_of(folder, rows), strict=True):
        picture = wandb.Image(
            decode(image)[0],
            boxes=boxes_of({"synthetic": _objects(row, classes)}, classes) if classes else None,
        )
        source = row["source_id"].rpartition("/")[2]
        objects = [item["category"] for item in row.get("objects", [])]
        label = ", ".join([*(f"{name} {weight:g}" for name, weight in row["label"].items()), *objects])
        cells = (row.get("t0"), label, row.get("prompt"), row["rejected"], row["seconds"])
        table.add_data(source, picture, row["source_id"], row["index"], *cells, scores.get(row["fingerprint"]))
    return table


def boxes_of(sets: Mapping[str, Boxes | Detections | None], names: Sequence[str]) -> dict[str, Any]:
    """Sets of boxes (``ground truth``, ``prediction``, ``synthetic``) as ``wandb.Image`` takes them.

    Args:
        sets: None where an image has no annotation.
        names: every class of the data set; pictures of one table must share them.
    """
    return {
        key: {"class_labels": dict(enumerate(names)), "box_data": [] if boxes is None else _box_data(boxes, names)}
        for key, boxes in sets.items()
    }


def _box_data(boxes: Boxes | Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    if isinstance(boxes, Detections):
        notes = [f" {score:.2f}" for score in boxes.scores.tolist()]
        more = [{"scores": {"score": score}} for score in boxes.scores.tolist()]
    else:
        notes = [" (crowd)" if crowd else "" for crowd in boxes.crowd.tolist()]
        more = [{} for _ in notes]
    return [
        {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), corners, strict=True)),
            "domain": "pixel",
            "class_id": label,
            "box_caption": f"{names[label]}{note}",
            **scores,
        }
        for corners, label, note, scores in zip(boxes.xyxy.tolist(), boxes.labels.tolist(), notes, more, strict=True)
    ]


def _objects(row: dict[str, Any], classes: Sequence[str]) -> Boxes:
    """Boxes of a manifest row, from x, y, width, height."""
    objects = row.get("objects", [])
    xywh = np.asarray([item["bbox"] for item in objects], dtype=np.float64).reshape(-1, 4)
    return Boxes(
        xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=np.asarray([classes.index(item["category"]) for item in objects], dtype=np.int64),
        crowd=np.asarray([item["crowd"] for item in objects], dtype=bool),
    )


def _scores(folder: Path) -> dict[str, str]:
    """Scores of every filter that has seen the pool, by image."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "scores").glob("*.json")):
        name = path.stem.rpartition("-")[0]
        for image, score in (read_json(path) or {}).items():
            found.setdefault(image, []).append(f"{name} {score:.4g}")
    return {image: ", ".join(texts) for image, texts in found.items()}
