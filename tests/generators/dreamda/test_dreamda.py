"""DreamDA on a random prior of Stable Diffusion's shape: exactness, the hook, randomness, and what it refuses."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes
from genaug.core.seeding import derive
from genaug.data.sample import Dataset, Sample
from genaug.generators.dreamda.bottleneck import BottleneckNoise, hooked
from genaug.generators.dreamda.config import DreamDA, with_name
from genaug.priors.config import PriorConfig
from genaug.priors.noise import draw_noise
from genaug.priors.random_weights import save_random_prior

NAMES = ("cat", "apple", "dining table")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = save_random_prior(tmp_path_factory.mktemp("prior"))
    return PriorConfig(path=str(folder), image_size=32).load("cpu")


def sample(name, label, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return Sample(id=name, digest=digest_bytes(pixels.tobytes()), image=pixels, label={label: 1.0})


DATASET = Dataset(
    name="three",
    task="classification",
    class_names=NAMES,
    train=tuple(sample(f"{i}.png", i, seed=i) for i in range(3)),
    val=(),
    test=(),
)


def dreamda(**fields):
    defaults = {"name": "dreamda", "seed": 0, "class_names": False, "num_steps": 10, "t0": 0.5}
    return DreamDA(**(defaults | fields))


def make(prior, config, num_variants=2, sources=DATASET.train, same_names=False):
    """Images by (source id, index). ``same_names``: their noise is the same for every configuration."""
    variants = [config.variant_of(source, j, DATASET, "weights") for j in range(num_variants) for source in sources]
    if same_names:
        variants = [dataclasses.replace(v, fingerprint=f"{v.source.digest} {v.index}") for v in variants]
    made = list(config.generate(variants, DATASET, prior, None))
    assert len(made) == len(variants)
    return {(item.variant.source.id, item.variant.index): item for item in made}


def pixels(item):
    return np.asarray(item.image, dtype=np.int16)


def changes(items):
    return [item.about["latent_change"] for item in items.values()]


SAME_PROMPT = {"class_names": True, "source_prompt": "same", "guidance": 3.0, "source_guidance": 3.0}


@pytest.mark.parametrize("inversion", ["cycle", "edit_friendly"])
@pytest.mark.parametrize(
    "fields", [{}, SAME_PROMPT, {"process": "asymmetric"}, {"source_codes": "fresh"}, {"encode": "sample"}]
)
def test_equal_prompts_and_no_noise_return_the_source_latent(prior, fields, inversion):
    made = make(prior, dreamda(sigma=0.0, num_steps=50, t0=0.8, inversion=inversion, **fields), 1)
    assert max(changes(made)) < 1e-3  # float32 over 40 steps


def test_the_variants_move_away_from_the_source_as_sigma_grows(prior):
    distances = [
        np.mean(changes(make(prior, dreamda(sigma=s, sigma_mode="absolute"), 3))) for s in (0, 0.5, 1, 2, 3, 5)
    ]
    assert all(later > earlier for earlier, later in itertools.pairwise(distances)), distances


def test_a_relative_sigma_counts_in_its_unit(prior):
    one, other = (make(prior, dreamda(sigma=2.0, sigma_unit=3.0)), make(prior, dreamda(sigma=6.0)))
    # the noise itself differs: it is drawn for another image identity
    assert np.mean(changes(one)) == pytest.approx(np.mean(changes(other)), rel=0.3)


def test_guidance_enlarges_independent_noise_under_the_empty_prompt_too(prior):
    """Under data-centric leakage prevention the noise is all that tells the two rows of a guided estimate apart."""
    change = {
        (rows, w): np.mean(changes(make(prior, dreamda(sigma=0.1, noise_rows=rows, guidance=w), same_names=True)))
        for rows in ("independent", "shared")
        for w in (1.0, 7.5)
    }
    assert change["independent", 7.5] > 3 * change["independent", 1.0]
    assert change["shared", 7.5] == change["shared", 1.0]


def test_no_hook_is_left_behind(prior):
    before = changes(make(prior, dreamda(sigma=0.0)))
    make(prior, dreamda(sigma=3.0))
    assert not prior.unet.mid_block._forward_hooks
    assert changes(make(prior, dreamda(sigma=0.0))) == before


def test_no_hook_is_left_behind_after_an_exception(prior):
    def fail(h):
        raise RuntimeError("out of memory")

    z, cond = torch.zeros(1, 4, 4, 4), prior.embed([""])
    with pytest.raises(RuntimeError, match="out of memory"), hooked(prior.unet.mid_block, fail):
        prior.predict_noise(z, 1, cond)
    assert not prior.unet.mid_block._forward_hooks


def test_a_hook_that_does_not_fire_is_noticed(prior):
    with pytest.raises(AssertionError, match="did not fire"), hooked(prior.unet.mid_block, lambda h: h):
        pass


@pytest.mark.parametrize("mask", [[False, True, True], [True, False, False], [False, False, True, True, True]])
def test_the_hook_changes_exactly_the_named_rows(prior, mask):
    rows = torch.tensor(mask)
    z = torch.randn(len(mask), 4, 4, 4, generator=torch.Generator().manual_seed(0))
    cond = prior.embed([""]).expand(len(mask), -1, -1)
    clean = prior.predict_noise(z, 500, cond)
    change = BottleneckNoise(
        rows, 3.0, relative=False, draw=lambda shape: torch.ones(int(rows.sum()), *shape).cumsum(-1)
    )
    with hooked(prior.unet.mid_block, change):
        noisy = prior.predict_noise(z, 500, cond)
    assert torch.equal(noisy[~rows], clean[~rows])
    assert ((noisy - clean)[rows].abs().flatten(1).max(dim=1).values > 1e-3).all()


def test_relative_sigma_scales_with_the_bottleneck_of_each_row():
    h = torch.randn(3, 8, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 100]).view(
        3, 1, 1, 1
    )
    change = BottleneckNoise(
        torch.tensor([True, False, True]), 2.0, relative=True, draw=lambda shape: torch.ones(2, *shape)
    )
    moved = change(h) - h
    std = h.flatten(1).std(dim=1)
    assert torch.allclose(moved[0], torch.full_like(h[0], 2 * float(std[0])), rtol=1e-4)
    assert torch.equal(moved[1], torch.zeros_like(h[1]))
    assert torch.allclose(moved[2], torch.full_like(h[2], 2 * float(std[2])), rtol=1e-3)
    assert torch.equal(change.std, std[[0, 2]])


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(AssertionError, match="row mask"):
        BottleneckNoise(torch.tensor([True]), 1.0, False, torch.zeros)(torch.zeros(2, 3))


def test_diffusers_own_argument_for_the_mid_block_changes_nothing_by_itself(prior):
    z, cond = torch.ones(1, 4, 4, 4), prior.embed([""])
    call = lambda **extra: prior.unet(z, 500, encoder_hidden_states=cond, **extra).sample
    assert torch.equal(call(), call(mid_block_additional_residual=torch.ones(1, 32, 2, 2)))


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_image(prior):
    first, again, other = (make(prior, dreamda(seed=seed)) for seed in (0, 0, 1))
    for key in first:
        assert np.array_equal(pixels(first[key]), pixels(again[key]))
        assert not np.array_equal(pixels(first[key]), pixels(other[key]))


def test_every_source_and_every_variant_has_its_own_noise(prior):
    noises = {}
    config = dreamda()
    for source in DATASET.train:
        for j in range(2):
            fingerprint = config.variant_of(source, j, DATASET, "weights").fingerprint
            for purpose in ("h_u", "h_c"):
                for k in range(2):
                    noises[source.id, j, purpose, k] = tuple(
                        draw_noise([derive(fingerprint, purpose, k)], (4,))[0].tolist()
                    )
    assert len(set(noises.values())) == len(noises) == 24


@pytest.mark.parametrize("fields", [{}, {"source_codes": "fresh"}, {"source_codes": "fresh", "start": "per_variant"}])
def test_images_do_not_depend_on_batch_size_order_or_m(prior, fields):
    config = dreamda(**fields)
    reference = make(prior, config, 3)
    for other in (
        make(prior, dataclasses.replace(config, batch_size=1), 3),
        make(prior, dataclasses.replace(config, batch_size=4), 3, DATASET.train[::-1]),
        make(prior, config, 2),
        make(prior, config, 3, DATASET.train[1:2]),
    ):
        for key, item in other.items():
            assert item.variant.fingerprint == reference[key].variant.fingerprint
            # other batch shapes round differently: at most one grey level
            assert np.abs(pixels(item) - pixels(reference[key])).max() <= 1
            assert item.about["latent_change"] == pytest.approx(reference[key].about["latent_change"], rel=1e-4)


def test_any_split_of_the_work_makes_the_same_set_of_images(prior):
    config = dreamda()
    variants = [config.variant_of(source, j, DATASET, "weights") for j in range(2) for source in DATASET.train]
    for num_shards in (1, 2, 8):
        made = [
            item.variant.fingerprint
            for shard in range(num_shards)
            for item in config.generate(variants[shard::num_shards], DATASET, prior, None)
        ]
        assert sorted(made) == sorted(variant.fingerprint for variant in variants)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sigma": 0.0},
        {"source_codes": "fresh"},
        {"process": "asymmetric"},
        {"noise_rows": "shared"},
        {"noise_rows": "shared", "process": "asymmetric", "t_edit": 150},
        {"inversion": "ddim", "eta": 0.0, "t_edit": 150},
        {"inversion": "none"},
        {"class_names": True},
        SAME_PROMPT | {"process": "asymmetric"},
    ],
)
def test_the_cost_is_known_beforehand(prior, fields):
    config = dreamda(**fields)
    variants = [config.variant_of(source, j, DATASET, "weights") for j in range(2) for source in DATASET.train]
    before = prior.num_evaluations
    list(config.generate(variants, DATASET, prior, None))
    assert prior.num_evaluations - before == config.forward_passes(variants).count


def test_shared_codes_invert_each_source_once_whatever_m(prior):
    config = dreamda(sigma=0.0)
    variants = [config.variant_of(DATASET.train[0], j, DATASET, "weights") for j in range(9)]
    assert (config.forward_passes(variants[:1]).count, config.forward_passes(variants).count) == (5 + 5, 5 + 9 * 5)


@pytest.mark.parametrize(
    "fields", [{"inversion": "none"}, {"inversion": "none", "eta": 0.0}, {"inversion": "ddim", "eta": 0.0}]
)
def test_the_other_starts_make_images(prior, fields):
    assert all(np.isfinite(change) and change > 0 for change in changes(make(prior, dreamda(**fields))))


def test_a_prior_that_predicts_v_is_inverted_exactly_too(tmp_path):
    folder = save_random_prior(tmp_path, prediction_type="v_prediction")
    v_prior = PriorConfig(path=str(folder), image_size=32).load("cpu")
    assert max(changes(make(v_prior, dreamda(sigma=0.0), 1))) < 1e-3


def test_a_half_precision_network_keeps_the_loop_in_float32(tmp_path):
    folder = save_random_prior(tmp_path)
    half = PriorConfig(path=str(folder), image_size=32, dtype="bfloat16").load("cpu")
    assert max(changes(make(half, dreamda(sigma=0.0), 1))) < 1e-3
    assert min(changes(make(half, dreamda(sigma=1.0), 1))) > 1e-2


def test_prompts_follow_the_template_where_names_are_allowed():
    config = dreamda(class_names=True)
    prompts = [config.draw(source, 0, DATASET)["prompt"] for source in DATASET.train]
    assert prompts == ["a photo of a cat", "a photo of an apple", "a photo of a dining table"]
    assert dreamda().draw(DATASET.train[0], 0, DATASET) == {"prompt": ""}
    assert dreamda(class_names=True, prompts="none").draw(DATASET.train[0], 0, DATASET) == {"prompt": ""}
    assert with_name("A {name} and a {name}", "egg") == "An egg and an egg"


def write_prompts(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_a_sentence_is_drawn_once_per_image_or_per_variant(tmp_path, prior):
    rows = [{"class": name, "text": f"a photo of {name} {i}"} for name in NAMES for i in range(40)]
    rows += [{"file_name": "2.png", "text": "my own table"}]
    path = write_prompts(tmp_path / "prompts.jsonl", rows)
    for per_variant in (False, True):
        config = dreamda(class_names=True, prompts="file", prompts_file=path, prompt_per_variant=per_variant)
        prompts = [config.draw(DATASET.train[0], j, DATASET)["prompt"] for j in range(8)]
        assert all(prompt.startswith("a photo of cat") for prompt in prompts)
        assert (len(set(prompts)) > 1) == per_variant
        assert config.draw(DATASET.train[2], 0, DATASET) == {"prompt": "my own table"}
    assert make(prior, config, 1)["2.png", 0].variant.draws["prompt"] == "my own table"


def test_the_content_of_the_prompts_file_is_part_of_the_identity_and_its_place_is_not(tmp_path):
    from genaug.core.identity import fingerprint

    rows = [{"class": name, "text": f"a {name}"} for name in NAMES]
    one, same, other = (
        dreamda(class_names=True, prompts="file", prompts_file=write_prompts(tmp_path / f"{i}.jsonl", content))
        for i, content in enumerate((rows, rows, rows[::-1]))
    )
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    # an image depends on its own sentence alone
    assert len({c.variant_of(DATASET.train[0], 0, DATASET, "w").fingerprint for c in (one, same, other)}) == 1


def test_a_prompts_file_that_lacks_a_class_is_refused(tmp_path):
    path = write_prompts(tmp_path / "prompts.jsonl", [{"class": "cat", "text": "a cat"}])
    config = dreamda(class_names=True, prompts="file", prompts_file=path)
    with pytest.raises(GenaugError, match="no sentence for the class 'apple'"):
        config.variant_of(DATASET.train[1], 0, DATASET, "w")


@pytest.mark.parametrize(
    "line", ["a cat", '{"class": "cat"}', '{"text": "a cat"}', '{"class": "cat", "text": " "}', "[1]"]
)
def test_a_prompts_file_with_a_bad_line_is_refused_with_its_number(tmp_path, line):
    (tmp_path / "prompts.jsonl").write_text('{"class": "cat", "text": "a cat"}\n\n' + line + "\n")
    config = dreamda(class_names=True, prompts="file", prompts_file=str(tmp_path / "prompts.jsonl"))
    with pytest.raises(GenaugError, match="line 3"):
        config.draw(DATASET.train[0], 0, DATASET)


def test_a_prompt_beyond_the_text_encoders_length_is_refused(tmp_path, prior):
    path = write_prompts(tmp_path / "long.jsonl", [{"class": name, "text": "a photo " * 50} for name in NAMES])
    with pytest.raises(GenaugError, match="tokens"):
        make(prior, dreamda(class_names=True, prompts="file", prompts_file=path))


def test_class_names_do_not_reach_prompts_under_leakage_prevention(tmp_path, prior):
    path = write_prompts(tmp_path / "prompts.jsonl", [{"class": name, "text": "a"} for name in NAMES])
    with pytest.raises(GenaugError, match="leakage"):
        dreamda(prompts="file", prompts_file=path).check("classification")
    with pytest.raises(GenaugError, match="leakage"):
        make(prior, dreamda(prompt_without_name="a photo of a cat"))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sigma": -0.1}, "generator.sigma"),
        ({"sigma_unit": 0.0}, "generator.sigma_unit"),
        ({"t0": 0.0}, "generator.t0"),
        ({"t0": 1.1}, "generator.t0"),
        ({"t0": 0.05}, "less than one step"),
        ({"num_steps": 30}, "write e.g. 25"),
        ({"num_steps": 0}, "generator.num_steps"),
        ({"eta": 0.0}, "generator.eta"),
        ({"eta": 1.5, "inversion": "none"}, "generator.eta"),
        ({"inversion": "ddim"}, "generator.eta=0"),
        ({"t_edit": 1001}, "generator.t_edit"),
        ({"batch_size": 0}, "generator.batch_size"),
        ({"start": "per_variant"}, "source_codes=fresh"),
        ({"process": "asymmetric", "sigma_mode": "absolute", "sigma": 3.0}, "13 times"),
        ({"process": "both"}, "symmetric, asymmetric"),
        ({"prompts": "file"}, "generator.prompts_file"),
        ({"prompts_file": "x.jsonl"}, "generator.prompts_file"),
        ({"prompts": "file", "prompts_file": "nowhere.jsonl"}, "is not a file"),
    ],
)
def test_bad_values_are_refused_by_name(fields, named):
    with pytest.raises(GenaugError, match=named):
        dreamda(**fields)


def test_a_strong_asymmetric_sigma_can_be_confirmed():
    assert dreamda(process="asymmetric", sigma_mode="absolute", sigma=3.0, allow_strong=True).sigma == 3.0


def test_detection_data_are_refused():
    with pytest.raises(GenaugError, match="boxes"):
        dreamda().check("detection")


def test_a_compiled_network_is_refused(prior, monkeypatch):
    monkeypatch.setattr(prior, "compiled", "default")
    with pytest.raises(GenaugError, match=r"prior\.compile=false"):
        make(prior, dreamda())
