"""``genaug push`` with the Hub's own client and a stand-in of the Hub, whose connections break."""

import time

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

import genaug
from genaug.cli import app
from genaug.core.errors import GenaugError
from genaug.data.push import open_repository, push
from tests.data.hub import TOKEN, StandIn


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = StandIn(tmp_path / "hub")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # CI sets it; this Hub is on this machine
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()


def written(folder, *names):
    for name in ("README.md", *names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("---\ntags: [synthetic]\n---\n" if name == "README.md" else name)
    return folder


def test_a_push_makes_a_private_data_set_with_the_files_of_the_folder(hub, tmp_path):
    assert open_repository("me/set") == f"{hub.url}/datasets/me/set"
    push(written(tmp_path / "out", "train/metadata.jsonl", "train/a/1.png"), "me/set")
    assert hub.private == {"me/set": True}
    assert hub.files("me/set") == ["README.md", "train/a/1.png", "train/metadata.jsonl"]
    open_repository("me/open", private=False)
    assert hub.private["me/open"] is False


def test_a_second_push_leaves_no_image_of_the_first_but_what_is_beside_them(hub, tmp_path):
    for name in ("one", "two"):
        open_repository("me/set")
        push(written(tmp_path / name, f"train/{name}.png"), "me/set")
        (hub.root / "me/set/NOTES.md").write_text("mine")
    assert hub.files("me/set") == ["NOTES.md", "README.md", "train/two.png"] and len(hub.commits) == 2


def test_nothing_private_goes_into_a_repository_that_everybody_may_see(hub):
    open_repository("me/set", private=False)
    with pytest.raises(GenaugError, match=r"everybody may see it: add --public"):
        open_repository("me/set")
    open_repository("me/mine")
    with pytest.raises(GenaugError, match=r"me/mine is there and private: leave --public out"):
        open_repository("me/mine", private=False)


def test_a_token_that_is_refused_is_one_sentence(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
    with pytest.raises(GenaugError, match=r"me/set cannot be opened on the Hub \(.*401.*log in with `hf auth login`"):
        open_repository("me/set")
    assert not hub.private


@pytest.mark.parametrize(
    "place", ["create", "main"]
)  # at its creation, and at the listing, asking and sending of files
def test_a_connection_that_breaks_leaves_nothing_half_sent_and_the_same_command_goes_on(
    hub, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it tries again
    folder = written(tmp_path / "out", "train/a.png")
    hub.cut = {place: 99}
    with pytest.raises(GenaugError, match=r"on the Hub \(.*run the same command again"):
        open_repository("me/set")
        push(folder, "me/set")
    assert not hub.commits
    hub.cut = {}
    open_repository("me/set")
    push(folder, "me/set")
    assert hub.files("me/set", "train/*") == ["train/a.png"]


def test_the_stand_in_refuses_a_card_without_a_head(hub, tmp_path):
    folder = written(tmp_path / "out", "train/a.png")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump('words')}---\n")
    open_repository("me/set")
    with pytest.raises(GenaugError, match="Invalid metadata"):
        push(folder, "me/set")


def test_the_command_sends_generated_images_alone_unless_told_otherwise(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fast = ["dataset.shots=1", "downstream.num_steps=2", "downstream.warmup_steps=0", "tracking=local", "mix.m=2"]
    genaug.run(["generator=real_guidance", "generator.num_steps=4", *fast])
    real, pool = genaug.load_pool("real_guidance")
    assert (len(real.train), len(pool.samples)) == (10, 20)  # all variants, not the first of each
    done = CliRunner().invoke(app, ["push", "real_guidance", "me/set"])
    assert done.exit_code == 0 and f"{hub.url}/datasets/me/set" in done.output, done.output
    pictures = hub.files("me/set", "*.png")
    assert hub.private == {"me/set": True} and len(pictures) == 20
    assert all(name.startswith("train/") and "/generated_" in name for name in pictures)
    done = CliRunner().invoke(app, ["push", "real_guidance", "me/set", "--public"])
    assert isinstance(done.exception, GenaugError) and hub.private == {"me/set": True}
    done = CliRunner().invoke(app, ["push", "real_guidance", "me/other", "--real", "--dry-run"])
    assert "30 train" in done.output and "nothing was sent" in done.output and "me/other" not in hub.private
