"""One pool made by many processes, some of which are killed or join late, is the pool of one."""

import contextlib
import importlib.util
import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from genaug.composition import compose_typed
from genaug.core.files import write_json
from genaug.runs.cell import Cell
from tests.conftest import ROOT, STARTER, environment_of, genaug

POOL = ("task=generate", "generator=real_guidance", "dataset.shots=2", "mix.m=2", "generator.num_steps=30",
        "trainer.accelerator=cpu", "tracking=local")  # fmt: skip


def images(outputs):
    return {path.stem: np.asarray(Image.open(path), int) for path in outputs.glob("store/images/*/*.png")}


def check_equal(found, expected):
    """Shares are cut into other batches, whose shape moves the last digit of a number, and so one of 255 in a few values."""
    assert found.keys() == expected.keys()
    differences = np.stack([abs(found[name] - expected[name]) for name in expected])
    assert differences.max() <= 1 and (differences > 0).mean() < 1e-3


def start(outputs, *words):
    command = [str(ROOT / "train.py"), *POOL, *words, f"paths.outputs_dir={outputs}"]
    return STARTER.start(command, ROOT, environment_of({"RAY_AUTH_MODE": "disabled"}))


def wait_for(found, processes):
    deadline = time.monotonic() + 1200
    while not found():
        assert all(process.poll() is None for process in processes), [p.said for p in processes]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def claimants(outputs):
    """Processes that make images now."""
    pids = set()
    for path in outputs.glob("store/locks/claims/*.json"):
        with contextlib.suppress(OSError, ValueError):
            pids.add(json.loads(path.read_text())["pid"])
    return pids


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The images as one process makes them."""
    outputs = tmp_path_factory.mktemp("one")
    said = (process := start(outputs)).wait()
    assert process.returncode == 0, said
    return images(outputs)


def test_the_same_command_started_again_makes_images_instead_of_waiting(tmp_path, expected):
    first = start(tmp_path)
    wait_for(lambda: claimants(tmp_path), [first])
    time.sleep(0.5)
    first.send_signal(signal.SIGSTOP)  # so that it has not made everything before the second one is there
    second = start(tmp_path)
    wait_for(lambda: second.pid in claimants(tmp_path), [second])
    first.send_signal(signal.SIGCONT)
    said = [process.wait() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], said
    check_equal(images(tmp_path), expected)
    helped = [line for line in said[1].splitlines() if "on which another process works" in line]
    assert len(helped) == 1 and int(helped[0].split()[0]) > 0
    [result] = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert result["counts"]["images_generated"] + int(helped[0].split()[0]) == len(expected) == 40
    assert "0 damaged" in genaug("verify", "--outputs", str(tmp_path))


def test_a_process_that_starts_at_the_same_moment_looks_again_until_it_can_help(tmp_path, expected):
    cell = Cell.of(compose_typed([*POOL, f"paths.outputs_dir={tmp_path}"]))
    with cell.config.paths.store.lock(cell.fingerprint):  # another process has it, and has not said yet what it does
        second = start(tmp_path)
        time.sleep(1.5)
        assert second.poll() is None and not claimants(tmp_path)
        about = {"state": "running", "attempt": 0, "host": "h", "pid": 1, "artefacts": []}
        write_json(cell.folder / "status.json", about)
        write_json(cell.folder / "status.json", {**about, "stage": "generate"})
        wait_for(lambda: len(images(tmp_path)) == len(expected), [second])
    said = second.wait()
    assert second.returncode == 0 and "40 images made for" in said, said
    check_equal(images(tmp_path), expected)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
def test_a_worker_of_ray_that_is_killed_and_a_process_that_joins_change_no_image(tmp_path, expected):
    leader = start(tmp_path, "generation.workers=2")
    wait_for(lambda: len(list(tmp_path.glob("store/images/*/*.png"))) > 5 and claimants(tmp_path), [leader])
    for pid in claimants(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    joined = start(tmp_path)
    said = [process.wait() for process in (leader, joined)]
    assert [process.returncode for process in (leader, joined)] == [0, 0], said
    check_equal(images(tmp_path), expected)
    assert "0 damaged" in genaug("verify", "--outputs", str(tmp_path))
