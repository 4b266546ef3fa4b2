"""Erasing works on the shipped prior: the concept goes, its neighbours stay."""

import torch
import torch.nn.functional as F
from sklearn.svm import SVC

from benchmarks.erasure_tiny import sample, shares, verdict
from genaug.app import compose_typed
from genaug.generators.erasure import erase
from genaug.priors.deltas import applied

NUM_STEPS = 8
NUM_LEARNED, NUM_JUDGED = 24, 16  # per digit


def features(pictures: torch.Tensor) -> torch.Tensor:
    """Grey values at 16 px, [n, 256]."""
    return F.avg_pool2d(pictures.mean(1, keepdim=True), 2).flatten(1)


def test_erasing_seven_leaves_a_quarter_of_the_sevens_and_nine_tenths_of_every_other_digit() -> None:
    config = compose_typed(["leakage=model_centric"])
    prior = config.prior.load("cpu")
    # whoever judges has seen the prior's own digits, nearly all of which are what was prompted (quality.json: 99.5 %)
    digits = torch.arange(10).repeat_interleave(NUM_LEARNED)
    judge = SVC(C=5.0).fit(features(sample(prior, NUM_LEARNED, "learned", NUM_STEPS)), digits)

    def named(pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(judge.predict(features(pictures)))

    before = shares(prior, named, NUM_JUDGED, NUM_STEPS)
    assert min(before) >= 0.8  # otherwise the judge knows too little for a verdict
    assert config.leakage.erasure is not None
    delta, _ = erase(prior, "seven", config.leakage.erasure)
    with applied(prior.unet, delta):
        outcome = verdict("seven", before, shares(prior, named, NUM_JUDGED, NUM_STEPS))
    assert outcome["clean"], outcome["kept"]
