"""Batches whose halves overlap come out in order, and each half is told of the right batch."""

import threading

import pytest
import torch

from genaug.priors.overlap import Moving, overlapped


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_come_in_order(count, overlap):
    found = overlapped(range(count), lambda batch: f"ready {batch}", lambda batch, ready: (batch, ready), overlap)
    assert list(found) == [(i, f"ready {i}") for i in range(count)]


def test_the_next_batch_is_prepared_and_launched_before_a_result_is_waited_for():
    events, threads = [], set()

    def prepare(batch):
        threads.add(threading.current_thread())
        events.append(f"prepared {batch}")
        return batch

    for result in overlapped([0, 1, 2], prepare, lambda batch, _: events.append(f"launched {batch}") or batch, True):
        events.append(f"waited for {result}")
    assert events.index("launched 1") < events.index("waited for 0") < events.index("waited for 1")
    assert events.index("launched 2") < events.index("waited for 1")
    assert threading.main_thread() not in threads and len(threads) == 1
    events.clear()
    for result in overlapped([0, 1], prepare, lambda batch, _: events.append(f"launched {batch}") or batch, False):
        events.append(f"waited for {result}")
    assert events == [f"{what} {i}" for i in (0, 1) for what in ("prepared", "launched", "waited for")]


def test_a_failure_while_preparing_is_that_of_the_batch():
    def prepare(batch):
        if batch == 1:
            raise ValueError("a broken picture")

    found = overlapped([0, 1, 2], prepare, lambda batch, _: batch, True)
    with pytest.raises(ValueError, match="a broken picture"):
        list(found)


def test_what_is_on_the_cpu_already_is_not_copied():
    values = torch.arange(3)
    assert Moving(values).wait() is values
