"""Names that users chose (data sets, classes, experiments, tags) where not every name can stand.

A file system has no ``owner/set``, W&B no tag of 65 characters, a prompt no token of two words, and a page shows no ``<b>``.
Whatever writes a user's name into such a place writes ``safe_name(name, place)`` instead.
"""

import hashlib
import html
import re
import unicodedata
from typing import Literal

Place = Literal["folder", "wandb", "tag", "token", "latex", "html", "markdown", "csv"]

LIMITS = {"folder": 180, "wandb": 128, "tag": 64, "token": 64}
"""Length in characters, for folders in bytes: a file system takes 255, of which a fingerprint and an ending take some."""
DIGEST = 8  # hexadecimal digits in the name of a cut name

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%_#$"},
}


def safe_name(name: str, place: Place) -> str:
    """``name`` as it may stand in ``place``; a name that may stand there already is left as it is (Unicode form NFC).

    * ``folder``: one part of a path on any system: no separators, none of ``: * ? " < > |``, no dot in front, never empty.
    * ``wandb``, ``tag``: name and tag of a W&B run.
    * ``token``: the word between the brackets of a learned token: lower case, runs of other characters than letters and
      digits as one underscore; a name without any gives its digest.
    * ``latex``, ``html``, ``markdown`` (one cell of a table), ``csv`` (one field, which no spreadsheet takes for a formula):
      text that shows the name and does nothing else.

    A name above the limit of ``LIMITS`` keeps its beginning and its end around a digest of the whole.
    """
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in unicodedata.normalize("NFC", name))
    if place == "latex":
        return "".join(TEX.get(character, character) for character in text)
    if place == "html":
        return html.escape(text)
    if place == "markdown":
        return html.escape(text, quote=False).replace("|", "\\|")
    if place == "csv":
        return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") and not _is_number(text) else text
    if place == "token":
        text = re.sub(r"[\W_]+", "_", text.strip().lower()).strip("_") or f"x{_digest(name)}"
    elif place == "folder":
        text = re.sub(r'[/\\:*?"<>|]', "_", text).strip()
        text = re.sub(r"^\.+", lambda dots: "_" * len(dots.group()), text)
    return _cut(text.strip() or "unnamed", LIMITS[place], "utf-8" if place == "folder" else "utf-32-le")


def _cut(text: str, limit: int, encoding: str) -> str:
    """The text, its middle replaced by a digest where it is longer than ``limit`` in units of the encoding."""
    unit = 4 if encoding == "utf-32-le" else 1
    data = text.encode(encoding)
    if len(data) <= limit * unit:
        return text
    rest = limit - DIGEST - 2
    tail = rest // 3
    begin = data[: (rest - tail) * unit].decode(encoding, errors="ignore")
    end = data[len(data) - tail * unit :].decode(encoding, errors="ignore")
    return f"{begin}_{_digest(text)}_{end}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
