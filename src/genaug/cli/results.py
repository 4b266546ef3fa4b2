"""What came out: states, tables, the verdict, the report."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genaug.cli.completion import complete_selection
from genaug.cli.options import EXPERIMENT, OUTPUTS, FilledOutputs, Outputs, app, placed
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from genaug.tables.table import Table

Select = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SELECT]...",
        help="Runs to take: key=value (dataset.root=…, generator=a,b, 'generator=da_*'), 'key<number', or a part of a run's "
        "folder name; all finished runs without any. Or [experiment=]<paper>/<item> with overrides as for train.py.",
        autocompletion=complete_selection,
    ),
]
Where = Annotated[list[str] | None, typer.Option("--where", help="One more condition, e.g. 'mix.alpha>0.3'.")]
Last = Annotated[bool, typer.Option("--last", help="Only runs of the last sweep.")]
Metric = Annotated[str | None, typer.Option(help="e.g. test/accuracy_micro; each run's main one without.")]


@app.command()
def status(outputs: FilledOutputs = Path("outputs")) -> None:
    """Every run: complete, running, interrupted, or failed and why."""
    from rich.console import Console

    from genaug.runs.collection import cell_states

    console = Console(soft_wrap=True, highlight=False)
    states = cell_states(outputs / "runs")
    for state in states:
        detail = state.reason.splitlines()[0] if state.state == "failed" and state.reason else ""
        if state.result is not None and state.result["metric"] in state.result["metrics"]:
            detail = f"{state.result['metric']} {state.result['metrics'][state.result['metric']]:.4f}"
        detail = f"{detail} ({state.stage})" if state.stage else detail
        console.print(f"{state.state:<12}{state.folder.name}  {detail}", markup=False)
    kinds = sorted({state.state for state in states})
    summary = ", ".join(f"{sum(s.state == kind for s in states)} {kind}" for kind in kinds)
    runs = "1 run" if len(states) == 1 else f"{len(states)} runs"
    console.print(runs + (f": {summary}" if summary else f" below {outputs / 'runs'}"), markup=False)


@app.command()
def compare(
    select: Select = None,
    where: Where = None,
    last: Last = False,
    metric: Metric = None,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Finished runs side by side: mean with interval, paired difference to the run without generated images, n, cost."""
    from genaug.tables.terminal import print_table

    words, outputs = placed(select, outputs)
    for found in _tables("compare", words, where or [], last, metric, outputs):
        print_table(found)


@app.command()
def verdict(
    select: Select = None,
    where: Where = None,
    last: Last = False,
    metric: Metric = None,
    features: Annotated[
        str,
        typer.Option(help="What the judge of the images' labels looks at: a timm backbone, random:NAME, or pixels."),
    ] = "pixels",
    outputs: Outputs = Path("outputs"),
) -> None:
    """Do generated images help here? Three sentences, what to be careful about, and the table."""
    from genaug.tables.terminal import print_table, print_verdict
    from genaug.tables.verdict import verdicts

    words, outputs = placed(select, outputs)
    for found in _tables("verdict", words, where or [], last, metric, outputs):
        for one in verdicts(found, outputs, features):
            print_verdict(one)
        print_table(found)


@app.command()
def table(
    select: Select = None,
    where: Where = None,
    last: Last = False,
    metric: Metric = None,
    record: Annotated[bool, typer.Option("--record", help="Write the values to experiments/results, too.")] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Tables as md, csv, tex and json below outputs/tables; an experiment's stands beside the published values."""
    from genaug.tables.record import write_record
    from genaug.tables.render import markdown, write_table

    words, outputs = placed(select, outputs)
    for found in _tables("table", words, where or [], last, metric, outputs):
        paths = write_table(found, outputs / "tables")
        if record:
            paths.append(write_record(found))
        typer.echo(markdown(found))
        typer.echo("\n".join(str(path) for path in paths))


@app.command()
def report(
    select: Select = None,
    where: Where = None,
    last: Last = False,
    metric: Metric = None,
    out: Annotated[Path | None, typer.Option(help="The page to write; outputs/report.html without it.")] = None,
    outputs: Outputs = Path("outputs"),
) -> None:
    """One self-contained HTML page: verdicts, tables, curves, cost against gain, galleries, quality, leak audit, provenance.

    Without a selection: every experiment that was run. Several experiments may be named.
    """
    from genaug.tables.report import write_report
    from genaug.tables.spec import is_experiment, items
    from genaug.tables.sweep import was_run

    words, outputs = placed(select, outputs)
    if not words and not where and not last:
        run = [item for item in items() if was_run(outputs, item)]
        if not run:
            raise GenaugError(f"No experiment has been run below {outputs}: name one, e.g. genaug report demo/compare.")
        tables = []
        for item in run:
            try:
                tables += _tables("report", [item], [], False, metric, outputs)
            except GenaugError as error:  # its file was edited since, or its data set is gone
                typer.echo(f"{item} is left out: {error}", err=True)
        if not tables:
            raise GenaugError("No experiment that was run can be shown.")
    else:
        items_alone = words and all(is_experiment(word.removeprefix(EXPERIMENT)) for word in words)
        groups = [[word] for word in words] if items_alone else [words]
        tables = [found for group in groups for found in _tables("report", group, where or [], last, metric, outputs)]
    path = out or outputs / "report.html"
    write_report(tables, outputs, path)
    told = (found.item + ("" if found.results else " (no run is complete)") for found in tables)
    typer.echo(f"{path}: {', '.join(told)}")


@app.command()
def experiments(
    write: Annotated[
        bool, typer.Option("--write", help="Write the pages of experiments/ instead of printing them.")
    ] = False,
) -> None:
    """Every experiment with its runs, results, published values and state: a page per paper."""
    from genaug.tables.overview import pages, write_pages

    typer.echo("\n".join(map(str, write_pages())) if write else "\n".join(pages().values()))


def _none_complete(item: str, overrides: list[str], outputs: Path) -> str:
    """Why there is nothing to show of an experiment, and what to write."""
    from genaug.core.paths import sweep_command
    from genaug.tables.sweep import last_extra, was_run

    with_these = f" with {shlex.join(overrides)}" if overrides else ""
    said = f"No run of {item}{with_these} is complete below {outputs}."
    if overrides and was_run(outputs, item):
        return f"{said} It was last run with {shlex.join(last_extra(outputs, item))}: without any, these are taken."
    place = [] if outputs == Path("outputs") else [f"{OUTPUTS}={outputs}"]
    return f"{said} Run it first: {shlex.join([*sweep_command(), f'experiment={item}', *overrides, *place])}"


def _tables(
    command: str, words: list[str], where: list[str], last: bool, metric: str | None, outputs: Path
) -> "list[Table]":
    """The table of an experiment, or those of selected runs."""
    from genaug.tables.arrangement import collect
    from genaug.tables.selection import is_condition, last_sweep, select, tables_of
    from genaug.tables.spec import is_experiment, read_spec
    from genaug.tables.sweep import expand

    item = words[0].removeprefix(EXPERIMENT) if words else ""
    names_one = is_experiment(item) or ("/" in item and not is_condition(item) and not set(item) & set(",*"))
    if names_one and not where and not last:
        spec = read_spec(item)
        spec.metric = metric or spec.metric
        sweep = expand(item, words[1:] or None, outputs)
        if sweep.extra and not words[1:]:
            typer.echo(f"{item} as it was last run, with {shlex.join(sweep.extra)}:", err=True)
        found = collect(sweep, spec)
        if command in ("verdict", "compare") and not found.results:
            raise GenaugError(_none_complete(item, words[1:], outputs))
        return [found]
    if is_experiment(item):  # with conditions: its runs among the finished ones
        words = [f"{EXPERIMENT}{item}", *words[1:]]
    shown = " ".join(
        ["genaug", command, *words, *(f"--where '{text}'" for text in where), *(["--last"] if last else [])]
    )
    chosen = select(outputs, [*words, *where], last)
    if last and (missing := last_sweep(outputs)[1]) > 0:
        runs = "1 run of the last sweep is" if missing == 1 else f"{missing} runs of the last sweep are"
        typer.echo(f"Careful: {runs} not complete: its command, issued again, goes on.", err=True)
    return tables_of(chosen, metric, shown)
