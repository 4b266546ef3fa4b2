"""The console: what was run, what came out. Starts in well under a second and imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genaug.core.cost import TRAIN_USE, USE
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from genaug.tables.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at what `python train.py` has made.")
Outputs = Annotated[Path, typer.Option(help="The outputs folder.")]
Item = Annotated[str, typer.Argument(help="<paper>/<item>, e.g. da_fusion/fig9_alpha")]
Overrides = Annotated[list[str] | None, typer.Argument(help="As for train.py; without any, those of the last run.")]

ALL_VARIANTS = 10**9
FEW_IMAGES = 5000


@app.command()
def status(outputs: Outputs = Path("outputs")) -> None:
    """Every cell: complete, running, interrupted, or failed and why."""
    from rich.console import Console

    from genaug.runs.collection import cell_states

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


Select = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SELECT]...",
        help="Runs to take: key=value (dataset.root=…, generator=a,b, 'generator=da_*'), 'key<number', or a part of a run's "
        "folder name; all finished runs without any. Or <paper>/<item> with overrides as for train.py.",
    ),
]
Where = Annotated[list[str] | None, typer.Option("--where", help="One more condition, e.g. 'mix.alpha>0.3'.")]
Last = Annotated[bool, typer.Option("--last", help="Only runs of the last sweep.")]
Metric = Annotated[str | None, typer.Option(help="e.g. test/accuracy_micro; each run's main one without.")]


def _tables(
    command: str, words: list[str], where: list[str], last: bool, metric: str | None, outputs: Path
) -> "list[Table]":
    """The table of an experiment, or those of selected runs."""
    from genaug.tables.selection import is_condition, select, tables_of
    from genaug.tables.spec import is_experiment, read_spec
    from genaug.tables.sweep import expand
    from genaug.tables.table import collect

    if words and not where and not last and "/" in words[0] and not is_condition(words[0]):
        spec = read_spec(words[0])
        spec.metric = metric or spec.metric
        return [collect(expand(words[0], words[1:] or None, outputs), spec)]
    if words and is_experiment(words[0]):  # with conditions: its runs among the finished ones
        words = [f"experiment={words[0]}", *words[1:]]
    shown = " ".join(
        ["genaug", command, *words, *(f"--where '{text}'" for text in where), *(["--last"] if last else [])]
    )
    return tables_of(select(outputs, [*words, *where], last), metric, shown)


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

    for found in _tables("compare", select or [], where or [], last, metric, outputs):
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

    for found in _tables("verdict", select or [], where or [], last, metric, outputs):
        for one in verdicts(found, outputs, features):
            print_verdict(one)
        print_table(found)


@app.command()
def gallery(
    pools: Annotated[
        list[str], typer.Argument(help="Pools' fingerprints (first digits), or words of cells' folder names.")
    ],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("gallery.png"),
    sources: Annotated[int, typer.Option(help="Number of rows.")] = 20,
    variants: Annotated[int, typer.Option(help="Number of variants per row.")] = 8,
    outputs: Outputs = Path("outputs"),
) -> None:
    """A contact sheet of sources and variants as PNG; several pools side by side, e.g. one per sigma."""
    from genaug.drawing.contact_sheet import contact_sheet, find_pool, side_by_side

    sheets = []
    for pool in pools:
        found, dataset = find_pool(outputs, pool, variants)
        sheets.append(contact_sheet(found, dataset, sources, variants))
        typer.echo(
            f"{found.fingerprint}: {min(sources, len(found.by_source()))} sources, up to {variants} variants each"
        )
    side_by_side(sheets).save(out)
    typer.echo(out)


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


@app.command()
def plan(
    item: Item,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="h200, h100, a100, l40s, 4090, 3090 or v100")] = "h200",
    use: Annotated[float, typer.Option(help="Share of the GPU's half-precision rate that sampling reaches.")] = USE,
    train_use: Annotated[float, typer.Option(help="The same of training in mixed precision.")] = TRAIN_USE,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Cells of an experiment by state, what they share, and what the missing ones will cost. Needs no data and no GPU."""
    from genaug.tables.plan import plan as count
    from genaug.tables.plan import report_plan
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand

    spec = read_spec(item)
    typer.echo(report_plan(count(expand(item, overrides or [], outputs), spec), gpu, use, train_use))


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

    for found in _tables("table", select or [], where or [], last, metric, outputs):
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

    words = select or []
    if not words and not where and not last:
        words = [item for item in items() if was_run(outputs, item)]
        if not words:
            raise GenaugError(f"No experiment has been run below {outputs}: name one, e.g. genaug report demo/compare.")
    groups = [[word] for word in words] if all(map(is_experiment, words)) and words else [words]
    tables = [found for group in groups for found in _tables("report", group, where or [], last, metric, outputs)]
    path = out or outputs / "report.html"
    write_report(tables, outputs, path)
    typer.echo(f"{path}: {', '.join(found.item for found in tables)}")


@app.command()
def experiments(
    write: Annotated[bool, typer.Option("--write", help="Write experiments/README.md instead of printing it.")] = False,
) -> None:
    """Every experiment with its command, cells and published values."""
    from genaug.core.files import write_text
    from genaug.tables.overview import overview
    from genaug.tables.spec import experiment_root

    text = overview()
    if write:
        write_text(experiment_root() / "README.md", text)
    typer.echo(str(experiment_root() / "README.md") if write else text)


Features = Annotated[
    str, typer.Option(help="A timm backbone with its weights, random:NAME (random weights), or pixels (no network).")
]
PoolName = Annotated[str, typer.Argument(help="A pool's fingerprint (its first digits), or a cell's folder name.")]


@app.command()
def quality(
    pool: PoolName,
    features: Features,
    lpips: Annotated[bool, typer.Option("--lpips", help="Also LPIPS; downloads AlexNet's weights once.")] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """KID, FID, precision, recall, density, coverage, distances, label agreement and a synthetic-to-real probe of a pool."""
    from genaug.core.files import write_json
    from genaug.core.store import Store
    from genaug.drawing.contact_sheet import find_pool
    from genaug.evaluation.quality import measure

    found, dataset = find_pool(outputs, pool, ALL_VARIANTS)
    values = measure(found, dataset, Store(outputs / "store"), features, lpips)
    generator = found.samples[0].about["generator"] if found.samples else ""
    path = outputs / "quality" / f"{found.fingerprint}.json"
    write_json(path, {"pool": found.fingerprint, "generator": generator, **values})
    for name, value in values["measures"].items():
        bounds = f"  [{value['low']:.4g}, {value['high']:.4g}]" if "low" in value else ""
        typer.echo(f"{name:<24}{value['value']:.4g}{bounds}")
    typer.echo(f"{values['num_synthetic']} synthetic and {values['num_real']} real images, features {features}; {path}")
    if values["real_split"] == "test":
        typer.echo("There is no validation split, so these are test images: select nothing by these measures.")
    if values["num_synthetic"] < FEW_IMAGES:
        typer.echo(f"FID is biased below {FEW_IMAGES} images: prefer KID, and compare FID at equal n only.")


@app.command()
def leaks(pool: PoolName, features: Features, outputs: Outputs = Path("outputs")) -> None:
    """Nearest pairs of synthetic, training and test images: copying, leaks from the prior, duplicates in the data."""
    from genaug.core.store import Store
    from genaug.drawing.contact_sheet import find_pool
    from genaug.evaluation.leaks import audit

    found, dataset = find_pool(outputs, pool, ALL_VARIANTS)
    folder = outputs / "leaks" / found.fingerprint
    values = audit(found, dataset, Store(outputs / "store"), features, folder)
    typer.echo("\n".join([*values["summary"], str(folder / "leaks.json")]))


@app.command()
def sync(
    item: Item,
    overrides: Overrides = None,
    project: Annotated[str, typer.Option(help="W&B project.")] = "genaug",
    entity: Annotated[str | None, typer.Option(help="W&B user or team.")] = None,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Write an experiment's W&B runs anew from the local record; the same ids each time, so nothing is doubled."""
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand
    from genaug.tables.table import collect
    from genaug.tables.verdict import verdicts
    from genaug.tracking.wandb_sync import sync as write_runs

    found = collect(expand(item, overrides, outputs), read_spec(item))
    if not found.results:
        raise GenaugError(f"No cell of {item} is complete below {outputs}.")
    said = "\n".join(" ".join(one.sentences) for one in verdicts(found, outputs, deep=False))
    ids = write_runs(found.results, outputs, item, project, entity, said)
    typer.echo(f"{len(ids)} runs in the group {item} of the project {project}")


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Pools and images that no complete cell uses and that are older than a day; removed with --delete."""
    from genaug.runs.garbage import find_garbage, remove

    found = find_garbage(outputs)
    for path in found.paths:
        typer.echo(str(path))
    typer.echo(
        f"{len(found.paths)} unused, {found.num_bytes / 1e6:.1f} MB" + ("" if delete else "; remove with --delete")
    )
    if delete:
        remove(found)


def main() -> None:
    """Entry point; a user's error is one paragraph."""
    try:
        app(standalone_mode=True)
    except GenaugError as error:
        typer.echo(f"genaug: {error}", err=True)
        raise SystemExit(2) from None
