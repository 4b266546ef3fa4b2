"""The console: what was run, what came out. Starts in well under a second and imports no torch."""

from pathlib import Path
from typing import Annotated

import typer

from genaug.errors import GenaugError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at what `python train.py` has made.")
Outputs = Annotated[Path, typer.Option(help="The outputs folder.")]


@app.command()
def status(outputs: Outputs = Path("outputs")) -> None:
    """Every cell: complete, running, interrupted, or failed and why."""
    from rich.console import Console

    from genaug.tables.collect import cell_states

    console = Console(soft_wrap=True, highlight=False)
    states = cell_states(outputs / "runs")
    for state in states:
        detail = state.reason.splitlines()[0] if state.state == "failed" and state.reason else ""
        if state.result is not None and state.result["metric"] in state.result["metrics"]:
            detail = f"{state.result['metric']} {state.result['metrics'][state.result['metric']]:.4f}"
        console.print(f"{state.state:<12}{state.folder.name}  {detail}", markup=False)
    kinds = sorted({state.state for state in states})
    summary = ", ".join(f"{sum(s.state == kind for s in states)} {kind}" for kind in kinds)
    console.print(f"{len(states)} cells" + (f": {summary}" if summary else f" below {outputs / 'runs'}"), markup=False)


@app.command()
def compare(
    pattern: Annotated[str, typer.Argument(help="Cells whose folder name contains this; all without it.")] = "",
    outputs: Outputs = Path("outputs"),
    metric: Annotated[str | None, typer.Option(help="e.g. test/accuracy_micro")] = None,
) -> None:
    """The table of finished cells: mean and spread over seeds, n of the seeds in the table."""
    from genaug.tables.collect import read_results
    from genaug.tables.summary import print_summary, summarise

    runs = outputs / "runs"
    results = read_results(f for f in sorted(runs.iterdir()) if pattern in f.name) if runs.is_dir() else []
    if not results:
        raise GenaugError(f"No finished cell below {runs}" + (f" has {pattern!r} in its name." if pattern else "."))
    for summary in summarise(results, metric):
        print_summary(summary)


@app.command()
def gallery(
    pool: Annotated[str, typer.Argument(help="A pool's fingerprint (its first digits), or a cell's folder name.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("gallery.png"),
    sources: Annotated[int, typer.Option(help="Number of rows.")] = 20,
    variants: Annotated[int, typer.Option(help="Number of variants per row.")] = 8,
    outputs: Outputs = Path("outputs"),
) -> None:
    """A contact sheet of sources and variants as PNG."""
    from genaug.gallery import contact_sheet, find_pool

    found, dataset = find_pool(outputs, pool, variants)
    contact_sheet(found, dataset, sources, variants).save(out)
    typer.echo(f"{out}: {min(sources, len(found.by_source()))} sources, up to {variants} variants each")


@app.command()
def explain(choice: Annotated[str, typer.Argument(help="group=preset, e.g. generator=da_fusion")]) -> None:
    """The keys of a preset with their values, units and sources."""
    from genaug.app import compose_typed
    from genaug.config import explain_fields

    group = choice.partition("=")[0]
    config = compose_typed([choice])
    if not hasattr(config, group):
        raise GenaugError(f"{group} is not a group. Write e.g. genaug explain generator=da_fusion.")
    for key, value, doc in explain_fields(getattr(config, group)):
        typer.echo(f"{group}.{key}={value}\n    {doc}" if value else f"{group}.{key}\n    {doc}")


def main() -> None:
    """Entry point; a user's error is one paragraph."""
    try:
        app(standalone_mode=True)
    except GenaugError as error:
        typer.echo(f"genaug: {error}", err=True)
        raise SystemExit(2) from None
