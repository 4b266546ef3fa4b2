"""What a wheel holds works without the checkout: presets and experiments travel with the code."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_built_package_runs_from_any_folder(tmp_path):
    pytest.importorskip("setuptools")
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "base"), "--build-lib"]
    subprocess.run([*build, str(tmp_path / "lib")], cwd=ROOT, check=True, capture_output=True)
    program = (
        "import genaug; print(genaug.__file__); c = genaug.compose(['experiment=demo/compare', 'generator=da_fusion']); "
        "print(c.experiment, c.generator.name)"
    )
    (tmp_path / "anywhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "anywhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
        capture_output=True,
        text=True,
    )
    place, said = done.stdout.splitlines() if done.returncode == 0 else (done.stderr, "")
    assert place.startswith(str(tmp_path / "lib")), place
    assert said == "demo/compare da_fusion"
