"""What TAB offers: commands' presets, keys, their values, experiments and runs (``genaug --install-completion``).

Every command imports this module, so it imports nothing itself before TAB is pressed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

EXPERIMENT = "experiment"


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """``generator=``, ``generator.t0=``, and what may stand behind them; of ``a,b`` the last value.

    Bash takes ``KEY=VALUE`` for three words: there the words before hold the key, and the answer is the value alone.
    """
    before = _words_before(context)
    if not incomplete.rpartition("=")[1] and (key := _key_before(before)):
        head, key, value = "", key, incomplete
    elif "=" in incomplete:
        key, _, value = incomplete.partition("=")
        head = f"{key}="
    else:
        found = [f"{key}=" for key in _keys(incomplete) if key.startswith(incomplete)]
        return found if len(found) != 1 else _with_values(found[0])
    values, comma, last = value.rpartition(",")
    return [f"{head}{values}{comma}{option}" for option in _options(key) if option.startswith(last)]


def complete_item(context: typer.Context, incomplete: str) -> list[str]:
    """Names of experiments, with ``experiment=`` before them or without."""
    key, equals, value = incomplete.rpartition("=")
    return [f"{key}{equals}{item}" for item in _options(EXPERIMENT) if item.startswith(value)]


def complete_selection(context: typer.Context, incomplete: str) -> list[str]:
    """An experiment, or a key with its value."""
    found = complete_override(context, incomplete)
    return (
        found
        if "=" in incomplete or _key_before(_words_before(context))
        else [*complete_item(context, incomplete), *found]
    )


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs' folders."""
    outputs = Path(str(context.params.get("outputs") or "outputs")).expanduser()
    return sorted(path.name for path in (outputs / "runs").glob("*") if path.name.startswith(incomplete))


def _words_before(context: typer.Context) -> list[str]:
    words: list[str] = []
    for param in context.command.params:
        if param.param_type_name == "argument":
            value = context.params.get(param.name or "")
            words += [str(value)] if isinstance(value, str | Path) else map(str, value or ())
    return words


def _key_before(words: Sequence[str]) -> str:
    """The key whose value is typed, where the shell split the word at ``=``; empty otherwise."""
    if words and words[-1] == "=":
        return words[-2] if len(words) > 1 else ""
    return words[-1] if words and (words[-1] in _keys(words[-1])) else ""


def _with_values(key: str) -> list[str]:
    """A key that is the only one to be meant, with its values: with nothing to choose the shell would put a blank behind it."""
    return [f"{key}{option}" for option in _options(key[:-1])] or [key, f"{key}VALUE"]


def _keys(start: str) -> Iterable[str]:
    """Groups, single keys, and the keys of the group that stands before a dot."""
    group = start.rpartition(".")[0]
    if group:
        from genaug.core.registry import load_components
        from genaug.keys import known_keys

        load_components()
        return [f"{group}.{key}" for key in sorted(known_keys().get(group, ()))]
    from genaug.core.paths import LAUNCH, presets

    return sorted([*(group for group in presets() if "/" not in group), *LAUNCH, EXPERIMENT, "seed", "task"])


def _options(key: str) -> list[str]:
    """What a key may hold, where it is one of a few words."""
    from genaug.core.paths import experiment_files, presets

    if key == EXPERIMENT:
        return sorted(experiment_files())
    names = presets(groups_of_hydra=True).get(key)
    if names or "." not in key:
        return names or []
    from genaug.keys import known_options

    return known_options(key)
