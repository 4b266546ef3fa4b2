"""The console's application and the options that its commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from genaug.cli.completion import complete_item, complete_override
from genaug.core.errors import GenaugError

EXPERIMENT = "experiment="
"""Before an experiment's name, as train.py reads it; the console takes the name with it and without."""
OUTPUTS = "paths.outputs_dir"
app = typer.Typer(
    no_args_is_help=True,
    help="Do generated training images help your model? Check your data, run methods on it, and read the verdict.",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        import genaug

        typer.echo(f"genaug {genaug.__version__}")
        raise typer.Exit


@app.callback()
def console(
    version: Annotated[
        bool, typer.Option("--version", help="The version, and nothing else.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Options before any command."""


def _existing(outputs: Path) -> Path:
    if outputs != Path("outputs") and not outputs.expanduser().is_dir():
        raise GenaugError(f"--outputs {outputs} is not a folder: name the one in which runs were made.")
    return outputs


Outputs = Annotated[Path, typer.Option(help="The outputs folder.")]
FilledOutputs = Annotated[Path, typer.Option(help="The outputs folder.", callback=_existing)]
"""For commands that only read, and would call a folder that is not there an empty one."""
Item = Annotated[
    str,
    typer.Argument(
        help="[experiment=]<paper>/<item>, e.g. da_fusion/fig9_alpha",
        callback=lambda item: item.removeprefix(EXPERIMENT),
        autocompletion=complete_item,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="As for train.py; without any, those of the last run.", autocompletion=complete_override),
]


def placed(words: Sequence[str] | None, outputs: Path) -> tuple[list[str], Path]:
    """The words without ``paths.outputs_dir=FOLDER``, and the outputs folder: FOLDER there is what ``--outputs FOLDER`` says.

    Raises:
        GenaugError: for two different folders.
    """
    left, folders = [], [outputs] if outputs != Path("outputs") else []
    for word in words or ():
        key, _, value = word.partition("=")
        if key.lstrip("+") != OUTPUTS:
            left.append(word)
        elif (folder := Path(value.strip("\"'")).expanduser()) not in folders:
            folders.append(folder)
    if len(folders) > 1:
        raise GenaugError(f"Two outputs folders are named, {folders[0]} and {folders[1]}: leave one out.")
    return left, folders[0] if folders else outputs
