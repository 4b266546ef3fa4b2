"""The console's application and the options that its commands share."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Do generated training images help your model? Check your data, run methods on it, and read the verdict.",
)
Outputs = Annotated[Path, typer.Option(help="The outputs folder.")]
Item = Annotated[str, typer.Argument(help="<paper>/<item>, e.g. da_fusion/fig9_alpha")]
Overrides = Annotated[list[str] | None, typer.Argument(help="As for train.py; without any, those of the last run.")]
