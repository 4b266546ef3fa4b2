"""Batches whose halves overlap come out in order, and each half is told of the right batch."""

import functools
import threading

import pytest
import torch

from genaug.priors.overlap import Moving, overlapped


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_come_in_order(count, device):
    found = overlapped(range(count), lambda batch: f"ready {batch}", lambda batch, ready: (batch, ready), device)
    assert list(found) == [(i, f"ready {i}") for i in range(count)]


def test_the_next_batch_is_prepared_and_launched_before_a_result_is_waited_for():
    events, threads = [], set()

    def prepare(batch):
        threads.add(threading.current_thread())
        events.append(f"prepared {batch}")
        return batch

    for result in overlapped([0, 1, 2], prepare, lambda batch, _: events.append(f"launched {batch}") or batch, "cuda"):
        events.append(f"waited for {result}")
    assert events.index("launched 1") < events.index("waited for 0") < events.index("waited for 1")
    assert events.index("launched 2") < events.index("waited for 1")
    assert threading.main_thread() not in threads and len(threads) == 1
    events.clear()
    for result in overlapped([0, 1], prepare, lambda batch, _: events.append(f"launched {batch}") or batch, "cpu"):
        events.append(f"waited for {result}")
    assert events == [f"{what} {i}" for i in (0, 1) for what in ("prepared", "launched", "waited for")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("stage", ["prepare", "launch"])
@pytest.mark.parametrize("broken", range(3))
def test_a_failure_comes_after_the_results_of_the_batches_before_it(device, stage, broken):
    def failing(batch, *_, here):
        if here == stage and batch == broken:
            raise ValueError("a broken picture")
        return batch

    threads = threading.active_count()
    prepare, launch = (functools.partial(failing, here=here) for here in ("prepare", "launch"))
    found = overlapped([0, 1, 2], prepare, launch, device)
    assert [next(found) for _ in range(broken)] == list(range(broken))
    with pytest.raises(ValueError, match="a broken picture"):
        next(found)
    assert threading.active_count() == threads


def test_no_thread_outlives_a_caller_that_stops():
    threads = threading.active_count()
    found = overlapped([0, 1, 2], lambda batch: batch, lambda batch, _: batch, "cuda")
    assert next(found) == 0 and threading.active_count() > threads
    del found
    assert threading.active_count() == threads


def test_what_is_on_the_cpu_already_is_not_copied():
    values = torch.arange(3)
    assert Moving(values).wait() is values
