"""The one exception that a user sees as a paragraph instead of a traceback."""


class GenaugError(Exception):
    """Bad input or a bad environment: says what was wrong, where, and what to write instead."""
