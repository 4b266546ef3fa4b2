"""What one round of labelling did: acceptance, disagreement of the heads, and how right the accepted labels are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genaug.data.sample import Sample
from genaug.downstream.self_training.pseudo_labels import accept, pairwise_disagreement
from genaug.drawing.pen import pen_on

COLLAPSED = 0.005  # heads that disagree on fewer images than this share count as one
MAX_SHOWN, PER_ROW, CELL, CAPTION = 24, 8, 72, 26  # the sheet of relabelled images, in pixels


def share(part: Tensor, whole: Tensor) -> float | None:
    """|part and whole| / |whole|; None for an empty whole."""
    return float((part & whole).sum() / whole.sum()) if bool(whole.any()) else None


@dataclass(kw_only=True, slots=True)
class RoundReport:
    """Facts of one round. Shares are of the images that the name says; None where there is none."""

    round: int
    step: int
    accepted: float
    """Share of unlabelled images that got a label."""
    accepted_per_class: list[int]
    """Number of images accepted as each class."""
    disagreement: dict[str, float]
    """Share of unlabelled images on which two heads differ, per pair."""
    seed_agreement: float | None
    """Share of accepted images, among those with a known source, that keep the class of their source."""
    seed_agreement_per_class: list[float | None]
    """The same per class of the source."""
    val_accepted: float | None
    """Share of validation images that the rule would accept."""
    val_precision: float | None
    """Accuracy of the labels that the rule gives to validation images: its true precision."""

    @classmethod
    def of(
        cls,
        *,
        number: int,
        step: int,
        heads: Tensor,
        accepted: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        head_names: Sequence[str],
        val: tuple[Tensor, Tensor] | None,
        tau: float,
        confidence: str,
    ) -> "RoundReport":
        """From logits [H, n, C] of the unlabelled images, the rule's outcome, and logits and targets of validation ones.

        Args:
            seeds: class of each image's source, -1 where it has none.
        """
        num_classes = heads.shape[2]
        source = torch.tensor(seeds)
        known, same = accepted & (source >= 0), labels == source
        val_mask, val_right = None, None
        if val is not None:
            val_mask, val_labels = accept(val[0], tau, confidence)
            val_right = val_labels == val[1]
        return cls(
            round=number,
            step=step,
            accepted=float(accepted.float().mean()),
            accepted_per_class=torch.bincount(labels[accepted], minlength=num_classes).tolist(),
            disagreement={
                f"{head_names[a]}, {head_names[b]}": value for (a, b), value in pairwise_disagreement(heads).items()
            },
            seed_agreement=share(same, known),
            seed_agreement_per_class=[share(same, known & (source == c)) for c in range(num_classes)],
            val_accepted=None if val_mask is None else float(val_mask.float().mean()),
            val_precision=None if val_mask is None or val_right is None else share(val_right, val_mask),
        )

    @property
    def collapsed(self) -> bool:
        """Whether all heads have become one."""
        return max(self.disagreement.values()) < COLLAPSED

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def numbers(self) -> dict[str, float]:
        """What is logged beside the losses."""
        values = {
            "accepted": self.accepted,
            "seed_agreement": self.seed_agreement,
            "val_accepted": self.val_accepted,
            "val_precision": self.val_precision,
            "head_disagreement": sum(self.disagreement.values()) / len(self.disagreement),
        }
        return {f"labels/{key}": value for key, value in values.items() if value is not None}

    def lines(self, class_names: Sequence[str]) -> list[str]:
        """For the terminal: a summary, and warnings."""
        percent = lambda value: "–" if value is None else f"{100 * value:.1f} %"
        text = [
            f"round {self.round + 1} at step {self.step}: {percent(self.accepted)} of the unlabelled images labelled, "
            f"{percent(self.seed_agreement)} of them as their source; precision on validation images "
            f"{percent(self.val_precision)} ({percent(self.val_accepted)} accepted)"
        ]
        if self.accepted == 0:
            text.append(
                "no image was accepted: this round learns from real images alone. A lower downstream.tau accepts more."
            )
        never = [name for name, count in zip(class_names, self.accepted_per_class, strict=True) if count == 0]
        if self.accepted > 0 and never:
            text.append(f"no image was accepted as {', '.join(never[:10])}{' …' if len(never) > 10 else ''}")
        if self.collapsed:
            text.append(
                f"warning: the heads differ on fewer than {100 * COLLAPSED:g} % of the images, so their agreement says nothing "
                "that one head would not. Try downstream.head_views=independent, head_data=bootstrap or lambda_div=0.1."
            )
        return text


def relabelled_sheet(
    samples: Sequence[Sample], accepted: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Image.Image | None:
    """Accepted images whose label is not their source's: "source > label" above each; None if there is none."""
    changed = [
        (sample, int(label))
        for sample, mask, label in zip(samples, accepted.tolist(), labels.tolist(), strict=True)
        if mask and sample.label and sample.class_index != label
    ][:MAX_SHOWN]
    if not changed:
        return None
    num_rows = -(-len(changed) // PER_ROW)
    sheet = Image.new("RGB", (PER_ROW * (CELL + 4) + 4, num_rows * (CELL + CAPTION + 4) + 4), "white")
    pen = pen_on(sheet)
    for i, (sample, label) in enumerate(changed):
        left, top = 4 + (i % PER_ROW) * (CELL + 4), 4 + (i // PER_ROW) * (CELL + CAPTION + 4)
        pen.text(
            (left, top), f"{class_names[sample.class_index][:10]}\n> {class_names[label][:10]}", fill="black", spacing=0
        )
        sheet.paste(sample.open().resize((CELL, CELL), Image.Resampling.NEAREST), (left, top + CAPTION))
    return sheet
