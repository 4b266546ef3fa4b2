"""The notebooks run from top to bottom, in a folder of their own, as a reader would run them."""

import os
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, STARTER

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "executable", str(STARTER.folder / "python"))  # the kernel's
    monkeypatch.setenv("PATH", f"{STARTER.folder}{os.pathsep}{os.environ['PATH']}")  # its console commands
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "genaug: " not in told, told  # a console command that failed says so, and the notebook goes on
    assert list((tmp_path / "outputs" / "runs").glob("*/result.json"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_installs_first(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "%pip install" in code[0].source
