"""What the tests' own starter promises: each run is a process of its own."""

import pytest

from tests import starter as module
from tests.starter import Starter

PROGRAM = """
import os, sys
if __name__ == "__main__":
    print(os.environ["WHO"], os.getcwd(), sys.argv[1:], "HOME" in os.environ)
    print(os.getpid(), file=sys.stderr)
    os.environ["WHO"] = "changed"
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def starter(monkeypatch):
    monkeypatch.setattr(module, "IMPORTED", ("json",))
    started = Starter()
    yield started
    started.close()


def test_each_run_has_its_own_process_environment_folder_streams_and_exit_code(starter, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    pids = set()
    for code, who in ((0, "first"), (3, "second"), (0, "third")):
        ended, said = starter.run([str(program), str(code)], tmp_path, {"WHO": who})
        first, pid = said.splitlines()
        assert (ended, first) == (code, f"{who} {tmp_path} ['{code}'] False")
        pids.add(pid)
    assert len(pids) == 3


def test_a_run_that_raises_or_is_killed_costs_itself(starter, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, signal, sys\nos.kill(os.getpid(), signal.SIGKILL) if sys.argv[1:] else 1 / 0")
    ended, said = starter.run([str(program)], tmp_path, {})
    assert ended == 1 and "ZeroDivisionError" in said
    assert starter.run([str(program), "killed"], tmp_path, {})[0] == -9
    program.write_text("print('well')")
    assert starter.run([str(program)], tmp_path, {}) == (0, "well\n")
