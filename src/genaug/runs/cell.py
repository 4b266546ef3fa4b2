"""A cell: one resolved configuration, its fingerprint, its folder and its result.

``runs/<dataset>_<generator>_<mix>_<downstream>_s<seed>-<fingerprint>/`` holds config.yaml, overrides.txt,
environment.json, status.json, metrics.jsonl, result.json, log.txt and checkpoints/. A folder is found by its fingerprint;
the words before it are for people.
"""

import contextlib
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genaug.config import RunConfig
from genaug.core.console import console
from genaug.core.files import write_json, write_text
from genaug.core.identity import Texts, canonical_text, fingerprint
from genaug.core.interruption import Interrupted
from genaug.core.names import safe_name
from genaug.runs.collection import read_result, read_status, run_folders
from genaug.runs.environment import describe_environment
from genaug.tracking.record import Record, open_record

Result = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Cell:
    """Identity and place of one result."""

    config: RunConfig
    overrides: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, config: RunConfig, overrides: tuple[str, ...] = ()) -> "Cell":
        """The cell of a configuration."""
        return cls(config=config, overrides=overrides, fingerprint=cell_fingerprint(config))

    @property
    def names(self) -> dict[str, str]:
        """Names of the chosen components; without a pool every mix is ``real_only``."""
        cfg = self.config
        return {
            "dataset": cfg.dataset.name,
            "generator": cfg.generator.name,
            "mix": cfg.downstream.used_mix(cfg.mix).name if cfg.pool_size else "real_only",
            "augment": cfg.augment.name,
            "downstream": cfg.downstream.name,
            "prior": cfg.prior.name,
            "leakage": cfg.leakage.name,
            "filter": cfg.filter.name,
        }

    @property
    def slug(self) -> str:
        if self.config.task == "prior":
            return f"prior_s{self.config.recipe.seed}"
        names = self.names
        last = names["downstream"] if self.config.task == "train" else self.config.task
        return safe_name(f"{names['dataset']}_{names['generator']}_{names['mix']}_{last}_s{self.config.seed}", "folder")

    @property
    def group(self) -> str:
        """The runs that stand together in trackers: those of the experiment, or of the data set."""
        return self.config.experiment or self.config.dataset.name

    @property
    def resolved(self) -> dict[str, Any]:
        """The full configuration as plain values."""
        return asdict(self.config)

    @property
    def folder(self) -> Path:
        runs = self.config.paths.runs
        named = runs / f"{self.slug}-{self.fingerprint}"
        return named if named.is_dir() else run_folders(runs).get(self.fingerprint, named)

    def result(self) -> Result | None:
        """The published result, or None."""
        return read_result(self.folder)

    def say_complete(self, result: Result) -> None:
        """One line for a cell that was not computed again."""
        console.print(f"complete already: {self.folder.name} {headline(result)}", markup=False)

    @contextlib.contextmanager
    def claim(self) -> Iterator[Record]:
        """Work on this cell alone; its status says running, then complete, or failed and why."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        previous = read_status(folder)
        status: dict[str, Any] = {
            "state": "running",
            "attempt": 0 if previous is None else previous["attempt"] + 1,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "artefacts": [] if previous is None else previous.get("artefacts", []),  # which it needs still
        }
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.resolved)))
        write_text(folder / "overrides.txt", "".join(f"{override}\n" for override in self.overrides))
        write_json(folder / "environment.json", describe_environment())
        write_json(folder / "status.json", status)
        record = Record(folder)

        def note_state(**facts: Any) -> None:
            status.update(facts)
            write_json(folder / "status.json", status)

        try:
            record = open_record(self.config.tracking, self, status["attempt"])
            record.state = note_state
            yield record
        except BaseException as error:
            ended = isinstance(error, Interrupted | KeyboardInterrupt)
            state, reason = "interrupted" if ended else "failed", f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk must not hide what happened
                write_json(folder / "status.json", {**status, "state": state, "reason": reason})
                record.note(reason if ended else traceback.format_exc())
            record.finish({}, exit_code=1)
            raise
        write_json(
            folder / "status.json",
            {**status, "state": "complete", "stage": "", "finished": time.strftime("%Y-%m-%dT%H:%M:%S")},
        )


def cell_fingerprint(cfg: RunConfig, texts: Texts | None = None) -> str:
    """H(task, dataset, pool, mix, filter, augmentation, downstream, numerics, seed); ``texts`` as in ``RunConfig.identity``."""
    return fingerprint(*cfg.identity(texts))


def setting_fingerprint(cfg: RunConfig) -> str:
    """What cells that differ in nothing but seeds have in common."""
    return fingerprint(_without_seed([json.loads(canonical_text(part)) for part in cfg.identity()]))


def _without_seed(value: Any) -> Any:
    """Canonical parts without the fields called ``seed``."""
    if isinstance(value, dict):
        return {key: _without_seed(item) for key, item in value.items() if key != "seed"}
    return [_without_seed(item) for item in value] if isinstance(value, list) else value


def headline(result: Result) -> str:
    """The main number of a result, for one line."""
    value = result["metrics"].get(result["metric"])
    return f"{result['metric']} {value:.4f}" if value is not None else ""
