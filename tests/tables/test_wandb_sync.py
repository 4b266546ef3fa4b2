"""W&B's runs are rebuilt from the local record; what was written is read back by W&B's own reader."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tables.finished_cells import finish_all
from tests.tables.test_report import write_pool

wandb = pytest.importorskip("wandb")


def read_offline(folder: Path) -> dict[str, Any]:
    """Run id, group, tags, history rows, summary and names of logged tables of one offline run."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(next(folder.glob("run-*.wandb"))))
    found: dict[str, Any] = {"history": [], "summary": {}}
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {"id": run.run_id, "group": run.run_group, "job_type": run.job_type, "tags": list(run.tags)}
        elif kind == "history":
            items = record.history.item
            found["history"].append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
        elif kind == "summary":
            updates = record.summary.update
            found["summary"] |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in updates}
    return found


def test_a_sync_writes_each_cell_once_under_its_fingerprint(
    project: Path, sweep_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genaug.wandb_sync import sync

    monkeypatch.setenv("WANDB_MODE", "offline")
    outputs = project / "outputs"
    sweep = finish_all(sweep_of())
    write_pool(outputs)
    chosen = [cell for cell in sweep.cells if cell.config and cell.config.dataset.shots == 1 and cell.config.seed == 0]
    results = [cell.result for cell in chosen if cell.result is not None]
    metrics = outputs / "runs" / results[0]["cell"] / "metrics.jsonl"
    metrics.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.0}\n')

    first = sync(results, outputs, "paper/item", "genaug")
    assert sync(results, outputs, "paper/item", "genaug") == first == [result["fingerprint"] for result in results]
    runs = [read_offline(folder) for folder in sorted((outputs / "wandb").glob("offline-run-*"))]
    assert {run["id"] for run in runs} == set(first)  # two syncs, the same ids
    by_id = {run["id"]: run for run in runs}
    baseline, generated = (by_id[result["fingerprint"]] for result in results)
    assert baseline["group"] == "paper/item" and baseline["job_type"] == "train"
    assert {"digits", "none", "paper"} <= set(baseline["tags"])
    assert [row["train/loss"] for row in baseline["history"] if "train/loss" in row] == [2.0, 1.0]
    assert baseline["summary"]["test/accuracy_macro"] == results[0]["metrics"]["test/accuracy_macro"]
    assert generated["summary"]["name/generator"] == "real_guidance" and generated["summary"]["alpha"] == 0.5
    tables = [row["pool"] for row in generated["history"] if "pool" in row]
    assert tables[0]["_type"] == "table-file" and (tables[0]["nrows"], tables[0]["ncols"]) == (20, 10)
