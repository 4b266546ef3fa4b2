"""What the tests' own starter promises: each run is a process of its own."""

import os
import signal
import subprocess
import time

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
    monkeypatch.setattr(module, "IMPORTED", ("json", "genaug"))
    monkeypatch.delenv(module.FOLDER, raising=False)
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


def test_a_process_may_be_signalled_while_it_runs_beside_others(starter, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, sys, time\nprint(os.getpid(), flush=True)\ntime.sleep(float(sys.argv[1]))")
    slow, quick = (starter.start([str(program), seconds], tmp_path, {}) for seconds in ("500", "0"))
    assert quick.wait() == f"{quick.pid}\n" and quick.returncode == 0
    while not slow.said:
        time.sleep(0.01)
    assert slow.poll() is None
    slow.send_signal(signal.SIGTERM)
    assert slow.wait() == f"{slow.pid}\n" and slow.returncode == -signal.SIGTERM
    assert not os.path.exists(f"/proc/{slow.pid}")


def test_a_process_that_does_not_end_in_time_is_killed(starter, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import time\ntime.sleep(500)")
    started = starter.start([str(program)], tmp_path, {})
    with pytest.raises(TimeoutError):
        started.wait(0.2)
    started.wait()
    assert started.returncode == -signal.SIGKILL


def test_another_checkout_is_imported_where_the_environment_says_so(starter, tmp_path):
    (tmp_path / "src" / "genaug").mkdir(parents=True)
    (tmp_path / "src" / "genaug" / "__init__.py").write_text("who = 'the other'")
    program = tmp_path / "program.py"
    program.write_text("import genaug\nprint(genaug.who)")
    other = {"PYTHONPATH": str(tmp_path / "src")}
    assert starter.run([str(program)], tmp_path, other) == (0, "the other\n")


def quick(starter, *words, **options):
    return subprocess.Popen([str(starter.folder / "python"), *words], text=True, stdout=subprocess.PIPE, **options)


def test_the_quick_python_is_a_process_for_whoever_starts_it(starter, tmp_path):
    read, write = os.pipe()
    code = f"""
import os, sys
os.write({write}, b"by its number")
print(os.getcwd(), os.environ["WHO"], sys.argv, os.getppid(), sys.stdin.read(), sys.executable)
sys.exit("it ends")
"""
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "pass_fds": (write,), "cwd": tmp_path}
    process = quick(starter, "-u", "-c", code, "a", "b c", env={**os.environ, "WHO": "it"}, **options)
    said = process.communicate("its input")
    itself = starter.folder / "python"
    assert said == (f"{tmp_path} it ['-c', 'a', 'b c'] {os.getpid()} its input {itself}\n", "it ends\n")
    assert process.returncode == 1 and os.read(read, 100) == b"by its number"
    (tmp_path / "module.py").write_text("import sys\nprint(__name__, sys.argv[1:])\nraise SystemExit(3)")
    process = quick(starter, "-m", "module", "word", cwd=tmp_path)
    assert process.communicate()[0] == "__main__ ['word']\n" and process.returncode == 3
    assert quick(starter, "-I", "-c", "import sys; print(sys.flags.isolated)").communicate()[0] == "1\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_quick_python_ends_its_program(starter, signum):
    process = quick(starter, "-c", "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(500)")
    assert process.stdout is not None
    program = int(process.stdout.readline())
    process.send_signal(signum)
    assert process.wait(30) == -signum
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{program}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed = quick(starter, "-c", f"import os; os.kill(os.getpid(), {int(signum)})")
    assert killed.wait(30) == -signum


def test_programs_end_with_the_tests(starter, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import time\ntime.sleep(500)")
    started = starter.start([str(program)], tmp_path, {})
    starter.close()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{started.pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_run_has_a_folder_of_its_own_for_what_wandb_keeps(starter, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IMPORTED", ("wandb",))
    program = tmp_path / "program.py"
    program.write_text("""
import os
from wandb.sdk.data_types._private import MEDIA_TMP
print(MEDIA_TMP.name, os.listdir(MEDIA_TMP.name))
""")
    folders = set()
    for _ in range(2):
        folder, _, holds = starter.run([str(program)], tmp_path, {"TMPDIR": str(tmp_path)})[1].strip().partition(" ")
        assert os.path.dirname(folder) == str(tmp_path) and holds == "[]" and not os.path.exists(folder)
        folders.add(folder)
    assert len(folders) == 2
