"""Secrets of the environment are in nothing that a run writes or says, and are refused where somebody types them."""

import re

import pytest

from genaug.app import check_secrets
from genaug.config_source import presets
from genaug.core.errors import GenaugError
from genaug.explanation import known_keys

SECRETS = {
    "WANDB_API_KEY": "5ec4e7" * 6 + "abcd",
    "HF_TOKEN": "hf_5ecretTokenOfHuggingFace",
    "AWS_SECRET_ACCESS_KEY": "5ecret/access/key+of+aws",
    "AWS_SESSION_TOKEN": "5ecret-session-token",
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
    check_secrets(["seed=0", "tracking.entity=me"])
    with pytest.raises(GenaugError, match=rf"tracking\.entity holds the value of {name}") as caught:
        check_secrets(["seed=0", f"tracking.entity={SECRETS[name]}"])
    assert SECRETS[name] not in str(caught.value)


def test_no_key_asks_for_a_secret():
    assert presets()
    asks = re.compile("(^|_)(token|password|secret|api_key|access_key)$")
    assert [f"{group}.{key}" for group, keys in known_keys().items() for key in keys if asks.search(key)] == []
