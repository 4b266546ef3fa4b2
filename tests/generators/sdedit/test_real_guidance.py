"""Real Guidance and what it shares with DA-Fusion: levels, prompts, identities, resumption."""

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.generators.base import steps_taken
from genaug.generators.publishing import make_pool
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.generators.tokens.config import TextualInversion
from genaug.priors.noise import make_scheduler
from tests.generators.conftest import make_dataset


def real_guidance(**changes) -> RealGuidance:
    return RealGuidance(**{"name": "rg", "seed": 0, "class_names": False, "num_steps": 10, "guidance": 3.0, **changes})


def da_fusion(**changes) -> DAFusion:
    return DAFusion(**{"name": "da", "seed": 0, "class_names": False, "tokens": TextualInversion(seed=0), **changes})


@pytest.mark.parametrize("t0", [0, -0.1, 1.1, "half", True, [0.5, 0], float("nan")])
@pytest.mark.parametrize("make", [real_guidance, da_fusion])
def test_levels_outside_0_to_1_are_refused(make, t0):
    with pytest.raises(GenaugError, match=r"generator\.t0=.* in \(0, 1\]"):
        make(t0=t0)


@pytest.mark.parametrize("t0", [[], None])
def test_no_level_is_refused(t0):
    with pytest.raises(GenaugError, match="holds no level"):
        real_guidance(t0=t0)


def test_a_level_that_takes_no_step_says_what_to_raise():
    with pytest.raises(GenaugError, match=r"raise num_steps to at least 20, or t0 to at least 0\.1"):
        real_guidance(t0=0.05, num_steps=10)
    assert real_guidance(t0=0.05, num_steps=20).t0 == 0.05


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_steps": 1000, "t0": [0.5, 1.0]}, r"num_steps=1000 from generator\.t0=1 begins at timestep 1000.*=500"),
        ({"num_steps": 1000, "t0": 1.0, "scheduler": "pndm_ref"}, "begins at timestep 1000"),
        (
            {"num_steps": 51, "scheduler": "lcm"},
            r"scheduler=lcm has no timesteps for generator\.num_steps=51: write 50",
        ),
        ({"num_steps": 999, "scheduler": "unipc"}, "write 998 or fewer"),
    ],
)
def test_schedules_that_would_begin_beyond_the_training_or_have_too_few_timesteps_are_refused(prior, fields, said):
    with pytest.raises(GenaugError, match=said):
        real_guidance(**fields)
    for scheduler, num_steps in (("ddim", 999), ("ddim_trailing", 1000), ("lcm", 50), ("unipc", 998)):
        config = real_guidance(scheduler=scheduler, num_steps=num_steps, t0=1.0)
        schedule = make_scheduler(config.scheduler, prior.betas)
        schedule.set_timesteps(config.num_steps)
        assert schedule.timesteps.max() == 999 and len(schedule.timesteps) == num_steps


@pytest.mark.parametrize(
    "key, value", [("scheduler", "euler"), ("resize", "stretch"), ("num_steps", 0), ("batch_size", 0)]
)
def test_other_wrong_values_name_their_key(key, value):
    with pytest.raises(GenaugError, match=rf"generator\.{key}={value}"):
        real_guidance(**{key: value})


def test_steps_taken_are_not_lost_to_rounding():
    assert [steps_taken(50, t0) for t0 in (0.25, 0.5, 0.58, 0.75, 1.0)] == [12, 25, 29, 37, 50]


@pytest.mark.parametrize("make", [real_guidance, da_fusion])
def test_t0_is_a_number_or_a_list(make, dataset):
    """a number gives itself, a list one of its levels at equal rates."""
    assert make(t0=0.5).draw(dataset.train[0], 3, dataset) == {"t0": 0.5}
    generator = make(t0=[0.25, 0.5, 0.75, 1.0])
    drawn = [generator.draw(source, j, dataset)["t0"] for source in dataset.train for j in range(200)]
    other = make(t0=generator.t0, seed=1)
    assert drawn != [other.draw(source, j, dataset)["t0"] for source in dataset.train for j in range(200)]
    counts = np.array([drawn.count(level) for level in generator.t0])
    n, p = len(drawn), 0.25
    assert counts.sum() == n
    assert (np.abs(counts - n * p) < 4.5 * np.sqrt(n * p * (1 - p))).all()  # 4.5 sigma of a binomial


def test_levels_by_shots_take_the_nearest_listed_number():
    generator = real_guidance(t0=None, t0_by_shots={1: 0.5, 2: 0.4, 4: 0.35, 8: 0.2, 16: 0.15})
    for shots, expected in ((1, 0.5), (3, 0.4), (5, 0.35), (100, 0.15)):
        dataset = make_dataset(per_class=shots)
        assert generator.draw(dataset.train[0], 0, dataset) == {"t0": expected}
    assert real_guidance(t0=0.3, t0_by_shots={1: 0.5}).draw(dataset.train[0], 0, dataset) == {"t0": 0.3}


def test_an_image_of_k_4_is_the_image_of_k_1_at_its_level(dataset):
    four, one = real_guidance(t0=[0.25, 0.5, 0.75, 1.0]), real_guidance(t0=0.5)
    images = [
        (four.variant_of(s, j, dataset, "f"), one.variant_of(s, j, dataset, "f"))
        for s in dataset.train
        for j in range(8)
    ]
    assert any(a.draws["t0"] == 0.5 for a, _ in images)
    for a, b in images:
        assert (a.fingerprint == b.fingerprint) == (a.draws["t0"] == 0.5)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"guidance": 2.0}, {"num_steps": 20}, {"scheduler": "unipc"}, {"prompt": "a {name}"}]
)
def test_what_changes_an_image_changes_its_identity(dataset, change):
    source = dataset.train[0]
    before = real_guidance().variant_of(source, 0, dataset, "f").fingerprint
    assert real_guidance(**change).variant_of(source, 0, dataset, "f").fingerprint != before
    assert real_guidance(batch_size=3, name="x").variant_of(source, 0, dataset, "f").fingerprint == before


def test_the_prompt_names_the_class_only_where_that_is_allowed(prior, dataset):
    def prompts(**changes):
        generator = real_guidance(num_steps=2, **changes)
        variants = [generator.variant_of(source, 0, dataset, "f") for source in dataset.train[:3]]
        return {
            i.variant.source.class_index: i.about["prompt"] for i in generator.generate(variants, dataset, prior, None)
        }

    assert prompts() == {0: "a photo", 1: "a photo", 2: "a photo"}
    assert prompts(class_names=True) == {0: "a photo of a cat", 1: "a photo of a dog", 2: "a photo of a dining table"}
    with pytest.raises(GenaugError, match="leakage=data_centric forbids"):
        prompts(prompt_without_name="a photo of my dog")


def test_after_a_kill_the_same_images_and_raising_m_only_adds(prior, dataset, tmp_path, monkeypatch):
    """images already made are kept, missing ones come out as they would have."""
    generator = real_guidance(t0=[0.3, 0.6], batch_size=4)

    def pool(store, m):
        return make_pool(store, generator, dataset, None, "f", lambda: prior, m, say=lambda text: None)

    def pictures(store):
        return {path.name: np.asarray(Image.open(path), dtype=int) for path in (store.root / "images").rglob("*.png")}

    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    pool(whole, 2)
    decode, calls = prior.decode, []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prior, "decode", lambda z: decode(z) if not calls.append(0) and len(calls) < 3 else _interrupt())
        pool(stopped, 2)
    kept = {path: path.stat().st_mtime_ns for path in (stopped.root / "images").rglob("*.png")}
    assert len(kept) == 8
    assert pool(stopped, 2).counts["images_generated"] == 10
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    expected, got = pictures(whole), pictures(stopped)
    assert expected.keys() == got.keys()
    assert all(np.abs(expected[key] - got[key]).max() <= 1 for key in expected)  # 8-bit rounding: other batch shapes
    added = [variant for variant in generator.variants(dataset, 3, "f") if variant.index == 2]
    evaluations = generator.forward_passes(added).count  # of this call alone, whatever the prior has counted before
    assert pool(stopped, 3).counts == {
        "images_generated": 9,
        "images_reused": 18,
        "network_evaluations": evaluations,
    }
    assert pictures(whole).keys() < pictures(stopped).keys()


def _interrupt():
    raise KeyboardInterrupt
