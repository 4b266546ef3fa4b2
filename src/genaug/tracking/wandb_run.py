"""A run's page in Weights & Biases."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.errors import boundary
from genaug.core.names import safe_name
from genaug.tracking.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from genaug.data.detections import Detections
    from genaug.data.sample import Sample

ANSWER_TIME = 20.0  # seconds that W&B's server has to answer before a run goes on offline


@dataclass
class WandbRun(Mirror):
    """Keeps what an interrupted attempt has logged: the server has it already."""

    run: Any
    """What ``wandb.init`` gave."""

    title: ClassVar[str] = "Weights & Biases"
    later: ClassVar[str] = ", from which genaug sync writes the W&B run"

    def log(self, metrics: "Mapping[str, float]", step: int) -> None:
        self.run.log({**metrics, "step": step})

    def image(self, key: str, path: Path) -> None:
        import wandb

        self.run.log({key: wandb.Image(str(path))})

    def detections(self, key: str, found: "Sequence[tuple[Sample, Detections]]", names: "Sequence[str]") -> None:
        """Boxes that W&B shows, hides and filters by score."""
        import wandb

        from genaug.tracking.wandb_sync import boxes_of

        sets = [{"ground truth": sample.boxes, "prediction": detections} for sample, detections in found]
        images = [
            wandb.Image(sample.open(), boxes=boxes_of(s, names)) for (sample, _), s in zip(found, sets, strict=True)
        ]
        self.run.log({key: images})

    def pool(self, folder: Path, is_new: bool) -> None:
        """The manifest as a table (source, variant, level, scores), and the pool as an artifact with its runs."""
        from genaug.tracking.wandb_sync import log_pool

        log_pool(self.run, folder, is_new)

    def finish(self, summary: "Mapping[str, Any]", exit_code: int) -> None:
        self.run.summary.update(summary)
        self.run.finish(exit_code=exit_code)


def wandb_mode() -> str:
    """``WANDB_MODE`` if set; online with a stored login or ``WANDB_API_KEY``; otherwise offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or _netrc_login() else "offline"


def _netrc_login() -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def run_tags(names: "Mapping[str, str]", experiment: str | None, others: "Sequence[str]" = ()) -> list[str]:
    """Tags of a W&B run: ``generator:none`` and so on for its components, ``paper:da_fusion``, and the user's own."""
    paper = {"paper": experiment.partition("/")[0]} if experiment else {}
    own = [f"{kind}:{name}" for kind, name in {**names, **paper}.items() if name]
    return sorted({safe_name(tag, "tag") for tag in (*own, *others)})


def start_run(*, mode: str, name: str, group: str, **settings: Any) -> Any:
    """A W&B run, ``online``, ``offline`` or as else ``WANDB_MODE`` may be, which asks and prints nothing.

    Raises:
        GenaugError: if W&B does not start.
    """
    import wandb

    with boundary("Weights & Biases did not start", "Write tracking=local, WANDB_MODE=offline, or log in."):
        wandb.setup(wandb.Settings(silent=True))
        run = wandb.init(
            name=safe_name(name, "wandb"),
            group=safe_name(group, "wandb"),
            resume="allow" if mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True, init_timeout=ANSWER_TIME
            ),
            **settings,
        )
        run.define_metric("*", step_metric="step")
    return run
