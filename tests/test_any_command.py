"""Whatever is typed: a configuration, an answer, or one sentence, and never another error."""

import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from genaug.app import _for_each_run
from genaug.cli import app
from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.words import readable
from genaug.explanation import message
from tests.runs.finished_run import write_finished

shared = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
few = settings(max_examples=25, deadline=None, suppress_health_check=shared)

keys = st.sampled_from([
    "generator", "dataset", "mix", "downstream", "filter", "leakage", "prior", "preset", "experiment", "seed", "task",
    "augment", "mix.alpha", "mix.m", "generator.t0", "generator.guidance", "generator.tokens.num_steps",
    "generator.tokens", "dataset.shots", "dataset.root", "dataset.split_seed", "downstream.num_steps", "downstream.lr",
    "downstream.backbone", "trainer.devices", "trainer.accelerator", "paths.outputs_dir", "paths.packed_from",
    "tracking", "tracking.tags", "generation.workers", "generator/lora", "hydra/launcher", "hydra.sweep.dir",
    "hydra.mode", "mix.alfa", "nothing", "a.b.c", "", " ", "generator.", ".t0", "generator..t0", "é", "generator@x",
    "filter@generator"
])  # fmt: skip
plain = st.sampled_from([
    "none", "null", "true", "", "0", "1", "-1", "0.5", "1e400", "nan", "inf", "1e-400", "99999999999999999999",
    "digits", "da_fusion", "real_guidance", "synthetic_only", "generate", "fit", "local", "cpu", "ray", "digit_scenes",
    "detector_tiny", "amst_tiny", "[1,2]", "[0.2,", "{a: 1}", "{", "1,2", "range(3)", "choice(1,2)", "glob(*)",
    "${seed}", "${nothing}", "${mix.m}", "${oc.env:HOME}", "${", "???", "_none", "../conf", "/", "a b", "a=b", "'",
    "'a'", "\\", "$", "#", "!!python/object:os.system", "da_fusion/fig9_alpha", "no/item"
])  # fmt: skip
values = st.one_of(plain, st.text(max_size=6), st.integers().map(str), st.floats().map(str))
words = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), keys, values).map(lambda w: f"{w[0]}{w[1]}={w[2]}"),
    st.tuples(st.sampled_from(["", "~", "-", "--"]), keys).map("".join),
    st.text(max_size=12),
)


@few
@given(st.lists(words, min_size=1, max_size=3), st.booleans())
@example(["=null"], False)
@example(["+=null"], False)
@example(["+=none"], False)
def test_any_overrides(typed, sweeps):
    try:
        compose_typed(_for_each_run(readable(typed)))
        if sweeps:
            _for_each_run(["-m", *readable(typed)])
    except Exception as error:
        said = message(error)
        assert said is not None, repr(error)
        assert said.strip() and "Traceback" not in said


COMMANDS = (
    "check", "compare", "experiments", "explain", "export", "gallery", "gc", "leaks", "plan", "quality", "report",
    "slurm", "status", "table", "verdict", "verify", "store push", "store pull", "store diff"
)  # fmt: skip
arguments = st.sampled_from([
    "", ".", "nothing", "outputs", "outputs/runs", "-1", "0", "5", "a=b", "mix.m=x", "mix.m=2", "seed=1,2", "digits",
    "da_fusion/fig9_alpha", "digits_none-00000000000000aa", "00000000000000aa", "file.txt", "é", "a\nb", "%", "[",
    "nothing://x", "memory://x", "pixels", "--features", "--outputs", "--to", "--by", "--metric", "--out",
    "--json", "--nothing", "--help", "-x", "--"
])  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a console stands whose outputs hold one run."""
    monkeypatch.chdir(tmp_path)
    names = {
        "dataset": "digits",
        "generator": "none",
        "mix": "replace",
        "downstream": "classifier_tiny",
        "filter": "none",
    }
    write_finished(
        tmp_path / "outputs" / "runs" / "digits_none-00000000000000aa",
        metrics={"m": 0.5},
        names=names,
        config={key: {"name": name} for key, name in names.items()},
        seconds={"total": 1.0},
        environment={
            "versions": {"genaug": "0.1"},
            "python": "3.11",
            "platform": "Linux",
            "cpu": "c",
            "gpu": None,
            "git_revision": None,
        },
    )
    (tmp_path / "file.txt").write_text("text")
    return tmp_path


@few
@given(st.sampled_from(COMMANDS), st.lists(arguments, max_size=3))
def test_any_words_of_the_console(folder, command, given_words):
    assert os.path.samefile(os.getcwd(), folder)
    done = CliRunner().invoke(app, [*command.split(), *given_words])
    if done.exception is not None and not isinstance(done.exception, SystemExit | GenaugError):
        raise done.exception
    assert isinstance(done.exception, GenaugError) or done.exit_code in (0, 1, 2)
