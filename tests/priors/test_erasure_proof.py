"""Erasing works on the shipped prior: the concept goes, its neighbours stay."""

import pytest

from benchmarks.erasure_tiny import learn_judge, shares, verdict
from genaug.composition import compose_typed
from genaug.priors.deltas import applied
from genaug.priors.erasure import erase

NUM_STEPS = 6
NUM_LEARNED, NUM_JUDGED = 24, 16  # per digit


@pytest.mark.slow
def test_erasing_seven_leaves_a_quarter_of_the_sevens_and_nine_tenths_of_every_other_digit() -> None:
    config = compose_typed(["leakage=model_centric"])
    prior = config.prior.load("cpu")
    judge = learn_judge(prior, NUM_LEARNED, NUM_STEPS)
    before = shares(prior, judge, NUM_JUDGED, NUM_STEPS)
    assert min(before) >= 0.8  # otherwise the judge knows too little for a verdict
    assert config.leakage.erasure is not None
    delta, _ = erase(prior, "seven", config.leakage.erasure)
    with applied(prior.unet, delta):
        outcome = verdict("seven", before, shares(prior, judge, NUM_JUDGED, NUM_STEPS))
    assert outcome["clean"], outcome["kept"]
