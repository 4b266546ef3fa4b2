"""What a result says of where it was made."""

import shutil
import subprocess

import pytest

from genaug.runs import environment


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_that_of_genaug_and_not_of_a_repository_in_which_it_is_installed(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    file = tmp_path / ".venv" / "environment.py"
    file.parent.mkdir()
    shutil.copy(environment.__file__, file)
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "mine")
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment._git_revision() is None
    git("add", "-f", ".venv")
    git("commit", "-q", "-m", "a checkout of genaug")
    assert environment._git_revision() == git("rev-parse", "HEAD").strip()
