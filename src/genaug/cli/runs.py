"""What to run: presets explained, experiments planned; runs kept in order."""

import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from genaug.cli.completion import complete_override
from genaug.cli.options import EXPERIMENT, FilledOutputs, Item, Outputs, Overrides, app, placed
from genaug.core.cost import TRAIN_USE, USE
from genaug.core.errors import GenaugError

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}
"""Whatever follows is Hydra's to read."""
Words = Annotated[list[str] | None, typer.Argument(autocompletion=complete_override)]


@app.command(context_settings=PASS_ON, add_help_option=False)
def run(words: Words = None) -> None:
    """Run one configuration: genaug run generator=da_fusion seed=1. The same as python train.py; --help lists all choices."""
    _train(words or [])


@app.command(context_settings=PASS_ON, add_help_option=False)
def sweep(words: Words = None) -> None:
    """Run every combination: genaug sweep generator=none,da_fusion seed=0,1. The same as python train.py -m."""
    _train(["-m", *(words or [])])


def _train(arguments: list[str]) -> None:
    from genaug.app import main

    sys.argv = ["genaug", *arguments]
    main()


@app.command()
def explain(
    choices: Annotated[
        list[str],
        typer.Argument(
            metavar="CHOICE...",
            help="group=preset, e.g. generator=da_fusion; a group; a key, e.g. generator.t0; experiment=ITEM.",
            autocompletion=complete_override,
        ),
    ],
) -> None:
    """The keys of a preset with their values, units, sources and what each may hold; one key; the presets of a group; an
    experiment."""
    for choice in choices:
        _explain(choice)


def _explain(choice: str) -> None:
    from genaug.composition import compose_whole
    from genaug.config import RunConfig
    from genaug.config_source import files_of
    from genaug.core.paths import presets
    from genaug.explanation import explain_key
    from genaug.keys import explain_meaning, explain_presets, known_keys
    from genaug.tables.spec import is_experiment, items, read_experiment

    group, _, name = (EXPERIMENT + choice if is_experiment(choice) else choice).partition("=")
    if group == "experiment":
        if name:
            import yaml

            typer.echo(yaml.safe_dump(read_experiment(name), sort_keys=False, allow_unicode=True, width=120))
            return
        for item in items():
            try:
                typer.echo(
                    f"experiment={item}\n    {(read_experiment(item).get('table') or {}).get('title', 'no table')}"
                )
            except GenaugError as error:  # a broken file breaks its own line
                typer.echo(f"experiment={item}\n    {error}")
        return
    section = getattr(RunConfig(), group, None)
    if group not in presets() and is_dataclass(section):  # recipe, paths, generation
        _print_fields(group, section)
        return
    if group not in presets() and (meanings := explain_meaning(group)):
        for (doc, rule), owners in meanings.items():
            typer.echo(group + (f" of {group.partition('.')[0]}={', '.join(owners)}" if owners else ""))
            typer.echo(f"    {doc}" + (f" Must be {rule}." if rule else ""))
        return
    if "." in group:
        raise GenaugError(explain_key(group))
    if group not in presets():
        meant = [f"genaug explain {kind}={group}" for kind, names in presets().items() if group in names]
        if keys := [
            f"genaug explain {kind}.{group}" for kind, names in known_keys().items() if kind and group in names
        ]:
            raise GenaugError(f"{group} is the end of a key: write {' or '.join(keys)}.")
        raise GenaugError(
            f"{group} is a preset: write {' or '.join(meant)}."
            if meant
            else f"{group} is not a group or a key. Write one of {', '.join(presets())}, experiment, or a key such as seed."
        )
    if not name:
        for preset, head in explain_presets(group):
            typer.echo(f"{group}={preset}\n    {head}")
        return
    whole = group.partition("/")[0]
    if whole != group and (files := files_of(group, name)):
        raise GenaugError(
            f"{group} is a part of {whole}: genaug explain {whole}=PRESET prints its keys, and {files[0]} says what "
            f"{name} changes."
        )
    config = compose_whole(choice)
    if not hasattr(config, group):
        raise GenaugError(f"{group} has no keys of its own to explain; its presets: {', '.join(presets()[group])}.")
    _print_fields(group, getattr(config, group))


def _print_fields(group: str, part: Any) -> None:
    """The keys of a part of a configuration."""
    from genaug.keys import explain_fields

    for key, value, doc, rule in explain_fields(part):
        typer.echo(f"{group}.{key}={value}" if value else f"{group}.{key}")
        typer.echo(f"    {doc}" + (f" Must be {rule}." if rule else ""))


@app.command()
def plan(
    item: Item,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="As for train.py, preset=smoke included.", autocompletion=complete_override),
    ] = None,
    gpu: Annotated[str, typer.Option(help="h200, h100, a100, l40s, 4090, 3090 or v100")] = "h200",
    use: Annotated[float, typer.Option(help="Share of the GPU's half-precision rate that sampling reaches.")] = USE,
    train_use: Annotated[float, typer.Option(help="The same of training in mixed precision.")] = TRAIN_USE,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Runs of an experiment by state, what they share, and what the missing ones will cost. Needs no data and no GPU."""
    import gc

    from genaug.tables.plan import plan as count
    from genaug.tables.plan import report_plan
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand

    gc.disable()  # a plan makes a great many small objects, keeps nearly all of them, and ends
    words, outputs = placed(overrides, outputs)
    spec = read_spec(item)
    typer.echo(report_plan(count(expand(item, words, outputs), spec), gpu, use, train_use))


@app.command()
def sync(
    item: Item,
    overrides: Overrides = None,
    project: Annotated[str, typer.Option(help="W&B project.")] = "genaug",
    entity: Annotated[str | None, typer.Option(help="W&B user or team.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write a W&B report of the table, too (extra: report). Needs a login.")
    ] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Write an experiment's W&B runs again from the local record, under the same ids each time, so that none is doubled."""
    from genaug.tables.arrangement import collect
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand
    from genaug.tables.verdict import verdicts
    from genaug.tracking.wandb_sync import sync as write_runs

    words, outputs = placed(overrides, outputs)
    found = collect(expand(item, words or None, outputs), read_spec(item))
    if not found.results:
        raise GenaugError(f"No run of {item} is complete below {outputs}.")
    said = "\n".join(one.text for one in verdicts(found, outputs))
    ids = write_runs(found.results, outputs, item, project, entity, said)
    typer.echo(f"{len(ids)} runs in the group {item} of the project {project}")
    if report:
        from genaug.tables.render import markdown
        from genaug.tracking.wandb_report import write_report

        text, metric = f"{said}\n\n{markdown(found)}", found.spec.metric
        address = write_report(
            title=found.spec.title, text=text, group=item, metric=metric, project=project, entity=entity
        )
        typer.echo(f"report: {address}")


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    decoded: Annotated[bool, typer.Option("--decoded", help="List the cache of decoded images, too.")] = False,
    outputs: FilledOutputs = Path("outputs"),
) -> None:
    """Pools and images that no run uses and that are older than a day; removed with --delete."""
    from genaug.runs.garbage import alone, find_garbage, remove

    with alone(outputs):
        found = find_garbage(outputs, decoded=decoded)
        for path in found.paths:
            typer.echo(str(path))
        typer.echo(
            f"{len(found.paths)} unused, {found.num_bytes / 1e6:.1f} MB" + ("" if delete else "; remove with --delete")
        )
        if found.kept is not None:
            typer.echo(found.kept)
        if found.cached_bytes:
            size = f"{found.cached_bytes / 1e6:.1f} MB"
            typer.echo(f"{size} of decoded images, which runs make again when they need them; list them with --decoded")
        if delete:
            remove(found)


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged: runs make it again.")] = False,
    outputs: FilledOutputs = Path("outputs"),
) -> None:
    """Compare every artefact, image, pool and state file with what was published; exit code 1 if something is damaged."""
    from genaug.core.progress import Progress
    from genaug.runs.verification import repair as remove_damage
    from genaug.runs.verification import verify as look

    with Progress("verifying", None, unit="files") as progress:
        count, found = look(outputs, progress.update)
    for damage in found:
        typer.echo(f"{damage.path}: {damage.why.removeprefix(f'{damage.path} ')}")
    then = "" if not found else "; removed, runs make them again" if repair else "; remove them with --repair"
    typer.echo(f"{count} verified, {len(found)} damaged{then}")
    if repair:
        remove_damage(found)
    elif found:
        raise typer.Exit(1)
