"""genaug: do generated training images help your model?

    import genaug

    genaug.run(["generator=da_fusion", "dataset=image_folder", "dataset.root=FOLDER"])
    frame = genaug.sweep(["generator=none,da_fusion", "seed=range(0,8)"])      # pandas
    frame = genaug.results("generator=da_fusion", "mix.alpha>0.3")
    real, pool = genaug.load_pool("da_fusion*_s0")
    images = genaug.MixedDataset(real, pool, alpha=0.5, m=5)                   # torch, for a loop of your own

Every name is imported when it is asked for: ``import genaug`` imports neither torch nor Hydra.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genaug.api import compose as compose
    from genaug.api import load_pool as load_pool
    from genaug.api import results as results
    from genaug.api import run as run
    from genaug.api import sweep as sweep
    from genaug.core.errors import GenaugError as GenaugError
    from genaug.data.mixed import FixedShareBatches as FixedShareBatches
    from genaug.data.mixed import MixedDataset as MixedDataset

__version__ = "0.2.0.dev0"

PLACES = {
    "compose": "genaug.api",
    "sweep": "genaug.api",
    "results": "genaug.api",
    "load_pool": "genaug.api",
    "GenaugError": "genaug.core.errors",
    "MixedDataset": "genaug.data.mixed",
    "FixedShareBatches": "genaug.data.mixed",
}
__all__ = ["FixedShareBatches", "GenaugError", "MixedDataset", "compose", "load_pool", "results", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name == "run":  # the module of that name, which may be called
        return importlib.import_module("genaug.run")
    if name in PLACES:
        return getattr(importlib.import_module(PLACES[name]), name)
    raise AttributeError(f"module genaug has no {name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
