"""A run's folder lies below ``runs/`` and is found again, whatever its data set is called."""

import pytest

from genaug.composition import compose_typed
from genaug.runs.cell import Cell
from genaug.runs.collection import cell_states
from tests.runs.finished_run import write_finished


@pytest.mark.parametrize("name", ["owner/set", "../../evil", ".hidden", "x" * 400, "Größe 🐱", "a:b*?", "con\ttrol"])
def test_a_run_of_any_name_is_seen(tmp_path, name):
    config = compose_typed(["generator=none", f"paths.outputs_dir={tmp_path}"])
    config.dataset.name = name
    cell = Cell.of(config)
    assert cell.folder.parent == config.paths.runs and cell.folder.name.endswith(f"_s0-{cell.fingerprint}")
    write_finished(cell.folder)
    (state,) = cell_states(config.paths.runs)
    assert state.state == "complete" and state.folder == Cell.of(config).folder


def test_a_run_without_generated_images_is_called_real_only_whatever_mix_is_written(tmp_path):
    for generator, mix in (("none", "real_only"), ("control", "replace")):
        config = compose_typed([f"generator={generator}", "mix=replace", f"paths.outputs_dir={tmp_path}"])
        assert Cell.of(config).names["mix"] == mix and f"_{mix}_" in Cell.of(config).slug
