"""A process that has imported what genaug's runs import, and forks for each Python program that it is asked for.

    python tests/preloaded.py SOCKET MODULE …

An order comes with the program's file descriptors: its command line, environment, folder, and the process that stands for it.
The answers are the number of the program's process and, later, its exit code. It is killed if nobody waits for it any more.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import importlib.machinery
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import types
import weakref
from typing import Any

import psutil

OWN = os.environ.get("PYTHONPATH", "").split(os.pathsep)
INSTALLED = [path for path in sys.path[1:] if path not in OWN]


def main() -> None:
    address, *names = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    os.rename(f"{address}.new", address)  # who finds it may connect, and waits for the imports
    for name in names:
        importlib.import_module(name)
    if "genaug.app" in names:  # plug-ins are found, presets parsed, the digits and the small prior read
        from genaug.composition import compose_typed

        config = compose_typed([])
        config.dataset.load()
        config.prior.load("cpu")
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # a child's end takes nothing apart that it shares
    gc.freeze()  # else the first collection of each child would write to, and so copy, every page that it shares
    serve(listener, os.path.join(os.path.dirname(address), "python"))


def serve(listener: socket.socket, executable: str) -> None:
    """Answer orders until the input ends, as it does with the tests. One thread does all: a fork would have no other."""
    ended, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, with which this ends
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([listener, sys.stdin, ended, *running.values()], [], [])[0]
        gone = running if sys.stdin in ready else [child for child in running if running[child] in ready]
        for child in gone:  # nobody waits for it any more
            os.kill(child, signal.SIGKILL)
        if sys.stdin in ready:
            return
        if ended in ready:
            os.read(ended, 1000)
        for child in list(running):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                answer(running.pop(child), os.waitstatus_to_exitcode(status), last=True)
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 253)
        order = json.loads(connection.makefile("rb").readline() or "null")
        if order is None:
            continue
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests were started without one
            for descriptor in (ended, wakes):
                os.close(descriptor)
            for own in (listener, connection, *running.values()):
                own.close()
            begin(order, descriptors, executable)
            end(order["words"])
        for descriptor in descriptors:
            os.close(descriptor)
        running[child] = connection
        answer(connection, child)


def answer(connection: socket.socket, number: int, last: bool = False) -> None:
    """Send a number to a client that may be gone."""
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % number)
    if last:
        connection.close()


def begin(order: dict[str, Any], descriptors: list[int], executable: str) -> None:
    """Make of this process what the interpreter would be in front of its program."""
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 300) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(above, order["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    if media := getattr(sys.modules.get("wandb.sdk.data_types._private"), "MEDIA_TMP", None):
        tempfile.tempdir = None
        media.__init__("wandb-media")  # a folder of its own
    sys.executable = executable  # whatever it starts is started quickly, too
    multiprocessing.set_executable(executable)
    if order["stands_for_it"] is not None:
        shown = psutil.Process(order["stands_for_it"])

        def getppid() -> int:
            with contextlib.suppress(psutil.NoSuchProcess):
                return shown.ppid()
            return 1

        os.getppid = getppid
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(threads))


def end(words: list[str]) -> None:
    """Run a program and end as the interpreter would, but for taking apart what was imported. Returns in no process."""
    code: Any = 0
    try:
        program(words)
    except SystemExit as exit:
        code = exit.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # threads first, as multiprocessing does for its own forks
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF if isinstance(code, int) else 1)


def program(words: list[str]) -> None:
    """What ``python WORDS`` would do: with ``-c`` or ``-m``, or a file's name."""
    if words[0] == "-u" or "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        words = words[words[0] == "-u" :]
    kind, first = words[0], {"-c": "", "-m": os.getcwd()}.get(words[0], os.path.dirname(os.path.realpath(words[0])))
    sys.path[:] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *INSTALLED]
    spec = importlib.machinery.PathFinder.find_spec("genaug", sys.path)
    if spec is not None and spec.origin != getattr(sys.modules.get("genaug"), "__file__", None):  # another checkout's
        for name in [name for name in sys.modules if name.partition(".")[0] in ("genaug", "hydra", "hydra_plugins")]:
            del sys.modules[name]
    sys.argv = [kind, *words[2:]] if kind in ("-c", "-m") else words
    if kind == "-c":
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif kind == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
