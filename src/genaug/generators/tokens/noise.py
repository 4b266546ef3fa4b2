"""Noise on learned tokens (DIAGen, Lingenberg et al., arXiv 2408.14584, section 3.1): e + sigma xi, xi ~ N(0, 1)."""

from collections.abc import Iterable

import torch

from genaug.core.seeding import derive
from genaug.priors.model import LearnedTokens


def with_noise(learned: LearnedTokens, wanted: Iterable[str], seed: int) -> LearnedTokens:
    """The learned tokens, and those wanted ones (``<dog~0.01>``) that are noisy copies of them.

    A copy's noise depends on the seed and its own name, so that every image of a class at one level has the same token.
    """
    rows, places = [learned.rows], dict(learned.places)
    total = len(learned.rows)
    for name in sorted(set(wanted) - set(places)):
        base, _, std = name.strip("<>").rpartition("~")
        vectors = learned.rows[list(learned.places[f"<{base}>"])]
        random = torch.Generator().manual_seed(derive(seed, "token noise", name))
        rows.append(vectors + float(std) * torch.randn(vectors.shape, generator=random).to(vectors))
        places[name] = tuple(range(total, total + len(vectors)))
        total += len(vectors)
    return LearnedTokens(torch.cat(rows), places)
