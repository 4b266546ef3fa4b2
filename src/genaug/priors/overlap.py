"""On a GPU, the CPU's part of one batch beside the GPU's part of another; on a CPU one after the other."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
Ready = TypeVar("Ready")
Result = TypeVar("Result")


class Moving:
    """A tensor on its way to the CPU: a GPU goes on with other work until ``wait``."""

    def __init__(self, values: Tensor):
        self.values = values.to("cpu", non_blocking=True)
        self.arrived: Any = None
        if values.is_cuda:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def wait(self) -> Tensor:
        """The tensor on the CPU."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values


def overlapped(
    batches: Sequence[Batch],
    prepare: Callable[[Batch], Ready],
    launch: Callable[[Batch, Ready], Result],
    device: torch.device | str,
) -> Iterator[Result]:
    """``launch(batch, prepare(batch))`` of every batch, in order; on both kinds of device the same results, also before
    a batch that fails.

    Args:
        prepare: the CPU's part; it must not depend on the launch of another batch.
        launch: what begins the device's part; what it returns may still be on its way.
        device: on a GPU the next batch is prepared in a thread, and a result comes when the next batch has been launched.
    """
    if torch.device(device).type != "cuda":
        for batch in batches:
            yield launch(batch, prepare(batch))
        return
    with ThreadPoolExecutor(1) as thread:
        upcoming = [thread.submit(prepare, batch) for batch in batches[:1]]
        launched: list[Result] = []
        for number, batch in enumerate(batches):
            try:
                ready = upcoming.pop().result()
                upcoming += [thread.submit(prepare, following) for following in batches[number + 1 : number + 2]]
                launched.append(launch(batch, ready))
            except Exception:
                yield from launched
                raise
            if number:
                yield launched.pop(0)
        yield from launched
