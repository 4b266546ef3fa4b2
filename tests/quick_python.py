"""Stands for a Python program that ``tests/preloaded.py`` runs: has its signals, end and place among processes.

    python quick_python.py SOCKET PYTHON WORDS

PYTHON runs what takes options of the interpreter that this does not know, and what others know by its process's number.
"""

import json
import os
import signal
import socket
import sys

TELL_THEIR_NUMBER = ("submitit.local._local", "/ray/")
"""What others know by its process's number, in a word of its command line."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)

address, python, *words = sys.argv[1:]
options = words[: words[0] == "-u"]
kind = "".join(words[len(options) :][:1])
if (
    not kind
    or (kind.startswith("-") and kind not in ("-c", "-m"))
    or any(name in word for name in TELL_THEIR_NUMBER for word in words)
):
    os.execv(python, [python, *words])
inherited = [int(name) for name in os.listdir("/dev/fd")]
inherited = [number for number in inherited if os.path.exists(f"/dev/fd/{number}") and os.get_inheritable(number)]
order = {
    "words": words,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "descriptors": inherited,
    "stands_for_it": os.getpid(),
}
connection = socket.socket(socket.AF_UNIX)
connection.connect(address)
socket.send_fds(connection, [b"\n"], inherited)
connection.sendall(json.dumps(order).encode() + b"\n")
for number in inherited:
    os.close(number)  # a pipe ends when the program closes it
answers = connection.makefile()
program = int(answers.readline())
for signum in PASSED_ON:
    signal.signal(signum, lambda signum, _: os.kill(program, signum))
code = int(answers.readline() or 1)
if code < 0:
    if -code in PASSED_ON:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
