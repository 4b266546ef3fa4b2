"""Progress in a file is a line now and then: step, rate, time left."""

import pytest

from genaug.core import progress
from genaug.core.progress import EVERY_SECONDS, Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_file_gets_a_line_now_and_then(clock, capsys):
    with Progress("generating", 120, unit="images") as shown:
        for done in range(1, 121):
            clock[0] += 1.0
            shown.update(done)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"generating: {30 * i} of 120 images, 1.0 images/s, {left} left"
        for i, left in enumerate(("1:30", "1:00", "0:30", "0:00"), start=1)
    ]


def test_short_work_says_nothing(clock, capsys):
    with Progress("training", 10) as shown:
        clock[0] += EVERY_SECONDS - 1
        shown.update(10)
    assert capsys.readouterr().out == ""


def test_steps_of_an_earlier_attempt_do_not_count_for_the_rate(clock, capsys):
    with Progress("training", 1000, completed=900) as shown:
        clock[0] += 50
        shown.update(910)
    assert capsys.readouterr().out == "training: 910 of 1000 steps, 0.2 steps/s, 7:30 left\n"


def test_slow_steps_and_an_unknown_end_are_said(clock, capsys):
    with Progress("verifying", None, unit="files") as shown:
        clock[0] += 40
        shown.update(2)
        clock[0] += 7200
        shown.update(3, 10)
    assert capsys.readouterr().out.splitlines() == [
        "verifying: 2 files, 20 s for each",
        "verifying: 3 of 10 files, 2413 s for each, 4:41:33 left",
    ]
