"""Results, artefacts and pools to a place that several machines share, and back."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genaug.cli.options import Outputs, app
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from genaug.runs.items import Item

store = typer.Typer(
    no_args_is_help=True, help="Copy finished runs, artefacts and pools to s3://, gs://, sftp:// or file:// and back."
)
app.add_typer(store, name="store")

Url = Annotated[str, typer.Argument(help="s3://BUCKET/FOLDER, gs://…, sftp://USER@HOST/FOLDER, file:///FOLDER …")]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATTERN]...", help="Parts of names, e.g. 'digits_da_fusion*'; all without any."),
]


@store.command()
def push(url: Url, patterns: Patterns = None, outputs: Outputs = Path("outputs")) -> None:
    """Copy what is finished here to URL. What is there stays as it is, so it may be repeated, and several machines may push."""
    from genaug.runs.remote import Remote
    from genaug.runs.remote import push as copy

    here = outputs.expanduser().absolute()
    _say(copy(here, Remote(url), patterns or ()), f"There is nothing finished in {here}", patterns)


@store.command()
def pull(url: Url, patterns: Patterns = None, outputs: Outputs = Path("outputs")) -> None:
    """Copy what is missing here from URL, each file compared with its hash; what is here stays as it is."""
    from genaug.runs.remote import Remote
    from genaug.runs.remote import pull as copy

    remote = Remote(url)
    _say(copy(outputs.expanduser().absolute(), remote, patterns or ()), f"There is nothing at {remote.shown}", patterns)


@store.command()
def diff(url: Url, patterns: Patterns = None, outputs: Outputs = Path("outputs")) -> None:
    """What is only here, only at URL, or not the same in both; exit code 1 if there is any."""
    from genaug.runs.remote import Remote, differences

    counts: dict[str, int] = {}
    for kind, name, state in differences(outputs.expanduser().absolute(), Remote(url), patterns or ()):
        counts[state] = counts.get(state, 0) + 1
        if state != "same":
            typer.echo(f"{state:<11}{kind}/{name}")
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing on either side")
    if counts.keys() - {"same"}:
        raise typer.Exit(1)


def _say(copied: "Iterator[tuple[Item, str]]", nothing: str, patterns: list[str] | None) -> None:
    """A line for each item that was copied or is damaged, and the sums; exit code 1 for damaged ones.

    Raises:
        GenaugError: if there is no item, in the words of ``nothing``: a wrong address or pattern copies none.
    """
    counts: dict[str, int] = {}
    for item, state in copied:
        word = state.partition(":")[0]
        counts[word] = counts.get(word, 0) + 1
        if ":" in state:
            typer.echo(f"{item.kind}/{item.name}: {state}")
    if not counts:
        raise GenaugError(f"{nothing} whose name has {shlex.join(patterns)}." if patterns else f"{nothing}.")
    typer.echo(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
    if "damaged" in counts:
        raise typer.Exit(1)
