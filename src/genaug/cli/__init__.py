"""The console: check data, run, look at what came out. Starts in well under a second and imports no torch."""

import typer

from genaug.cli import data, pools, results, runs
from genaug.cli.options import app
from genaug.core.errors import GenaugError

__all__ = ["app", "data", "main", "pools", "results", "runs"]


def main() -> None:
    """Entry point; a user's error is one paragraph."""
    try:
        app(standalone_mode=True)
    except GenaugError as error:
        typer.echo(f"genaug: {error}", err=True)
        raise SystemExit(2) from None
