"""The console: check data, run, look at what came out. Starts in well under a second and imports no torch."""

import typer

from genaug.cli import cluster, data, pools, results, runs, store
from genaug.cli.options import app
from genaug.core.errors import GenaugError

__all__ = ["app", "cluster", "data", "main", "pools", "results", "runs", "store"]


def main() -> None:
    """Entry point; a user's error is one paragraph."""
    try:
        app(standalone_mode=True)
    except GenaugError as error:
        typer.echo(f"genaug: {error}", err=True)
        raise SystemExit(2) from None
