"""Every small file may be found cut, empty, binary or of another shape: it counts as absent and is named."""

import json
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.core.errors import GenaugError
from genaug.core.files import read_json, read_rows, say_damaged, whole, write_json, write_sealed
from genaug.runs.collection import RESULT, STATUS, cell_states, read_result
from genaug.runs.verification import verify
from genaug.tables.comparison import _scores
from tests.runs.finished_run import write_finished

CORRUPTIONS = {
    "empty": lambda data: b"",
    "object without keys": lambda data: b"{}",
    "array": lambda data: b"[1, 2]",
    "cut": lambda data: data[: len(data) // 2],
    "binary": lambda data: bytes(range(256)) * 4,
    "null": lambda data: b"null",
    "nested too deep": lambda data: b"[" * 100_000,
    "another run's": lambda data: data.replace(b'"aa"', b'"bb"'),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_damaged_result_is_named_once_and_hides_no_other_run(tmp_path, capsys, name):
    say_damaged.cache_clear()
    for run in ("run-aa", "run-cc"):
        write_finished(tmp_path / run)
    path = tmp_path / "run-aa" / "result.json"
    path.write_bytes(CORRUPTIONS[name](path.read_bytes()))
    states = {state.folder.name: state.state for state in cell_states(tmp_path)}
    assert states == {"run-aa": "interrupted", "run-cc": "complete"}
    assert read_result(path.parent) is None
    assert capsys.readouterr().err.count(str(path)) == 1


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"another run's"}))
def test_a_run_whose_status_is_damaged_counts_as_interrupted(tmp_path, name):
    path = tmp_path / "run-aa" / "status.json"
    write_json(path, {"state": "running", "attempt": 0, "host": "elsewhere", "pid": 1})
    path.write_bytes(CORRUPTIONS[name](path.read_bytes()))
    (state,) = cell_states(tmp_path)
    assert state.state == "interrupted" and "status.json" in state.reason


def test_a_result_that_was_changed_is_named_and_counts_as_none(tmp_path, capsys):
    folder, plain = tmp_path / "runs" / "run-aa", tmp_path / "runs" / "run-bb"
    for place in (folder, plain):
        write_finished(place, metrics={"m": 0.5, "per class": {2: 0.5, 10: 1.0}}, names={"dataset": "Vögel"})
    written = json.loads((folder / "result.json").read_text())
    write_sealed(folder / "result.json", {**written, "counts": {10: 1, 9: 2}})
    result = read_result(folder)
    assert result is not None and result == {**written, "counts": {"10": 1, "9": 2}}
    assert read_result(plain) is not None, "earlier versions wrote no seal"
    data = (folder / "result.json").read_bytes()
    (folder / "result.json").write_bytes(data.replace(b'"m": 0.5', b'"m": 0.6'))
    assert read_result(folder) is None and "its content has changed" in capsys.readouterr().err
    assert {state.folder.name: state.state for state in cell_states(tmp_path / "runs")} == {
        "run-aa": "interrupted",
        "run-bb": "complete",
    }
    assert [damage.path for damage in verify(tmp_path)[1]] == [folder / "result.json"]


@pytest.mark.parametrize("artefacts", [5, "store", [1], {"a": 1}, None])
def test_a_run_that_names_no_files_as_its_needs_cannot_say_what_it_needs(tmp_path, artefacts):
    write_json(
        tmp_path / "run-aa" / "status.json",
        {"state": "failed", "attempt": 0, "host": "h", "pid": 1, "artefacts": artefacts},
    )
    [state] = cell_states(tmp_path)
    assert state.state == "failed" and state.artefacts is None  # so gc keeps everything


@pytest.mark.parametrize("metric", ["test/accuracy_macro", "test/map"])
@pytest.mark.parametrize(
    "rows", [[1, 2], [{}], [None], {"id": 1}, "x", [{"id": "a", "predicted": 1}], [{"id": "a", "target_labels": 3}]]
)
def test_predictions_of_another_shape_count_as_none(tmp_path, metric, rows, capsys):
    write_json(tmp_path / "predictions.json", rows)
    assert _scores(metric)(SimpleNamespace(folder=tmp_path)) is None
    assert str(tmp_path / "predictions.json") in capsys.readouterr().err


@pytest.mark.parametrize("metric", ["test/accuracy_macro", "test/map"])
def test_a_run_that_kept_no_predictions_has_no_scores(tmp_path, metric, capsys):
    assert _scores(metric)(SimpleNamespace(folder=tmp_path)) is None
    write_json(tmp_path / "predictions.json", [])
    assert _scores(metric)(SimpleNamespace(folder=tmp_path)) is None and capsys.readouterr().err == ""


SCALARS = st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers()
OBJECTS = st.recursive(
    SCALARS,
    lambda part: (
        st.lists(part, max_size=4)
        | st.dictionaries(st.sampled_from([*RESULT, *STATUS, "artefacts", "stage", "reason"]), part, max_size=8)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200) | OBJECTS.map(lambda value: json.dumps(value).encode()))
def test_whatever_lies_in_a_state_file_no_reader_raises(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("runs") / "run-aa"
    folder.mkdir()
    for name in ("result.json", "status.json", "rows.jsonl"):
        (folder / name).write_bytes(data)
    cell_states(folder.parent)
    for row in read_rows(folder / "rows.jsonl", {"step": int}):
        assert isinstance(row["step"], int)
    value = read_json(folder / "result.json", RESULT)
    assert value is None or value.keys() >= RESULT.keys()


def test_good_rows_survive_a_row_that_was_cut(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert read_rows(path, {"step": int}) == [{"step": 1, "loss": 0.5}]
    assert "line 2" in capsys.readouterr().err


def test_a_failed_write_leaves_the_former_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space"), whole(path) as partial:
        partial.write_bytes(b"half of")
        raise OSError(28, os.strerror(28))
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["weights"]


def _write_often(path: Path, text: str) -> None:
    for _ in range(50):
        write_json(path, text * 5000)


def test_writers_with_equal_process_numbers_do_not_tear_a_file(tmp_path, monkeypatch):
    """As in two containers on one volume."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "status.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, text)) for text in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            assert json.loads(path.read_text()) in ("a" * 5000, "b" * 5000)
    assert [writer.exitcode for writer in writers] == [0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_file_holds_what_is_no_number_and_the_place_is_named(tmp_path, value):
    path = tmp_path / "result.json"
    write_json(path, {"a": [1, {"b": None}]})
    with pytest.raises(GenaugError, match=r"result\.json cannot be written: a\[1\]\.b is -?(nan|inf)"):
        write_json(path, {"a": [1, {"b": value}]})
    assert read_json(path) == {"a": [1, {"b": None}]}
