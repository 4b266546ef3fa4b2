"""Words around the classes: prompt templates, names of learned tokens, and the guard against class names in prompts."""

import re
from collections.abc import Callable, Sequence

from genaug.core.errors import GenaugError
from genaug.core.names import safe_name

TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)
"""The 27 object templates of textual inversion (arXiv 2208.01618, appendix), one drawn uniformly per sample."""

NEUTRAL_WORDS = frozenset("a an and at by for from in no not of on or the to with".split())
"""Words of a class name that say nothing about the class ("bird of paradise")."""


def token_of(name: str) -> str:
    """The learned token ``<word>`` of a class; the word is its ``safe_name``."""
    return f"<{safe_name(name, 'token')}>"


def noisy(token: str, std: float) -> str:
    """The name of a token with noise of this standard deviation: ``<dog>`` becomes ``<dog~0.01>``; 0 is the token itself."""
    return f"{token[:-1]}~{std:g}>" if std else token


def class_tokens(class_names: Sequence[str]) -> tuple[str, ...]:
    """The learned token of each class.

    Raises:
        GenaugError: if two classes give the same word.
    """
    tokens = tuple(map(token_of, class_names))
    for i, token in enumerate(tokens):
        if token in tokens[:i]:
            other = class_names[tokens.index(token)]
            raise GenaugError(
                f"The classes '{other}' and '{class_names[i]}' would share the token {token}: rename one."
            )
    return tokens


def readable(name: str) -> str:
    """Class name as written in a prompt: underscores are blanks."""
    return " ".join(name.replace("_", " ").split())


def names_class(prompt: str, name: str, word_ids: Callable[[str], list[int]]) -> bool:
    """Whether the token ids of a word of the class name occur in the plain part of a prompt.

    Learned tokens ``<...>`` are not plain: they may be called after the class.

    Args:
        prompt: a prompt or template.
        name: class name; its neutral words do not count.
        word_ids: the tokenizer's ids of a plain text.
    """
    plain = [word_ids(piece) for piece in re.split(r"<[^<>\s]+>|\{\}", prompt)]
    for word in re.findall(r"[^\W_]+", name.lower()):
        wanted = word_ids(word)
        if word in NEUTRAL_WORDS or not wanted:
            continue
        for ids in plain:
            if any(ids[i : i + len(wanted)] == wanted for i in range(len(ids) - len(wanted) + 1)):
                return True
    return False


def check_prompts(prompts: Sequence[str], class_names: Sequence[str], word_ids: Callable[[str], list[int]]) -> None:
    """Raise ``GenaugError`` if prompt i names class i: data-centric leakage prevention forbids it."""
    for prompt, name in sorted(set(zip(prompts, class_names, strict=True))):
        if names_class(prompt, name, word_ids):
            raise GenaugError(
                f"The prompt '{prompt}' holds a word of the class name '{name}', which leakage=data_centric forbids. "
                "Write the prompt without it (generator.prompt=...), or allow class names with leakage=none."
            )
