"""Checkpoints on a full disk."""

import contextlib
from pathlib import Path

import pytest
import torch

from genaug.core import checkpoints
from genaug.explanation import message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_checkpoint_on_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "whole", lambda path: contextlib.nullcontext(Path("/dev/full")))
    with pytest.raises(Exception) as caught:  # torch says "unexpected pos"
        checkpoints.save_checkpoint({"weights": torch.zeros(100_000)}, tmp_path / "resume.ckpt")
    assert "The disk is full" in (message(caught.value) or "")
