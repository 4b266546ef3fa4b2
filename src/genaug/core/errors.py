"""The one exception that a user sees as a paragraph instead of a traceback."""


class GenaugError(Exception):
    """Bad input or a bad environment: says what was wrong, where, and what to write instead."""


def check_choice(key: str, value: str, options: tuple[str, ...]) -> None:
    """Raise ``GenaugError`` unless ``value`` is one of ``options``."""
    if value not in options:
        raise GenaugError(f"{key}={value} is not one of {', '.join(options)}.")
