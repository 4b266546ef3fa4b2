"""Who makes the images of a pool: the run's own process, or many."""

from dataclasses import dataclass

from genaug.core.fields import count
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import section


@section("generation", "generation")
@dataclass(kw_only=True, slots=True)
class Generation:
    """Nothing here changes an image."""

    workers: int = count(1, most=65536, metadata=NOT_IDENTITY)
    """Processes that make a pool's missing images together, by Ray (extra ``ray``), each on a GPU of its own where there are
    GPUs; 1 makes them in the run's own process."""
    ray_address: str | None = None
    """The Ray cluster of these processes: ``auto`` for the one that this machine belongs to; null starts Ray here."""
