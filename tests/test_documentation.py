"""What README and docs tell a reader to type works: every command parses and composes, and blocks marked ``run`` are run."""

import ast
import inspect
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from typer.main import get_group

import genaug
from benchmarks.__main__ import names
from genaug.cli import app
from genaug.composition import checked, compose_typed
from genaug.generators.pipeline.config import Pipeline
from genaug.tables.spec import is_experiment, read_experiment
from tests.conftest import ROOT, STARTER, environment_of
from tests.data.pictures import classes

BLOCK = re.compile(r"(<!-- run -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
METHODS = sorted((ROOT / "src").rglob("README.md"))
"""Pages whose commands name weights that only their reader has."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *METHODS]
BLOCKS = [
    (path.relative_to(ROOT).as_posix(), bool(run), kind, text)
    for path in PAGES
    for run, kind, text in BLOCK.findall(path.read_text())
]
PAGES_OF: dict[str, list[str]] = {}
"""The pages of each command."""
for page, _, kind, text in BLOCKS:
    for line in text.splitlines() if kind == "sh" else ():
        if line.strip() and not line.startswith("#"):
            PAGES_OF.setdefault(line.split(" #")[0].strip(), []).append(page)
COMMANDS = sorted(PAGES_OF)


def words_of(command: str) -> list[str]:
    """Its words, without settings of the environment before it."""
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words


def overrides_of(words: list[str]) -> list[str] | None:
    """What follows ``python train.py`` or ``genaug run``; None for any other command."""
    if words[:2] in (["python", "train.py"], ["genaug", "run"], ["genaug", "sweep"]):
        return words[2:]
    return None


def first_run(words: list[str]) -> list[str]:
    """The overrides of a command's first run; an experiment's own sweep is part of it."""
    swept: dict[str, str] = {}
    for item in (word.removeprefix("experiment=") for word in words if word.startswith("experiment=")):
        swept = read_experiment(item)["hydra"]["sweeper"]["params"]
    given = {word.partition("=")[0] for word in words}
    overrides = []
    for word in [*(f"{key}={value}" for key, value in swept.items() if key not in given), *checked(words)]:
        if word in ("-m", "--help") or word.startswith("hydra"):
            continue
        override = OverridesParser.create().parse_override(word)
        if isinstance(override.value(), IntervalSweep):  # for Optuna
            word = f"{override.get_key_element()}={override.value().start}"
        elif override.is_sweep_override():
            word = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        overrides.append(word)
    return overrides


TRAINING = [command for command in COMMANDS if overrides_of(words_of(command)) is not None]
CONSOLE = [command for command in COMMANDS if command.startswith("genaug ") and command not in TRAINING]
OTHERS = [command for command in COMMANDS if command not in TRAINING and command not in CONSOLE]


@pytest.mark.parametrize("command", TRAINING)
def test_every_training_command_composes_to_a_valid_run(command):
    words = overrides_of(words_of(command))
    chosen = dict(word.split("=", 1) for word in first_run(words))
    config = compose_typed(first_run(words))
    if any(not page.startswith("src/") for page in PAGES_OF[command]):
        config.check()
    assert config.experiment == chosen.get("experiment")
    launchers = [word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")]
    assert all(f"\n{name} = [" in (ROOT / "pyproject.toml").read_text() for name in launchers)


MODELS = re.findall(
    r"^\| [^|]+ \| `([\w.-]+/[\w.-]+)` \|(.*)\|$",
    (ROOT / "src/genaug/generators/pipeline/README.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("path", "beside"), MODELS, ids=[path for path, _ in MODELS])
def test_what_the_page_of_pipelines_writes_beside_a_model_composes(path: str, beside: str) -> None:
    import diffusers

    words = " ".join(re.findall(r"`(.*?)`", beside)).split()
    config = compose_typed(["leakage=none", "generator=pipeline", f"generator.path={path}", *words])
    assert isinstance(config.generator, Pipeline)
    assert config.generator.pipeline_class is None or hasattr(diffusers, config.generator.pipeline_class)


@pytest.mark.parametrize("command", CONSOLE)
def test_every_console_command_parses_and_its_experiment_exists(command):
    name, *arguments = words_of(command)[1:]
    parsed = get_group(app).commands[name].make_context(name, arguments)  # a wrong option raises
    items = [parsed.params.get("item"), *(parsed.params.get("select") or [])]
    named = [item for item in items if item and "/" in item and "=" not in item]
    assert all(is_experiment(item) for item in named), f"no experiment {named}"


@pytest.mark.parametrize("command", OTHERS)
def test_every_other_command_names_what_exists(command):
    program, *words = words_of(command)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python" and words[:2] == ["-m", "benchmarks"]:
        assert words[2] in names()
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert [program, *words[:2]] == ["pip", "install", "-e"], f"{command}: no test knows this kind of command"
        extras = re.findall(r"\[(.*)\]", words[2])
        assert all(
            f"\n{name} = [" in (ROOT / "pyproject.toml").read_text() for name in ",".join(extras).split(",") if name
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, run, *_ in BLOCKS if run}))
def test_the_blocks_of_a_page_that_are_marked_to_run_do(page, tmp_path):
    folder = classes(tmp_path / "photographs", ("cat", "dog", "owl"), count=30)
    environment = environment_of({"WANDB_MODE": "offline", "COLUMNS": "100"})
    for _, run, kind, text in (block for block in BLOCKS if block[0] == page):
        if not run:
            continue
        commands = [words_of(line.split(" #")[0]) for line in text.splitlines()] if kind == "sh" else [[text]]
        for words in commands:
            if kind == "python":
                program = tmp_path / "block.py"
                program.write_text(words[0].replace("FOLDER", str(folder)))
                command = [str(program)]
            elif words[0] == "genaug":
                command = [str(ROOT / "tests" / "console.py"), *words[1:]]
            else:
                command = [str(ROOT / "train.py"), *words[2:]]
            command = [word.replace("FOLDER", str(folder)) for word in command]
            code, said = STARTER.run(command, tmp_path, environment)
            assert code == 0, f"{page}: {words}\n{said}"


@pytest.mark.parametrize(("page", "text"), [(page, text) for page, _, kind, text in BLOCKS if kind == "python"])
def test_every_python_block_is_valid_code_and_calls_what_genaug_has(page, text):
    calls = [part for part in ast.walk(ast.parse(text, page)) if isinstance(part, ast.Call)]
    for call in calls:
        module, _, name = ast.unparse(call.func).partition(".")
        if module == "genaug":
            known = inspect.signature(getattr(genaug, name)).parameters
            assert {word.arg for word in call.keywords} <= set(known), name


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # a sentence over several lines of code
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert len(messages) >= 15
    for message in messages:
        for part in filter(None, (part.strip(" .:") for part in message.split("…"))):
            assert part in sources, f"{message}: the code does not say {part!r}"


def test_the_readme_is_short_and_leads_with_what_ci_runs():
    readme = PAGES[0].read_text()
    assert len(readme.splitlines()) <= 150
    assert readme.index("make demo") < readme.index("make test") < readme.index("pip install")
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_commands_were_found():
    assert len(MODELS) >= 12
    assert len(TRAINING) >= 15 and len(CONSOLE) >= 20 and len({page for page, run, *_ in BLOCKS if run}) >= 3
