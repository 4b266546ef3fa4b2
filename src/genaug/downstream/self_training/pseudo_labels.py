"""Losses and rules of self-training: FixMatch, FlexMatch, DebiasMatch, DST, Multi-Head Co-Training and AMST.

Pure functions of logits. Throughout, ``weak`` and ``strong`` are logits [b, C] of two views of the same unlabelled images;
pseudo-labels carry no gradient; a loss over unlabelled images is divided by the whole batch, not by the accepted count.
A confidence equal to the threshold is accepted.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CLAMP = 1e-6  # keeps DST's logarithm finite


def confidence(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest softmax probability [b] and its class [b]."""
    return logits.detach().softmax(dim=1).max(dim=1)


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean over all rows of the cross-entropy of the accepted ones; 0 if none is."""
    return (F.cross_entropy(logits, labels, reduction="none") * mask).mean()


def fixmatch(weak: Tensor, strong: Tensor, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """FixMatch (arXiv 2001.07685): the weak view labels the strong one where it is confident.

    Args:
        threshold: tau, or one per class [C], looked up by the pseudo-label.

    Returns:
        the loss, and the acceptance mask [b].
    """
    conf, labels = confidence(weak)
    mask = conf >= (threshold[labels] if isinstance(threshold, Tensor) else threshold)
    return masked_cross_entropy(strong, labels, mask), mask


def flexmatch_thresholds(last_label: Tensor, num_classes: int, tau: float, warmup: bool) -> Tensor:
    """FlexMatch (arXiv 2110.08263): tau M(beta_c) with M(x) = x / (2 - x) and beta_c = n_c / max n, [C].

    Args:
        last_label: [N], per unlabelled image the class of its last confident prediction (>= tau), -1 while there is none.
        warmup: the number of images without one counts for the maximum too.
    """
    counts = torch.bincount(last_label + 1, minlength=num_classes + 1).float()
    top = counts.max() if warmup else counts[1:].max()
    beta = counts[1:] / top.clamp(min=1)
    return tau * beta / (2 - beta)


def debiased_mean(mean: Tensor, weak: Tensor, momentum: float) -> Tensor:
    """DebiasMatch (arXiv 2201.01490): the running mean prediction [C] after one more batch."""
    return momentum * mean + (1 - momentum) * weak.detach().softmax(dim=1).mean(dim=0)


def debiasmatch(
    weak: Tensor, strong: Tensor, label_mean: Tensor, loss_mean: Tensor, strength: float, tau: float
) -> tuple[Tensor, Tensor]:
    """FixMatch on W - strength log(mean) for the labels and S + strength log(mean) for the loss.

    Args:
        label_mean: running mean prediction [C] that debiases the labels: the updated one in TLlib, the old one in the
            authors' code.
        loss_mean: the one that sets the margins of the loss: the updated one in both.
    """
    return fixmatch(weak - strength * label_mean.log(), strong + strength * loss_mean.log(), tau)


def dst_worst_case(main_l: Tensor, worst_l: Tensor, main_u: Tensor, worst_u: Tensor, weight: float) -> Tensor:
    """DST (arXiv 2202.07136): the worst-case head agrees with the main head on labelled and disagrees on unlabelled images.

    eta' CE(A_l, y_l) - mean log(min(1, 1 - softmax(A_u)[y_u] + 1e-6)), y from the main head. The features come through a
    gradient reversal.
    """
    agree = F.cross_entropy(worst_l, main_l.detach().argmax(dim=1))
    labels = main_u.detach().argmax(dim=1, keepdim=True)
    prob = worst_u.softmax(dim=1).gather(1, labels)
    return weight * agree - (1 - prob + CLAMP).clamp(max=1).log().mean()


def reversal_strength(step: int) -> float:
    """DST's schedule of the gradient reversal: 0.2 / (1 + exp(-i / 1000)) - 0.1, from 0 to 0.1."""
    return 0.2 / (1 + math.exp(-step / 1000)) - 0.1


class ReverseGradient(torch.autograd.Function):
    """Identity forwards; the gradient times ``-strength`` backwards."""

    @staticmethod
    def forward(ctx, x: Tensor, strength: float) -> Tensor:  # type: ignore[override]
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.strength * grad, None


def multi_head_co_training(weak: Sequence[Tensor], strong: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Multi-Head Co-Training (arXiv 2107.04795): each of three heads learns what the two others agree on; no threshold.

    Returns:
        the sum of the heads' losses, and per head the mask of the labels that it was given, bool [3, b].
    """
    labels = [logits.detach().argmax(dim=1) for logits in weak]
    losses, masks = [], []
    for head in range(3):
        first, second = (labels[other] for other in range(3) if other != head)
        masks.append(first == second)
        losses.append(masked_cross_entropy(strong[head], first, masks[-1]))
    return torch.stack(losses).sum(), torch.stack(masks)


def accept(heads: Tensor, tau: float, rule: str) -> tuple[Tensor, Tensor]:
    """AMST's labelling rule (DreamDA, arXiv 2403.12803; the constants are ours): consistent and confident.

    Args:
        heads: logits [H, b, C] of the auxiliary heads.
        rule: ``mean`` or ``min`` of the heads' largest probabilities.

    Returns:
        the acceptance mask [b] (all heads agree and the confidence is at least tau), and the first head's label [b].
    """
    conf, labels = heads.detach().softmax(dim=2).max(dim=2)
    agreed = (labels == labels[0]).all(dim=0)
    score = conf.mean(dim=0) if rule == "mean" else conf.min(dim=0).values
    return agreed & (score >= tau), labels[0]


def given_weights(previous: Tensor, accepted: Tensor, labels: Tensor, accumulate: bool) -> Tensor:
    """Class weights [n, C] of the labelled set's next round: a row of zeros for an image without label.

    Args:
        previous: those of the round before.
        accumulate: keep earlier labels of images that are not accepted now; false forgets them.
    """
    fresh = F.one_hot(labels, previous.shape[1]).to(previous.dtype) * accepted[:, None]
    return torch.where(accepted[:, None], fresh, previous) if accumulate else fresh


def mean_cross_entropy(heads: Sequence[Tensor], targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_pre: mean cross-entropy of several heads, each with its own view's logits [b, C], on class weights [b, C].

    Args:
        weights: how often each head counts each image, [H, b]; None counts each once.
    """
    losses = torch.stack([F.cross_entropy(logits, targets, reduction="none") for logits in heads])
    return losses.mean() if weights is None else (losses * weights).mean()


def head_overlap(first: Tensor, second: Tensor) -> Tensor:
    """L_div of a pair of heads: mean |W_a W_b^T| of their weights [C, d], as in tri-training."""
    return (first @ second.T).abs().mean()


def pairwise_disagreement(heads: Tensor) -> dict[tuple[int, int], float]:
    """Share of images on which two heads predict different classes, for every pair of ``heads`` [H, b, C]."""
    labels = heads.argmax(dim=2)
    return {
        (a, b): float((labels[a] != labels[b]).float().mean()) for a, b in itertools.combinations(range(len(labels)), 2)
    }
