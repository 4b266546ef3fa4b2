"""Secrets of the environment are in nothing that a run writes or says, and are refused where somebody types them."""

import re
import sys

import pytest

from genaug import app
from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.paths import presets
from genaug.core.secret import check_values, check_words
from genaug.keys import known_keys
from genaug.run import run
from genaug.runs.cell import Cell

SECRETS = {
    "WANDB_API_KEY": "5ec4e7" * 6 + "abcd",
    "HF_TOKEN": "hf_5ecretTokenOfHuggingFace",
    "AWS_SECRET_ACCESS_KEY": "5ecret/access/key+of+aws",
    "AWS_SESSION_TOKEN": "5ecret-session-token",
    "SMTP_PASSWORD": "5ecret-pass",
    "COMETAPIKEY": "5ecret-key-of-a-tracker",
}


def test_no_secret_of_the_environment_is_written_or_said(train):
    said = train(
        "-m", "generator=none", "dataset.shots=1,1000", "downstream.num_steps=2", "trainer.accelerator=cpu",
        code=2, env={**SECRETS, "WANDB_MODE": "offline"},
    )  # fmt: skip
    files = [path for path in train.outputs.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and any(path.name == "result.json" for path in files)
    assert any(path.name == "log.txt" and "Traceback" in path.read_text() for path in files), "a failure was recorded"
    for name, value in SECRETS.items():
        assert value not in said, f"{name} is printed"
        assert [path for path in files if value.encode() in path.read_bytes()] == [], f"{name} is written"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_typed_is_refused_before_anything_is_written(name, monkeypatch):
    monkeypatch.setenv(name, SECRETS[name])
    check_words(["seed=0", "tracking.entity=me", "paths.outputs_dir=${oc.env:HOME}"])
    with pytest.raises(GenaugError, match=rf"tracking\.entity holds the value of {name}") as caught:
        check_words(["seed=0", f"tracking.entity={SECRETS[name]}"])
    assert SECRETS[name] not in str(caught.value)
    with pytest.raises(GenaugError, match=rf"dataset\.root holds the value of {name}"):
        check_words([f"dataset.root=${{oc.env:{name}}}"])  # else the message would say that there is no such folder
    with pytest.raises(GenaugError, match=rf"… holds the value of {name}") as caught:
        check_words([f"+{SECRETS[name]}=1"])
    assert SECRETS[name] not in str(caught.value)
    monkeypatch.setenv(name, "seed")  # too short for a secret, and a word of every command line
    check_words(["seed=0"])


def test_the_command_line_is_looked_at_before_anything_else_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    words = ["dataset=image_folder", "dataset.root=${oc.env:HF_TOKEN}", f"paths.outputs_dir={tmp_path / 'outputs'}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    said = "".join(capsys.readouterr())
    assert (
        end.value.code == 2 and "dataset.root holds the value of HF_TOKEN" in said and SECRETS["HF_TOKEN"] not in said
    )
    assert not (tmp_path / "outputs").exists()


def test_a_configuration_that_holds_a_secret_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    """However it came there: by a preset, or by an interpolation that asks for it."""
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    asked = ["generator=none", "tracking.tags=['${oc.env:HF_TOKEN}']", f"paths.outputs_dir={tmp_path / 'outputs'}"]
    with pytest.raises(GenaugError, match=r"tracking\.tags holds the value of HF_TOKEN") as caught:
        run(Cell.of(compose_typed(asked)))
    assert SECRETS["HF_TOKEN"] not in str(caught.value) and not (tmp_path / "outputs").exists()
    with pytest.raises(GenaugError, match="HF_TOKEN"):
        check_values({"a": [{"b": ("x", {SECRETS["HF_TOKEN"]: 1})}]})
    check_values({"a": [{"b": ("x", 1, None)}]})


def test_no_key_asks_for_a_secret():
    assert presets()
    asks = re.compile("(^|_)(token|password|secret|api_key|access_key)$")
    assert [f"{group}.{key}" for group, keys in known_keys().items() for key in keys if asks.search(key)] == []
