"""The console: check data, run, look at what came out. Starts in well under a second and imports no torch."""

import typer

from genaug.cli import cluster, data, pools, results, runs, store
from genaug.cli.options import app
from genaug.core.errors import GenaugError

__all__ = ["app", "cluster", "data", "main", "pools", "results", "runs", "store"]


def main() -> None:
    """Entry point; a user's error, a full disk and too little memory are one paragraph each."""
    try:
        app(standalone_mode=True)
    except Exception as error:
        if isinstance(error, GenaugError):
            text: str | None = str(error)
        else:
            from genaug.explanation import message

            text = message(error)
            if text is None:
                raise
        typer.echo(f"genaug: {text}", err=True)
        raise SystemExit(2) from None
