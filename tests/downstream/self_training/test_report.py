"""What a round of self-training says of itself: acceptance, agreement, and which images got another label."""

import pytest
import torch

from genaug.downstream.self_training.report import RoundReport, relabelled_sheet


def report(heads, accepted, labels, seeds, val=None):
    return RoundReport.of(
        number=0, step=5, heads=heads, accepted=torch.tensor(accepted), labels=torch.tensor(labels), seeds=seeds,
        head_names=["weak 1", "strong 1"], val=val, tau=0.6, confidence="mean",
    )  # fmt: skip


def test_a_report_counts_acceptance_agreement_disagreement_and_true_precision():
    sure = lambda *classes: 9 * torch.eye(3)[list(classes)]
    heads = torch.stack([sure(0, 1, 2, 0), sure(0, 1, 2, 1)])
    val = (torch.stack([sure(0, 1, 2, 2), sure(0, 1, 2, 1)]), torch.tensor([0, 0, 2, 2]))
    facts = report(heads, [True, True, True, False], [0, 1, 2, 0], [0, 2, -1, 0], val)
    assert facts.accepted == 0.75
    assert facts.accepted_per_class == [1, 1, 1]
    assert facts.disagreement == {"weak 1, strong 1": 0.25}
    assert facts.seed_agreement == 0.5  # of the two accepted ones with a source
    assert facts.seed_agreement_per_class == [1.0, None, 0.0]
    assert facts.val_accepted == 0.75
    assert facts.val_precision == pytest.approx(2 / 3)
    assert not facts.collapsed
    assert "75.0 %" in facts.lines(["a", "b", "c"])[0]


def test_collapsed_heads_and_an_empty_round_are_said_aloud():
    same = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
    facts = report(same, [False] * 50, [0] * 50, [0] * 50)
    lines = facts.lines(["a", "b", "c"])
    assert facts.collapsed
    assert any("heads differ on fewer" in line for line in lines)
    assert any("no image was accepted" in line for line in lines)
    assert facts.val_precision is None


def test_relabelled_images_are_shown(pool):
    labels = torch.tensor([(sample.class_index + 1) % 10 for sample in pool.samples])
    accepted = torch.ones(len(labels), dtype=torch.bool)
    names = [str(i) for i in range(10)]
    sheet = relabelled_sheet(pool.samples, accepted, labels, names)
    assert sheet is not None
    assert sheet.width > 72
    assert relabelled_sheet(pool.samples, ~accepted, labels, names) is None
