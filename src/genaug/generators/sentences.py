"""Prompts written by somebody else: captions of images, sentences of a language model about classes, several templates.

One mechanism for every generator that takes a prompt. Which sentence an image gets is drawn once and part of its identity.
"""

import csv
import functools
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import II

from genaug.core import seeding
from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import choice
from genaug.core.identity import CONTENT, content_digest
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.tokens.prompts import check_prompts, readable

TEXT = ("text", "prompt", "caption", "sentence")
CLASS = ("class", "label", "class_name")
IMAGE = ("file_name", "image", "id")
"""Names of a file's columns, in the order in which they are looked for."""

Key = tuple[str, str]
"""``("class", name)`` or ``("file_name", id)``."""


@component("generator/sentences", "sentences")
@dataclass(kw_only=True, slots=True)
class Sentences:
    """Sentences in place of ``generator.prompt``. They may hold ``{name}``, and ``{token}`` where tokens are learned.

    An image takes its own sentences where there are some, else its class's, else ``texts``.
    """

    path: str | None = field(default=None, metadata=CONTENT)
    """A JSONL file with rows ``{"class": NAME, "text": SENTENCE}`` or ``{"file_name": ID, "text": SENTENCE}``, or a CSV file
    with such columns; null for ``texts`` alone."""
    texts: list[str] = field(default_factory=list)
    """Sentences for images of every class, e.g. templates."""
    use: str = choice("draw", ("draw", "mean"))
    """``draw`` one of an image's sentences, or condition on the ``mean`` of their text features."""
    per_variant: bool = True
    """Draw for each variant; false gives all variants of an image the same sentence."""
    class_names: bool = II("leakage.class_names")
    """Whether sentences may name the class."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.path is None and not self.texts:
            raise GenaugError(
                "generator.sentences has no sentence: write generator.sentences.path=FILE.jsonl (or .csv), or "
                "generator.sentences.texts=[SENTENCE,...]."
            )
        if self.path is not None and not Path(self.path).expanduser().is_file():
            raise GenaugError(f"generator.sentences.path={self.path} is not a file.")

    def of(self, source: Sample, name: str) -> Sequence[str]:
        """The sentences that an image edited towards the class ``name`` may get."""
        known: dict[Key, list[str]] = {}
        if self.path is not None:
            known = read_sentences(self.path, content_digest(Path(self.path).expanduser()))
        found = sentences_of(known, source, name) or self.texts
        if not found:
            raise GenaugError(
                f"generator.sentences.path={self.path} has no sentence for the class '{readable(name)}' or the image "
                f'{source.id}: add a line such as {{"class": "{readable(name)}", "text": "a photo of ..."}}, or sentences for '
                "all classes with generator.sentences.texts."
            )
        return found

    def drawn(self, seed: int, source: Sample, index: int, name: str) -> dict[str, Any]:
        """What the image's draws hold of its prompt; of several sentences whose mean counts, one per line."""
        found = self.of(source, name)
        if self.use == "mean":
            return {"prompt": "\n".join(found)}
        return {"prompt": pick(found, seed, source.digest, *([index] if self.per_variant else []))}

    def check(self, dataset: Dataset, fills: Sequence[str]) -> None:
        """Raise ``GenaugError`` for an image without a sentence, one that names its class although it must not, or one with a
        placeholder that is not among ``fills``."""
        labelled = [source for source in dataset.train if source.has_class]
        names = [dataset.class_names[source.class_index] for source in labelled]
        rows = [self.of(source, name) for source, name in zip(labelled, names, strict=True)]
        for sentence in {sentence for row in rows for sentence in row}:
            for hole in re.findall(r"\{\w*\}", sentence):
                if hole not in fills:
                    raise GenaugError(
                        f"generator.sentences: '{sentence}' holds {hole}, which this generator does not fill in: "
                        f"it fills {', '.join(fills) or 'nothing'}."
                    )
        if not self.class_names:
            pairs = sorted({(text, readable(name)) for row, name in zip(rows, names, strict=True) for text in row})
            if hole := next((text for text, _ in pairs if "{name}" in text), None):
                raise GenaugError(
                    f"generator.sentences: '{hole}' names the class, which leakage=data_centric forbids: allow class names "
                    "with leakage=none."
                )
            check_prompts([text for text, _ in pairs], [name for _, name in pairs], plain_words)


def plain_words(text: str) -> list[int]:
    """A number for each word of a text, for looking for class names without a tokenizer."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") for word in words]


def pick(found: Sequence[str], seed: int, *words: object) -> str:
    """One of the sentences."""
    return found[seeding.choice(len(found), seed, "prompt", *words)]


def sentences_of(known: dict[Key, list[str]], source: Sample, name: str) -> list[str]:
    """Those of the image, else those of the class."""
    keys = (("file_name", source.id), ("file_name", Path(source.id).name), ("class", readable(name)))
    return next((known[key] for key in keys if key in known), [])


@functools.lru_cache(maxsize=4)
def read_sentences(path: str, digest: str, key: str = "generator.sentences.path") -> dict[Key, list[str]]:
    """Sentences of a JSONL or CSV file; read once per content (``digest``). ``key`` names it in messages.

    Raises:
        GenaugError: if a row lacks a text, or a class or file name.
    """
    with boundary(f"{key}={path} cannot be read", "Save it as UTF-8 text."):
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    rows: list[tuple[int, str, Any]] = []
    if Path(path).suffix.lower() == ".csv":
        table = csv.DictReader(io.StringIO(text))
        rows = [(table.line_num, str(row), row) for row in table]
    else:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                rows.append((number, line, _json(line)))
    sentences: dict[Key, list[str]] = {}
    for number, shown, row in rows:
        image, name = _cell(row, IMAGE), _cell(row, CLASS)
        sentence = " ".join(_cell(row, TEXT).split())
        if not (image or name) or not sentence:
            raise GenaugError(
                f"{key}={path}, line {number}: expected "
                f'{{"class": NAME, "text": SENTENCE}} or {{"file_name": ID, "text": SENTENCE}}, found {shown[:80]!r}.'
            )
        sentences.setdefault(("file_name", image) if image else ("class", readable(name)), []).append(sentence)
    return sentences


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _cell(row: Any, names: Sequence[str]) -> str:
    """The first of these columns that a row fills with a text."""
    if not isinstance(row, dict):
        return ""
    return next((row[name].strip() for name in names if isinstance(row.get(name), str) and row[name].strip()), "")
