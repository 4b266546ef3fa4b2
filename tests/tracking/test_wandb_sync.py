"""W&B's runs are rebuilt from the local record; what was written offline is read back."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Sample
from tests.tables.finished_cells import finish_all
from tests.tables.test_report import write_pool

wandb = pytest.importorskip("wandb")


HEADER, BLOCK = 7, 32768  # bytes; W&B's offline file is a LevelDB log behind a header of its own


def records(path: Path) -> Iterator[bytes]:
    """Payloads of a LevelDB log: blocks of 32 KiB, each record with checksum, length and kind (whole, first, middle, last)."""
    data = path.read_bytes()
    assert data[:4] in (b":W&B", b"")  # empty until the first flush
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # too little for a header: zeros to the block's end
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + HEADER + length > len(data):
            return  # not all of it is written yet
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


def read_offline(folder: Path) -> dict[str, Any]:
    """Run id, group, tags, history rows and summary of one offline run, by W&B's own record type."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"history": [], "summary": {}}
    path = next(folder.glob("run-*.wandb"))
    for _ in range(600):  # W&B's service closes the file shortly after the run has finished
        kinds = [wandb_internal_pb2.Record.FromString(data).WhichOneof("record_type") for data in records(path)]
        if "exit" in kinds:
            break
        time.sleep(0.1)
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["config"] = {item.key: json.loads(item.value_json) for item in run.config.update}
            found |= {"id": run.run_id, "group": run.run_group, "job_type": run.job_type, "tags": list(run.tags)}
        elif kind == "history":
            items = record.history.item
            found["history"].append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
        elif kind == "artifact":
            found["artefact"] = {c.path: Path(c.local_path) for c in record.artifact.manifest.contents}
        elif kind == "summary":
            updates = record.summary.update
            found["summary"] |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in updates}
    return found


def test_a_sync_writes_each_cell_once_under_its_fingerprint(
    project: Path, sweep_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genaug.tracking.wandb_sync import sync

    monkeypatch.setenv("WANDB_MODE", "offline")
    outputs = project / "outputs"
    sweep = finish_all(sweep_of())
    write_pool(outputs)
    chosen = [cell for cell in sweep.cells if cell.config and cell.config.dataset.shots == 1 and cell.config.seed == 0]
    results = [cell.result for cell in chosen if cell.result is not None]
    results[0]["config"]["tracking"]["tags"] = ["mine"]
    results[1]["config"]["experiment"] = None  # run by hand
    metrics = outputs / "runs" / results[0]["cell"] / "metrics.jsonl"
    metrics.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.0}\n')

    first = sync(results, outputs, "paper/item", "genaug", verdict="It cannot be told.")
    assert (
        sync(results, outputs, "paper/item", "genaug", verdict="It cannot be told.")
        == first
        == [result["fingerprint"] for result in results]
    )
    runs = [read_offline(folder) for folder in sorted((outputs / "wandb").glob("offline-run-*"))]
    assert {run["id"] for run in runs} == set(first)  # two syncs, the same ids
    by_id = {run["id"]: run for run in runs}
    baseline, generated = (by_id[result["fingerprint"]] for result in results)
    assert baseline["group"] == "paper/item" and baseline["job_type"] == "train"
    assert {"dataset:digits", "generator:none", "filter:none", "paper:paper"} <= set(baseline["tags"])
    assert [row["train/loss"] for row in baseline["history"] if "train/loss" in row] == [2.0, 1.0]
    assert baseline["summary"]["test/accuracy_macro"] == results[0]["metrics"]["test/accuracy_macro"]
    assert baseline["summary"]["verdict"] == "It cannot be told."
    assert generated["summary"]["name/generator"] == "real_guidance" and generated["summary"]["alpha"] == 0.5
    tables = [row for row in generated["history"] if "pool/_type" in row]
    assert [row["pool/_type"] for row in tables] == ["table-file"]
    assert (tables[0]["pool/nrows"], tables[0]["pool/ncols"]) == (20, 10)
    config = generated["config"]  # the keys by which the README groups
    assert config["generator"]["name"] == "real_guidance" and config["downstream"]["name"] == "classifier_tiny"
    assert (config["mix"]["alpha"], config["mix"]["m"], config["dataset"]["shots"]) == (0.5, 2, 1)
    assert "t0" in config["generator"]
    assert "alpha" not in baseline["summary"]  # it draws no synthetic image
    assert "mine" in baseline["tags"] and not any(tag.startswith("paper:") for tag in generated["tags"])


@pytest.mark.parametrize("source", ["pool", "detections"])
def test_boxes_arrive_with_their_classes_and_scores(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genaug.tracking.record import Record
    from genaug.tracking.wandb_run import WandbRun

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    run = wandb.init(project="genaug", dir=str(tmp_path), mode="offline", settings=settings)
    record = Record(tmp_path, [WandbRun(run)])
    picture = np.zeros((24, 32, 3), dtype=np.uint8)
    if source == "pool":
        Image.fromarray(picture).save(tmp_path / "0.png")
        two, one = ({"bbox": [2, 3, 10, 8], "category": name, "crowd": name == "one"} for name in ("two", "one"))
        row = {"file_name": "0.png", "fingerprint": "f", "source_id": "s", "index": 0, "label": {}, "rejected": None,
               "seconds": 0.1}  # fmt: skip
        rows = [{**row, "objects": objects} for objects in ([two], [one, two], [])]  # other classes, and none
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        record.pool(tmp_path, is_new=False)
    else:
        corners = np.array([[2, 3, 12, 11], [1, 3, 12, 10]], dtype=np.float32)
        truth = Boxes(xyxy=corners[:1], labels=np.array([1]), crowd=np.array([False]))
        found = Detections(xyxy=corners[1:], labels=np.array([0]), scores=np.array([0.75], dtype=np.float32))
        empty = Detections(xyxy=corners[:0], labels=np.array([], dtype=np.int64), scores=corners[:0, 0])
        samples = [Sample(id=f"{i}", digest="", image=picture, boxes=boxes) for i, boxes in enumerate((truth, None))]
        record.detections("test/boxes", list(zip(samples, (found, empty), strict=True)), ["one", "two"])
    record.finish({})
    folder = next((tmp_path / "wandb").glob("offline-run-*"))
    run_file = read_offline(folder)
    if source == "pool":  # a table carries its boxes inside its artefact
        rows = json.loads(run_file["artefact"]["pool.table.json"].read_text())["data"]
        drawn = [row[1]["boxes"]["synthetic"] for row in rows]
        assert [len(boxes) for boxes in drawn] == [1, 2, 0]
    else:
        drawn = [json.loads(path.read_text())["box_data"] for path in folder.rglob("*.boxes2D.json")]
    boxes = {box["box_caption"]: box for some in drawn for box in some}
    if source == "pool":
        assert set(boxes) == {"one (crowd)", "two"}
        assert (boxes["one (crowd)"]["class_id"], boxes["two"]["class_id"]) == (0, 1)
    else:
        assert set(boxes) == {"two", "one 0.75"} and boxes["one 0.75"]["scores"] == {"score": 0.75}
    assert boxes["two"]["position"] == {"minX": 2.0, "minY": 3.0, "maxX": 12.0, "maxY": 11.0}
    assert boxes["two"]["domain"] == "pixel"
