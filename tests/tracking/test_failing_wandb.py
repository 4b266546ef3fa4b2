"""W&B is a mirror: whatever fails there costs the mirror, never the run."""

import time
from typing import ClassVar

import pytest
import wandb

from genaug.core.errors import GenaugError
from genaug.runs.cell import Cell
from genaug.tracking import wandb_run
from genaug.tracking.mirror import Mirror
from genaug.tracking.record import Record, Tracking, open_record
from genaug.tracking.wandb_run import WandbRun
from tests.tracking.test_record import rows


class Broken:
    """Stands for a run whose connection is gone; the library's own class cannot be made to fail."""

    summary: dict = {}

    def log(self, row):
        raise ConnectionError("gone")

    finish = log


def test_an_error_inside_logging_leaves_the_local_record_and_is_said_once(tmp_path):
    record = Record(tmp_path, [WandbRun(Broken())])
    for step in (1, 2):
        record.log({"loss": 0.5}, step)
    record.finish({})
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    assert (tmp_path / "log.txt").read_text().count("Weights & Biases failed (gone)") == 1


@pytest.mark.slow
def test_online_without_a_network_gives_up_in_time_and_goes_on_offline(tmp_path, monkeypatch):
    from genaug.composition import compose_typed

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr(wandb_run, "ANSWER_TIME", 1.0)
    cell = Cell.of(compose_typed(["generator=none", f"paths.outputs_dir={tmp_path}"]))
    cell.folder.mkdir(parents=True)
    started = time.monotonic()
    record = open_record(Tracking(), cell, 0)
    record.finish({"accuracy": 0.5})
    wandb.teardown()  # it remembers the address for the whole process
    assert time.monotonic() - started < 60
    assert "recorded offline" in (cell.folder / "log.txt").read_text()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_a_run_that_was_told_to_end_is_interrupted_and_a_failed_one_has_its_traceback(tmp_path):
    import signal

    from genaug.composition import compose_typed
    from genaug.core.interruption import Interrupted
    from genaug.runs.collection import read_status

    cell = Cell.of(compose_typed(["generator=none", "tracking=local", f"paths.outputs_dir={tmp_path}"]))
    for error, state in ((Interrupted(signal.SIGTERM), "interrupted"), (KeyError("x"), "failed")):
        with pytest.raises(type(error)), cell.claim():
            raise error
        status = read_status(cell.folder)
        assert status is not None and status["state"] == state
    assert "Traceback" in (cell.folder / "log.txt").read_text() and status["attempt"] == 1


class Page(Mirror):
    """Keeps how it was closed."""

    title = "TensorBoard"
    codes: ClassVar[list[int]] = []

    def __init__(self, cell, project):
        self.codes.clear()

    def log(self, metrics, step):
        pass

    def image(self, key, path):
        pass

    def finish(self, summary, exit_code):
        self.codes.append(exit_code)


def test_a_run_whose_tracker_does_not_start_has_failed_and_says_why(tmp_path, monkeypatch):
    from genaug.composition import compose_typed
    from genaug.runs.collection import read_status

    monkeypatch.setenv("WANDB_MODE", "nonsense")
    monkeypatch.setattr("genaug.tracking.record.BOARDS", (Page,))
    cell = Cell.of(compose_typed(["generator=none", "tracking.tensorboard=true", f"paths.outputs_dir={tmp_path}"]))
    with pytest.raises(GenaugError, match="did not start"), cell.claim():
        pytest.fail("it has no page")
    status = read_status(cell.folder)
    assert status is not None and status["state"] == "failed" and "did not start" in status["reason"]
    assert Page.codes == [1]  # the page of the tracker that did start is closed


def test_a_run_whose_result_cannot_be_written_is_no_success_in_a_tracker(tmp_path):
    from genaug.composition import compose_typed
    from genaug.run import Synthetic, finish

    cell = Cell.of(compose_typed(["generator=none", "tracking=local", f"paths.outputs_dir={tmp_path}"]))
    with pytest.raises(GenaugError, match="accuracy_macro is nan, which no result may hold"), cell.claim() as record:
        record.mirrors.append(Page(cell, ""))
        finish(cell, record, {"metrics": {"test/accuracy_macro": float("nan")}}, Synthetic())
    assert Page.codes == [1]
