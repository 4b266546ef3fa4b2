"""The one exception that a user sees as a paragraph instead of a traceback."""

import contextlib
import re
from collections.abc import Iterator


class GenaugError(Exception):
    """Bad input or a bad environment: says what was wrong, where, and what to write instead."""


def check_choice(key: str, value: str, options: tuple[str, ...]) -> None:
    """Raise ``GenaugError`` unless ``value`` is one of ``options``."""
    if value not in options:
        raise GenaugError(f"{key}={value} is not one of {', '.join(options)}.")


def lacks(component: object, method: str) -> GenaugError:
    """What the base class of components raises where somebody's own component has no ``method``."""
    own = type(component)
    base = next(cls for cls in own.__mro__ if method in vars(cls))
    return GenaugError(
        f"{own.__module__}.{own.__qualname__} has no method {method}: write one; "
        f"{base.__module__}.{base.__qualname__}.{method} says what it takes and returns."
    )


@contextlib.contextmanager
def boundary(what: str, then: str = "") -> Iterator[None]:
    """The guard at a boundary to a foreign library or file: any failure inside becomes one sentence.

    Args:
        what: what could not be done and where, e.g. ``"labels.json, annotation 3 cannot be read"``.
        then: what to do about it, as a sentence.

    Raises:
        GenaugError: ``<what> (<the first line of the failure>). <then>``; one of ours goes through as it is.
    """
    try:
        yield
    except GenaugError:
        raise
    except Exception as error:
        raise GenaugError(f"{what} ({first_line(error)}). {then}".rstrip()) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; torch's kinds differ by device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def release_memory() -> None:
    """Give back what a failed batch or run has left on the device."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")  # whoever has not imported it holds nothing
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def first_line(error: BaseException) -> str:
    """The first line of a failure's message, with its kind where the message is but a key or a number; YAML's errors say what
    they found and where in later lines."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or error}"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__} {text}" if isinstance(error, KeyError) or not re.search("[a-z]", text) else text
