"""Streams: a function of the draw's number, with the promised frequencies, and the baseline's when alpha is 0."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from genaug.core.errors import GenaugError
from genaug.data.mixing import Concat, Joined, Mix, Paste, RealOnly, Replace, ReplaceGlobal, Stream, SyntheticOnly
from genaug.data.pool import Pool
from genaug.data.sample import Sample, SyntheticSample

PIXEL = np.zeros((1, 1, 3), dtype=np.uint8)
REAL = [Sample(id=f"real/{i}", digest=str(i), image=PIXEL, label={i % 3: 1.0}) for i in range(10)]
NUM_DRAWS = 4000


def make_pool(num_variants: int, without: tuple[int, ...] = ()) -> Pool:
    samples = tuple(
        SyntheticSample(
            id=f"synthetic/{i}/{j}", digest=f"{i}/{j}", image=PIXEL, label=REAL[i].label, source_id=REAL[i].id, index=j
        )
        for j in range(num_variants)
        for i in range(len(REAL))
        if i not in without
    )
    return Pool(fingerprint="0" * 16, folder=Path("nowhere"), samples=samples)


def ids(
    mix: Mix, pool: Pool | None, count: int = NUM_DRAWS, seed: int = 0, with_replacement: bool = False
) -> list[str]:
    stream = Stream(mix, REAL, pool, seed, with_replacement)
    return [stream[d].sample.id for d in range(count)]


def plausible(successes: int, trials: int, share: float) -> bool:
    """Not beyond what chance does once in ten thousand experiments."""
    return binomtest(successes, trials, share).pvalue > 1e-4


@pytest.mark.parametrize("mix_class", [Replace, ReplaceGlobal])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_the_synthetic_share_is_alpha_whatever_m_is(mix_class: type[Replace], alpha: float):
    for m in (1, 5):
        drawn = ids(mix_class(alpha=alpha, m=m), make_pool(m))
        assert plausible(sum(name.startswith("synthetic") for name in drawn), NUM_DRAWS, alpha)


def test_variants_of_an_image_are_drawn_equally_often():
    for mix in (Replace(alpha=1.0, m=4), Replace(alpha=0.5, m=4), ReplaceGlobal(alpha=0.5, m=4)):
        synthetic = [name for name in ids(mix, make_pool(4)) if name.startswith("synthetic")]
        variants = Counter(name[-1] for name in synthetic)
        assert set(variants) == set("0123")
        assert all(plausible(count, len(synthetic), 0.25) for count in variants.values())


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("mix", [Replace(alpha=0.0, m=3), Replace(alpha=0.0, m=0), ReplaceGlobal(alpha=0.0, m=3)])
def test_alpha_zero_is_the_baseline_bit_for_bit(mix: Mix, with_replacement: bool):
    stream = Stream(mix, REAL, make_pool(3), 7, with_replacement)
    baseline = Stream(RealOnly(), REAL, None, 7, with_replacement)
    assert all(stream[d] == baseline[d] for d in range(200))
    assert not mix.uses_pool  # so that no image is made


def test_a_local_replacement_is_a_variant_of_the_very_image_that_the_baseline_draws():
    baseline, mixed = ids(RealOnly(), None), ids(Replace(alpha=0.5, m=3), make_pool(3))
    assert all(name.split("/")[1] == real.split("/")[1] for name, real in zip(mixed, baseline, strict=True))


def test_more_alpha_replaces_more_of_the_same_draws():
    less, more = ids(Replace(alpha=0.3, m=3), make_pool(3)), ids(Replace(alpha=0.6, m=3), make_pool(3))
    assert all(name == other for name, other in zip(less, more, strict=True) if name.startswith("synthetic"))


def test_an_image_without_variants_is_always_drawn_as_it_is():
    drawn = ids(Replace(alpha=1.0, m=3), make_pool(3, without=(4,)))
    assert "real/4" in drawn
    assert all(name == "real/4" or name.startswith("synthetic") for name in drawn)
    for mix in (Replace(alpha=1.0, m=3), ReplaceGlobal(alpha=1.0, m=3)):
        assert ids(mix, make_pool(0)) == ids(mix, None) == ids(RealOnly(), None)


def test_global_replacement_draws_from_the_whole_pool():
    pool = make_pool(2)
    drawn = Counter(ids(ReplaceGlobal(alpha=1.0, m=2), pool))
    assert set(drawn) == {sample.id for sample in pool.samples}
    assert all(plausible(count, NUM_DRAWS, 1 / len(pool.samples)) for count in drawn.values())


def test_an_epoch_of_concat_shows_every_real_and_synthetic_image_once():
    pool = make_pool(3)
    epoch = ids(Concat(m=3), pool, count=len(REAL) * 4)
    assert Counter(epoch) == Counter([s.id for s in (*REAL, *pool.samples)])


def test_synthetic_only_never_shows_a_real_image():
    pool = make_pool(3)
    assert Counter(ids(SyntheticOnly(m=3), pool, count=30)) == Counter(s.id for s in pool.samples)
    with pytest.raises(GenaugError, match="needs synthetic images"):
        Stream(SyntheticOnly(m=3), REAL, None, 0)


def test_a_draw_depends_on_its_number_alone():
    mix, pool = Replace(alpha=0.5, m=3), make_pool(3)
    forwards = Stream(mix, REAL, pool, 0)
    expected = [forwards[d] for d in range(100)]
    backwards = Stream(mix, REAL, pool, 0)
    assert [backwards[d] for d in reversed(range(100))] == expected[::-1]
    assert Stream(mix, REAL, pool, 0)[57] == expected[57]
    assert len({draw.augment_seed for draw in expected}) == 100


@pytest.mark.parametrize("with_replacement", [False, True])
def test_another_seed_draws_other_images_and_augments_them_otherwise(with_replacement: bool):
    one, other = (Stream(RealOnly(), REAL, None, seed, with_replacement) for seed in (0, 1))
    assert [one[d].sample.id for d in range(30)] != [other[d].sample.id for d in range(30)]
    assert not {one[d].augment_seed for d in range(30)} & {other[d].augment_seed for d in range(30)}


def test_joined_sequences_are_read_as_one():
    joined, whole = Joined(REAL[:3], REAL[3:]), REAL
    assert len(joined) == 10 and list(joined) == whole and joined[2:5] == whole[2:5]
    assert [joined[place] for place in range(-10, 10)] == [whole[place] for place in range(-10, 10)]
    with pytest.raises(IndexError):
        joined[10]


def test_shuffled_epochs_show_each_image_once_and_replacement_does_not():
    assert Counter(ids(RealOnly(), None, count=30)) == {sample.id: 3 for sample in REAL}
    assert ids(RealOnly(), None, count=10) != ids(RealOnly(), None, count=20)[10:]
    drawn = Counter(ids(RealOnly(), None, with_replacement=True))
    assert len(set(drawn.values())) > 1
    assert all(plausible(count, NUM_DRAWS, 0.1) for count in drawn.values())


@pytest.mark.parametrize(
    ("fields", "match"), [({"alpha": 1.2}, "mix.alpha=1.2"), ({"m": 0}, "mix.m=0"), ({"m": -1}, "mix.m=-1")]
)
def test_impossible_mixes_are_refused_by_name(fields: dict, match: str):
    with pytest.raises(GenaugError, match=match):
        Replace(**fields)


def test_paste_draws_the_baselines_images_and_lends_synthetic_ones_with_probability_alpha():
    pool = make_pool(2)
    assert ids(Paste(m=2), pool, count=60) == ids(RealOnly(), None, count=60)

    def lent(mix: Mix, pool: Pool | None, count: int = NUM_DRAWS) -> list[str]:
        stream = Stream(mix, REAL, pool, 0)
        return [mix.lender(stream, seed).id for seed in range(count)]

    assert set(lent(Paste(m=2), pool)) == {sample.id for sample in pool.samples}
    assert plausible(sum(name.startswith("real") for name in lent(Paste(alpha=0.3, m=2), pool)), NUM_DRAWS, 0.7)
    assert lent(Paste(alpha=0.0, m=2), pool, 60) == lent(Paste(m=2), None, 60) == lent(RealOnly(), None, 60)
    assert Paste(m=1).uses_pool and not Paste(alpha=0.0, m=1).uses_pool


def test_an_image_without_objects_lends_none():
    empty = replace(REAL[0], id="real/empty", label={})
    stream = Stream(RealOnly(), [empty, REAL[1]], None, 0)
    assert {stream.mix.lender(stream, seed).id for seed in range(30)} == {"real/1"}
