"""What a run says while it works."""

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)
