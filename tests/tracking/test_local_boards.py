"""TensorBoard, MLflow and Trackio: what each shows of a run, read back by its own library."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.runs.cell import Cell
from genaug.tracking.local_boards import BOARDS, TensorBoard
from genaug.tracking.record import Record, open_record

KEYS = [board.title.lower() for board in BOARDS]
Seen = tuple[dict[str, list[tuple[int, float]]], list[str]]
"""(step, value) of each scalar, and the names of the pictures."""


def tensorboard(outputs: Path, name: str) -> Seen:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(outputs / "tensorboard" / name))
    found.Reload()
    scalars = {tag: [(e.step, round(e.value, 4)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    return scalars, found.Tags()["images"]


def mlflow(outputs: Path, name: str) -> Seen:
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("genaug")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    assert run.info.status == "FINISHED"
    assert (run.data.tags["generator"], run.data.tags["group"]) == ("none", "digits")
    assert (run.data.params["dataset/shots"], run.data.params["name/generator"]) == ("4", "none")
    scalars = {
        tag: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, tag)] for tag in run.data.metrics
    }
    return scalars, [Path(item.path).stem for item in client.list_artifacts(run.info.run_id)]


def trackio(outputs: Path, name: str) -> Seen:
    import trackio

    (run,) = trackio.Api().runs("genaug")
    assert (run.name, run.config["name/generator"], run.config["dataset"]["shots"]) == (name, "none", 4)
    from trackio.sqlite_storage import SQLiteStorage

    scalars: dict[str, list[tuple[int, float]]] = {}
    pictures = []
    for row in SQLiteStorage.get_logs("genaug", name, run_id=run.id):
        for tag, value in row.items():
            if isinstance(value, dict):
                pictures.append(tag)
            elif tag not in ("step", "timestamp"):
                scalars.setdefault(tag, []).append((row["step"], value))
    return scalars, pictures


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_tracker_shows_the_rows_that_count_pictures_and_the_summary(key, tmp_path):
    if importlib.util.find_spec(key) is None:  # importing would decide where Trackio writes
        pytest.skip(f"{key} is not installed")
    config = compose_typed(["generator=none", f"tracking={key}", f"paths.outputs_dir={tmp_path}"])
    config.check()
    cell = Cell.of(config)
    cell.folder.mkdir(parents=True)
    interrupted = open_record(config.tracking, cell, 0)
    for step in (8, 16, 24):
        interrupted.log({"train/loss": step / 10}, step)
    interrupted.finish({}, exit_code=1)
    resumed = open_record(config.tracking, cell, 1)
    resumed.rewind(16)
    for step in (24, 32):
        resumed.log({"train/loss": step / 10, "val/accuracy_macro": step / 100}, step)
    Image.new("RGB", (6, 4)).save(tmp_path / "gallery.png")
    resumed.image("gallery", tmp_path / "gallery.png")
    resumed.image("fit/tokens", tmp_path / "gallery.png")
    summary = {"test/accuracy_macro": 0.75, "val/accuracy_macro": 0.32, "name/generator": "none", "oracle": False}
    resumed.finish(summary)
    assert resumed.mirrors, (cell.folder / "log.txt").read_text()
    scalars, pictures = globals()[key](tmp_path, cell.folder.name)
    assert scalars["train/loss"] == [(8, 0.8), (16, 1.6), (24, 2.4), (32, 3.2)]
    assert [value for _, value in scalars["test/accuracy_macro"]] == [0.75]
    assert scalars["val/accuracy_macro"] == [(24, 0.24), (32, 0.32), (32, 0.32)]  # never a step back
    assert len(pictures) == 2 and "gallery" in pictures and "name/generator" not in scalars


def test_a_failing_tracker_costs_its_page_alone(tmp_path):
    class Broken(TensorBoard):
        def __init__(self):
            pass

        def send(self, metrics, step):
            raise OSError("no space")

    class Kept(Broken):
        seen: list = []

        def send(self, metrics, step):
            self.seen.append(step)

    record = Record(tmp_path, [Broken(), Kept()])
    record.log({"train/loss": 1.0}, 1)
    record.log({"train/loss": 0.5}, 2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] == Kept.seen
    assert (tmp_path / "log.txt").read_text().count("TensorBoard failed (no space)") == 1


@pytest.mark.parametrize("key", KEYS)
def test_a_tracker_that_is_not_installed_is_refused_before_any_work_with_its_extra(key, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GenaugError, match=rf"needs {key}.*pip install 'genaug\[{key}\]'.*tracking=local"):
        compose_typed(["generator=none", f"tracking={key}"]).check()


def test_a_second_folder_of_trackio_in_one_process_is_said(tmp_path):
    pytest.importorskip("trackio")
    config = compose_typed(["generator=none", "tracking=trackio", f"paths.outputs_dir={tmp_path / 'other'}"])
    cell = Cell.of(config)
    cell.folder.mkdir(parents=True)
    with pytest.raises(GenaugError, match=r"Trackio writes to .* start another for .*other/trackio"):
        open_record(config.tracking, cell, 0)
