"""Concept erasure: targets, parameter sets, levels, and weights that come back exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.generators.tokens.config import TextualInversion
from genaug.priors import erasure
from genaug.priors.config import PriorConfig
from genaug.priors.deltas import DELTA, applied, load_delta, save_delta
from genaug.priors.erasure import erase, erase_into, erased_groups, erasure_target, parameter_names
from genaug.priors.leakage import PARAMETERS, Erasure
from genaug.priors.loading import load_prior
from genaug.priors.model import Prior
from genaug.priors.noise import draw_noise
from genaug.priors.random_weights import save_random_prior

CLASSES = ("cat", "dog", "dining table")


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    folder = save_random_prior(tmp_path_factory.mktemp("erasure_prior"))
    return load_prior(PriorConfig(path=str(folder), image_size=32), "cpu")


def patterns(per_class: int = 2) -> Dataset:
    random = np.random.default_rng(0)
    samples = []
    for i in range(per_class * len(CLASSES)):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        samples.append(Sample(id=str(i), digest=digest_bytes(pixels.tobytes()), image=pixels, label={i % 3: 1.0}))
    return Dataset(name="patterns", task="classification", class_names=CLASSES, train=tuple(samples), val=(), test=())


def short(**fields: object) -> Erasure:
    defaults = {"iterations": 3, "num_steps": 5, "learning_rate": 1e-2, "batch_size": 2, "storage": "float32"}
    return Erasure(**{**defaults, **fields})  # type: ignore[arg-type]


def weights(prior: Prior) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in prior.unet.named_parameters()}


def test_eta_of_2024_is_eta_of_2023_plus_one() -> None:
    eps_null, eps_concept = torch.randn(2, 4, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for eta in (0.5, 1.0, 3.0):
        old = erasure_target(eps_null, eps_concept, eta, "esd2023")
        assert torch.allclose(old, erasure_target(eps_null, eps_concept, eta + 1, "esd2024"), rtol=0, atol=1e-14)
    assert torch.equal(erasure_target(eps_null, eps_concept, 1.0, "esd2024"), eps_concept - (eps_concept - eps_null))


def test_both_formulas_learn_the_same_change(prior: Prior) -> None:
    one, _ = erase(prior, "cat", short(target="esd2023", eta=1.0))
    two, _ = erase(prior, "cat", short(target="esd2024", eta=2.0))
    # Adam divides by the gradient's size: rounding of the target (1e-7) grows where the gradient is near zero
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-3 * max(d.abs().max() for d in one.values())


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_each_parameter_set_trains_the_listed_weights_and_leaves_all_others(prior: Prior, parameters: str) -> None:
    before = weights(prior)
    if parameters == "xlayer" or parameters == "selflayer":  # Stable Diffusion's blocks, which this U-Net lacks
        with pytest.raises(GenaugError, match="no weights of this U-Net"):
            parameter_names(prior.unet, parameters)
        return
    names = parameter_names(prior.unet, parameters)
    expected = {
        "xattn": lambda n: "attn2" in n,
        "noxattn": lambda n: (
            "attn2" not in n and n.split(".")[0] not in ("conv_norm_out", "conv_out", "time_embedding")
        ),
        "selfattn": lambda n: "attn1" in n,
        "full": lambda n: True,
        "notime": lambda n: n.split(".")[0] not in ("conv_norm_out", "conv_out", "time_embedding"),
        "esd-x": lambda n: "attn2" in n and "norm" not in n,
        "esd-u": lambda n: "attn2" not in n and "norm" not in n,
        "esd-all": lambda n: "norm" not in n,
        "esd-x-strict": lambda n: "attn2.to_k" in n or "attn2.to_v" in n,
    }[parameters]
    assert set(names) == {name for name in before if expected(name)}
    assert any("to_out" in name for name in names) == (parameters != "esd-x-strict")  # "out." must not match "to_out."
    delta, _ = erase(prior, "cat", short(parameters=parameters, iterations=1))
    assert set(delta) == set(names)
    assert all(torch.equal(before[name], p) for name, p in prior.unet.named_parameters())
    assert not any(p.requires_grad for p in prior.unet.parameters())


def test_stable_diffusions_layers_are_named_by_the_layer_sets() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    blocks = {".".join(name.split(".")[:4]) for name in parameter_names(unet, "xlayer")}
    assert blocks == {"up_blocks.2.attentions.0", "up_blocks.2.attentions.2"}
    blocks = {".".join(name.split(".")[:4]) for name in parameter_names(unet, "selflayer")}
    assert blocks == {"down_blocks.1.attentions.0", "down_blocks.2.attentions.0"}
    sizes = {name: p.numel() for name, p in unet.named_parameters()}
    assert sum(sizes[name] for name in parameter_names(unet, "esd-x-strict")) == pytest.approx(19.2e6, rel=0.01)
    assert sum(sizes[name] for name in parameter_names(unet, "xattn")) == pytest.approx(44.0e6, rel=0.01)


def test_a_change_of_weights_is_stored_applied_and_taken_back_bit_for_bit(prior: Prior, tmp_path: Path) -> None:
    before = weights(prior)
    prior.num_evaluations = 7  # of earlier work
    about = erase_into(tmp_path, prior, "cat", short())
    delta, header = load_delta(tmp_path / DELTA)
    assert header["concept"] == "cat" and header["prior"] == prior.weights == about["prior"]
    assert about["network_evaluations"] == short().forward_passes("cat").count
    with applied(prior.unet, delta):
        changed = {name for name, p in prior.unet.named_parameters() if not torch.equal(p, before[name])}
        assert changed and changed <= set(delta)
        own = dict(prior.unet.named_parameters())
        assert all(torch.equal(own[name], before[name] + change.float()) for name, change in delta.items())
    assert all(torch.equal(before[name], p) for name, p in prior.unet.named_parameters())
    with pytest.raises(RuntimeError, match="interrupted"), applied(prior.unet, delta):
        raise RuntimeError("interrupted")
    assert all(torch.equal(before[name], p) for name, p in prior.unet.named_parameters())


def test_a_half_precision_change_gives_the_trained_weights_within_its_rounding(prior: Prior, tmp_path: Path) -> None:
    delta, _ = erase(prior, "cat", short())
    save_delta(tmp_path / DELTA, delta, "float16", {})
    stored, _ = load_delta(tmp_path / DELTA)
    for name, change in delta.items():
        assert stored[name].dtype == torch.float16
        assert torch.allclose(stored[name].float(), change, rtol=2**-11, atol=2**-24)  # float16's rounding


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / DELTA).write_bytes(b"x")
    with pytest.raises(GenaugError, match=r"delta\.safetensors cannot be read"):
        load_delta(tmp_path / DELTA)


@pytest.mark.parametrize(("match", "timesteps"), [("exact", [981, 961, 941]), ("ref2023", [961, 941, 921])])
def test_trajectories_are_walked_from_the_noisiest_level_or_in_2023_from_the_next(
    prior: Prior, monkeypatch: pytest.MonkeyPatch, match: str, timesteps: list[int]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(prior, "predict_noise", lambda z, t, *rest: asked.append(int(t)) or z)
    text = prior.embed([""])
    erasure._walk(prior, Erasure(level_match=match, num_steps=50), torch.zeros(1, 4, 4, 4), text, text, 3)
    assert asked == timesteps


def test_trajectories_are_walked_by_the_base_or_by_the_student_as_it_is_now(prior: Prior) -> None:
    text = prior.embed(["cat"])
    own = dict(prior.unet.named_parameters())
    same, other = ({n: own[n].detach() * factor for n in parameter_names(prior.unet, "xattn")} for factor in (1, 3))
    for sampler, follows in (("base", False), ("student", True)):
        config = short(sampler_model=sampler)
        one, two = (erasure._states(prior, "cat", config, 0, text, text, None, student)[0] for student in (same, other))
        assert torch.equal(one, two) != follows


def test_every_state_of_every_concept_and_seed_begins_with_noise_of_its_own(
    prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(erasure, "draw_noise", lambda given, shape: seeds.extend(given) or draw_noise(given, shape))
    text = prior.embed([""])
    for concept, seed in (("cat", 0), ("dog", 0), ("cat", 1)):
        for iteration in range(2):
            erasure._states(prior, concept, short(seed=seed), iteration, text, text, None, {})
    assert len(seeds) == len(set(seeds)) == 3 * 2 * 2


def test_states_come_from_all_trajectories(prior: Prior) -> None:
    config, text = Erasure(trajectories=3, batch_size=4), prior.embed([""])
    walked = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(config.num_steps + 1, 3, 4, 4, 4)
    states = [erasure._states(prior, "cat", config, i, text, text, walked, {})[0] for i in range(10)]
    assert set(torch.cat(states).flatten().tolist()) == {0, 1, 2}


def test_levels_match_exactly_or_as_in_the_release_of_2023() -> None:
    exact, release = Erasure(), Erasure(level_match="ref2023")
    for k in range(50):
        walked, t = exact.level(k, ("x",))
        assert t == 981 - 20 * walked  # the state after `walked` steps is at timestep t
        walked, t = release.level(k, ("x",))
        assert 20 * k <= t < 20 * k + 20
        if k >= 2:
            assert 961 - 20 * walked == 20 * k - 39  # where the state is, well below t
        else:
            assert walked == 49  # denoised fully


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"sampler_model": "student"}, {"trajectories": 2}, {"level_match": "ref2023"}, {"batch_size": 1}]
)
def test_the_loss_falls_and_the_prediction_moves_towards_the_target(fields: dict) -> None:
    # the shipped weights: to random ones a concept means next to nothing, so there is nothing to unlearn
    prior = PriorConfig(path="tiny", image_size=32).load("cpu")
    _, about = erase(prior, "seven", short(iterations=20, learning_rate=1e-3, **fields))
    assert about["loss_last_tenth"] < about["loss_first_tenth"]


def test_erasing_twice_gives_the_same_bits_and_another_seed_others(prior: Prior) -> None:
    one, _ = erase(prior, "cat", short())
    two, _ = erase(prior, "cat", short())
    other, _ = erase(prior, "cat", short(seed=1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def erased_prior(prior: Prior, tmp_path: Path):
    """The prior with an erased U-Net for each class."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        erase_into(tmp_path / name, prior, name, short())
        prior.erasures[name] = tmp_path / name
    yield prior
    prior.erasures.clear()


def pictures(images: list[Generated]) -> dict[str, bytes]:
    return {g.variant.fingerprint: g.image.tobytes() for g in images}


def test_classes_in_any_order_give_the_images_of_their_own_erased_network(erased_prior: Prior) -> None:
    dataset = patterns()
    generator = RealGuidance(name="rg", seed=0, class_names=True, num_steps=4, batch_size=8)
    variants = [generator.variant_of(source, 0, dataset, "fitted") for source in dataset.train]  # classes interleaved
    together = pictures(list(generator.generate(variants, dataset, erased_prior, None)))
    alone: dict[str, bytes] = {}
    for variant in reversed(variants):
        alone |= pictures(list(generator.generate([variant], dataset, erased_prior, None)))
    for key, image in together.items():  # batches of another size round differently
        a, b = np.frombuffer(image, np.uint8).astype(int), np.frombuffer(alone[key], np.uint8).astype(int)
        assert abs(a - b).max() <= 1
    erasures = dict(erased_prior.erasures)
    erased_prior.erasures = {}
    assert pictures(list(generator.generate(variants, dataset, erased_prior, None))) != together
    erased_prior.erasures = erasures


def test_each_delta_is_applied_once_per_class(erased_prior: Prior) -> None:
    names = ["dog", "cat", "dog", "dining table", "cat"]
    assert list(erased_groups(erased_prior, names)) == [[1, 4], [3], [0, 2]]
    erased_prior.erasures, kept = {}, erased_prior.erasures
    assert list(erased_groups(erased_prior, names)) == [[0, 1, 2, 3, 4]]
    erased_prior.erasures = kept


def test_tokens_are_learned_on_the_erased_network_of_their_class(erased_prior: Prior, tmp_path: Path) -> None:
    from genaug.generators.tokens.token_files import read_tokens

    tokens = TextualInversion(seed=0, num_steps=3, batch_size=2)
    generator = DAFusion(name="d", seed=0, class_names=True, tokens=tokens, num_steps=4)
    learned = {}
    for case in ("erased", "plain"):
        erasures = dict(erased_prior.erasures)
        if case == "plain":
            erased_prior.erasures = {}
        (tmp_path / case).mkdir()
        facts = generator.fit(patterns(), erased_prior, tmp_path / case)
        assert facts["network_evaluations"] == 3 * 2 * 3  # steps, samples, classes: the same either way
        learned[case] = read_tokens(tmp_path / case, list(CLASSES))
        assert not list((tmp_path / case).glob("*resume*"))
        erased_prior.erasures = erasures
    assert set(learned["erased"]) == set(learned["plain"]) == {"<cat>", "<dog>", "<dining_table>"}
    assert all(not torch.equal(learned["erased"][token], learned["plain"][token]) for token in learned["plain"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"parameters": "attn"}, "xattn"),
        ({"target": "esd"}, "esd2023"),
        ({"eta": 0.0}, r"must be in \(0, 1000\]"),
        ({"iterations": 0}, "at least 1"),
        ({"sampler_model": "student", "trajectories": 4}, "sampler_model=base"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_write(fields: dict, words: str) -> None:
    with pytest.raises(GenaugError, match=words):
        Erasure(**fields)


@pytest.mark.parametrize("fields", [{}, {"trajectories": 2}, {"guidance": 1.0}, {"level_match": "ref2023"}])
def test_the_plan_knows_the_evaluations_of_an_erasure(prior: Prior, fields: dict[str, object]) -> None:
    config = short(**fields)
    before = prior.num_evaluations
    erase(prior, "cat", config)
    assert config.forward_passes("cat").count == prior.num_evaluations - before
