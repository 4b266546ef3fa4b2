"""What of this machine a sweep may use: cores, memory, GPUs."""

import itertools
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

NEEDS = 1.5e9
"""Bytes of memory of one small run, torch included."""

_gpu: FileLock | None = None
"""Held while this process has a GPU of its own."""


def cores() -> int:
    """Cores to compute on: ``OMP_NUM_THREADS`` where it is set, else those that this process or its container may use."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if said.isdigit() and int(said):
        return int(said)
    import joblib

    return joblib.cpu_count()


def room_for() -> int:
    """How many small runs fit into the memory that is free now; at least one."""
    import psutil

    return max(1, int(psutil.virtual_memory().available / NEEDS))


def take_gpu(folder: Path | None = None) -> str | None:
    """Give this process one of several GPUs for the rest of its life: the one that the fewest such processes have.

    It is called before torch looks for GPUs. Where there is but one GPU or none, nothing happens.

    Args:
        folder: where the processes of this machine see each other's locks; the folder for temporary files without it.

    Returns:
        the GPU, which alone is now visible (``CUDA_VISIBLE_DEVICES``); None where nothing was to choose.
    """
    global _gpu
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    gpus = [name.strip() for name in visible.split(",") if name.strip()]
    if len(gpus) < 2 or _gpu is not None:
        return None
    folder = folder or Path(tempfile.gettempdir()) / f"genaug-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    for place, gpu in ((place, gpu) for place in itertools.count() for gpu in gpus):
        lock = FileLock(folder / f"{gpu.replace('/', '-')}.{place}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _gpu = lock
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return gpu
    raise AssertionError("there is always a free place")
