"""Commands start fast: what they import is counted, since seconds depend on who else uses the machine."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
from {module} import main
sys.argv = sys.argv[1:]
try:
    main()
except SystemExit:
    pass
print("\\n" + " ".join(sys.modules))
"""
SLOW = ("torch", "sklearn", "pandas", "scipy.ndimage", "scipy.stats", "matplotlib", "timm", "diffusers", "transformers")
"""Each costs 0.1 to 4 CPU seconds."""
CONFIGURING = ("hydra", "numpy")


def imported(module: str, *command: str) -> list[str]:
    """Modules that a command has imported when it ends."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module), *command], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("command", [["--help"], ["status"]], ids=" ".join)
def test_the_console_imports_neither_hydra_nor_numpy(command, tmp_path):
    place = [] if command == ["--help"] else ["--outputs", str(tmp_path)]
    modules = imported("genaug.cli", "genaug", *command, *place)
    assert not {*SLOW, *CONFIGURING} & set(modules)
    assert len(modules) < 450


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["compare"],
        ["explain", "generator=psld"],
        ["plan", "demo/compare"],
        ["plan", "da_fusion/fig9_m"],
        ["table", "demo/compare"],
    ],
    ids=" ".join,
)
def test_what_composes_imports_no_torch(command, tmp_path):
    place = [] if command[0] == "explain" else ["--outputs", str(tmp_path)]
    modules = imported("genaug.cli", "genaug", *command, *place)
    assert "hydra" in modules and not set(SLOW) & set(modules)
    assert len(modules) < 1000


def test_python_m_genaug_is_the_console_and_starts_as_fast():
    assert {*imported("genaug.__main__", "genaug", "--help")} - {"genaug.__main__"} == {
        *imported("genaug.cli", "genaug", "--help")
    }
    process = subprocess.run([sys.executable, "-m", "genaug", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0 and "python -m genaug" in process.stdout, process.stderr


def test_help_imports_no_torch():
    modules = imported("train", "train.py", "--help")
    assert not set(SLOW) & set(modules)
    assert len(modules) < 1000
