"""TAB in a shell: what is offered after ``genaug run generator=`` and the like."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genaug.cli import app
from tests.conftest import ROOT


def offered(*words: str) -> list[str]:
    """As bash asks: the words of the line so far, of which the last is the one to complete."""
    line = {
        "COMP_WORDS": "\n".join(("genaug", *words)),
        "COMP_CWORD": str(len(words)),
        "_GENAUG_COMPLETE": "complete_bash",
    }
    return CliRunner().invoke(app, prog_name="genaug", env=line).output.split()


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("run", "generator", "=", "da_f"), ["da_fusion", "da_fusion_paper"]),
        (("run", "generator=da_f"), ["generator=da_fusion"]),  # zsh and fish leave the word whole
        (("run", "generator", "="), ["none", "da_fusion"]),
        (("sweep", "generator", "=", "none,real_guid"), ["none,real_guidance"]),
        (("run", "generator", "=", "none", "mix", "=", "con"), ["concat"]),
        (("run", "d"), ["dataset=", "downstream="]),
        (("run", "aug"), ["augment=none", "augment=randaugment"]),
        (("run", "generator=none", "generator.num_s"), ["generator.num_steps=", "generator.num_steps=VALUE"]),
        (("run", "prior.dty"), ["prior.dtype=float32", "prior.dtype=bfloat16"]),
        (("run", "prior.fuse"), ["prior.fuse_qkv=false", "prior.fuse_qkv=true"]),
        (("run", "experiment", "=", "own/"), ["own/classification", "own/detection"]),
        (("sweep", "hydra/launcher", "=", "sub"), ["submitit_slurm"]),
        (("plan", "own/c"), ["own/classification"]),
        (("plan", "own/classification", "preset", "=", "sm"), ["smoke"]),
        (("check", "folder", "prior", "=", "sd1"), ["sd15"]),
        (("verdict", "demo/c"), ["demo/compare"]),
        (("verdict", "experiment", "=", "demo/c"), ["demo/compare"]),
        (("verdict", "generator", "=", "real_guid"), ["real_guidance"]),
        (("plan", "experiment", "=", "own/c"), ["own/classification"]),
        (("explain", "generator", "=", "psld_f"), ["psld_fast"]),
    ],
)
def test_presets_keys_values_and_experiments_are_offered(words, some):
    found = offered(*words)
    assert set(some) <= set(found)
    assert all(line.startswith(words[-1].strip("=")) for line in found)


def test_runs_are_offered_where_a_pool_is_named(tmp_path):
    (tmp_path / "runs" / "digits_da_fusion_s0-1f").mkdir(parents=True)
    for command in ("export", "gallery", "quality", "push", "leaks"):
        assert offered(command, "--outputs", str(tmp_path), "digits_d") == ["digits_da_fusion_s0-1f"]


def test_a_folder_without_a_configuration_is_no_hindrance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "generator=none" in offered("run", "gener")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    """A real bash with the script that ``--install-completion`` writes, and a real ``genaug``."""
    command = tmp_path / "genaug"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/console.py "$@"\n')
    command.chmod(0o755)
    typed = """
        eval "$(genaug --show-completion bash)"
        COMP_WORDS=(genaug run generator = psld_fast_p); COMP_CWORD=4
        $(complete -p genaug | grep -o '_genaug[a-z_]*') genaug; echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", typed], capture_output=True, text=True, env={**os.environ, "PATH": path}, cwd=ROOT
    )
    assert done.stdout.split() == ["psld_fast_paper"], done.stderr
