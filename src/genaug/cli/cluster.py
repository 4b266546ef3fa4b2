"""Larger than one machine: scripts for SLURM."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.options import Outputs, app, placed
from genaug.core.errors import GenaugError


@app.command()
def slurm(
    overrides: Annotated[list[str], typer.Argument(help="As for genaug sweep, e.g. experiment=demo/compare seed=0,1.")],
    hours: Annotated[
        float, typer.Option(help="Time limit of a task; a run that needs longer goes on in the next.")
    ] = 24,
    cpus: Annotated[int, typer.Option(help="Cores of each task.")] = 8,
    gpus: Annotated[int, typer.Option(help="GPUs of each task; 0 for none.")] = 1,
    memory: Annotated[int, typer.Option(help="GB of each task.")] = 32,
    at_once: Annotated[int, typer.Option(help="Tasks that run at the same time.")] = 64,
    copies: Annotated[int, typer.Option(help="Tasks for each run: with task=generate they share its images out.")] = 1,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM's account.")] = None,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Print a SLURM array of a sweep's runs that are not complete: genaug slurm experiment=demo/compare | sbatch.

    A run whose time is up, or whose node is taken away, is put back into the queue and goes on from its checkpoint.
    """
    from genaug.runs.slurm import Resources, array_script
    from genaug.tables.sweep import look_up, plan_jobs

    resources = Resources(
        hours=hours, cpus=cpus, gpus=gpus, memory_gb=memory, at_once=at_once, partition=partition, account=account
    )
    if copies < 1:
        raise GenaugError(f"--copies must be at least 1, and is {copies}.")
    words, outputs = placed(overrides, outputs)
    place = outputs.expanduser().absolute()
    if set(str(place)) & set("%\n "):
        raise GenaugError(f"The outputs folder {place} has a space or a % in its name, which SLURM would misread.")
    cells = plan_jobs([*words, f"paths.outputs_dir={place}"])
    look_up(cells, place / "runs")
    for cell in cells:
        if cell.state == "invalid":
            typer.echo(f"genaug: {cell.reason} (left out: {shlex.join(cell.overrides)})", err=True)
    left = [cell for cell in cells if cell.state not in ("complete", "invalid")]
    missing = list({cell.fingerprint or cell.overrides: cell.overrides for cell in left}.values())
    if not missing:
        raise GenaugError(f"None of the {len(cells)} runs is left to do.")
    (place / "slurm").mkdir(parents=True, exist_ok=True)
    runs = [list(words) for words in missing for _ in range(copies)]
    title = f"{len(missing)} run{'s' * (len(missing) != 1)} of: genaug sweep {shlex.join(words)}"
    typer.echo(array_script(runs, resources, place, " ".join(title.split())), nl=False)
