"""A SLURM array as the script that ``sbatch`` takes: each run of a sweep is one task, which goes on after a preemption or at
the end of its time."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genaug.core.errors import GenaugError

NOTICE = 120
"""Seconds before the end of its time at which a run writes its checkpoint and is put back into the queue."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Resources:
    """What SLURM gives to each task."""

    hours: float = 24.0
    cpus: int = 8
    gpus: int = 1
    memory_gb: int = 32
    at_once: int = 64
    """Tasks that run at the same time."""
    partition: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("hours", self.hours * 3600, 2 * NOTICE),
            ("cpus", self.cpus, 1),
            ("gpus", self.gpus, 0),
            ("memory", self.memory_gb, 1),
            ("at-once", self.at_once, 1),
        ):
            if value < least:
                unit = " (in seconds)" if name == "hours" else ""
                raise GenaugError(f"--{name}{unit} must be at least {least}, and is {value:g}.")


def array_script(runs: Sequence[Sequence[str]], resources: Resources, outputs: Path, title: str) -> str:
    """The text for ``sbatch``.

    Args:
        runs: the overrides of each task.
        resources: of one task.
        outputs: the outputs folder, on a file system that all nodes see; the logs go below it.
        title: one line on what this is.
    """
    minutes = int(resources.hours * 60)
    options = [
        "job-name=genaug",
        f"array=0-{len(runs) - 1}%{resources.at_once}",
        f"time={minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00",
        "nodes=1",
        "ntasks=1",
        f"cpus-per-task={resources.cpus}",
        *([f"gpus-per-task={resources.gpus}"] if resources.gpus else []),
        f"mem={resources.memory_gb}G",
        *([f"partition={resources.partition}"] if resources.partition else []),
        *([f"account={resources.account}"] if resources.account else []),
        "requeue",  # after a preemption or the failure of a node
        f"signal=USR1@{NOTICE}",  # to the run itself, which writes a checkpoint and asks to be requeued
        "open-mode=append",
        f"output={outputs / 'slurm' / '%A_%a.log'}",
    ]
    program = [sys.executable, "train.py"] if Path("train.py").is_file() else [_beside_python("genaug"), "run"]
    tasks = (f"  {number}) set -- {shlex.join(words)} ;;" for number, words in enumerate(runs))
    srun = f"srun --cpus-per-task={resources.cpus} {shlex.join(program)}"
    lines = [
        "#!/bin/bash",
        f"# {title}",
        *(f"#SBATCH --{option}" for option in options),
        "set -eu",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-{resources.cpus}}}",
        'case "$SLURM_ARRAY_TASK_ID" in',
        *tasks,
        '  *) echo "there is no run $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
        f'{srun} "$@" hydra.mode=RUN paths.outputs_dir={shlex.quote(str(outputs))}',
    ]
    return "".join(f"{line}\n" for line in lines)


def _beside_python(name: str) -> str:
    """The command of that name that was installed with this Python."""
    return str(Path(sys.executable).with_name(name))
