"""The generator: what is refused, what an image depends on, and that online and pool make the same images."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from genaug import compose
from genaug.core.errors import GenaugError
from genaug.core.identity import digest_bytes, fingerprint
from genaug.core.store import Store
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.digits import Digits
from genaug.generators.base import Variant
from genaug.generators.latent_interpolation.config import LatentInterpolation
from genaug.generators.latent_interpolation.fit import build_autoencoder
from genaug.generators.latent_interpolation.images import interpolation
from genaug.generators.latent_interpolation.networks import collapsed
from genaug.generators.latent_interpolation.samples import fitted_samples
from genaug.generators.latent_interpolation.sections import Mixing, Networks, Training
from genaug.generators.latent_interpolation.training import Batches, square_pixels, to_unit
from genaug.generators.publishing import make_pool
from genaug.priors.config import PriorConfig

SIZE = 16


SECTIONS = {"mixing": Mixing, "networks": Networks, "training": Training}
SMALL = {
    "mixing": {},
    "networks": {"z_dim": 4, "channels": 4, "decoder_channels": 16, "init": "kaiming"},
    "training": {"seed": 0, "lr": 1e-3, "batch_size": 8, "num_steps": 4},
}


def generator(**values) -> LatentInterpolation:
    """Small; keys of a section may be given without it, ``seed`` excepted."""
    own = {"name": "latent_interpolation", "seed": 0, "image_size": SIZE}
    sections = {key: dict(SMALL[key]) for key in SECTIONS}
    for key, value in values.items():
        of = [
            name
            for name, cls in SECTIONS.items()
            if key in {f.name for f in dataclasses.fields(cls)} and key not in own
        ]
        sections[of[0]].update({key: value}) if of else own.update({key: value})
    if "training_seed" in own:
        sections["training"]["seed"] = own.pop("training_seed")
    if "images_at_once" in own:
        own["batch_size"] = own.pop("images_at_once")
    return LatentInterpolation(**own, **{key: cls(**sections[key]) for key, cls in SECTIONS.items()})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits(name="digits", image_size=SIZE, shots=2, seed=0).load()


@pytest.fixture(scope="module")
def fitted(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    generator().fit(digits, None, folder)
    return folder


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"batch_size": 1}, r"generator\.training\.batch_size=1 must be"),
        ({"z_dim": 0}, r"generator\.networks\.z_dim=0 must be in \[1, 65536\]"),
        ({"lam": 1.5}, "lam=1.5 would be extrapolation"),
        ({"lam": -0.1}, "lam=-0.1 would be extrapolation"),
        ({"lam": "normal"}, "lam=normal is not one of uniform, beta, grid"),
        ({"lam": None}, "write a number from 0 to 1, or one of"),
        ({"label": "two_hot", "lam": 0.3}, "two_hot means lambda .5"),
        ({"image_size": 36}, "cannot be halved 3 times. Write e.g. 32"),
        ({"prior": "gaussian", "code": "tanh"}, "write generator.networks.code=linear"),
        ({"disc_norm": "separate_bn"}, "allow_reference_traps=true"),
        ({"interp": "cdf", "space": "pixel"}, "interp=linear"),
        ({"decoder_channels": 4}, "write 8 or more"),
        ({"figure": True}, "write generator.networks.z_dim=2"),
        ({"lambda_adv": -1}, r"generator\.training\.lambda_adv=-1 must be in"),
        ({"lr": 0}, r"generator\.training\.lr=0 must be in \(0, 1\]"),
        ({"lr": 1e20}, r"generator\.training\.lr"),
        ({"warmup": 1.0}, r"generator\.training\.warmup=1\.0 must be in \[0, 1\)"),
        ({"betas": [0.5]}, "two numbers"),
        ({"disc_widths": []}, "disc_widths"),
        ({"num_interp": 0}, r"generator\.mixing\.num_interp=0"),
        ({"classes": "all"}, r"generator\.mixing\.classes=all must be one of any, inter, intra"),
    ],
)
def test_wrong_values_are_refused_with_what_to_write_instead(fields, message):
    with pytest.raises(GenaugError, match=message):
        generator(**fields)


def test_detection_data_is_refused():
    with pytest.raises(GenaugError, match="does not work on detection data"):
        generator().check("detection")


def test_training_images_without_pairs_are_refused(digits):
    one_class = dataclasses.replace(digits, train=tuple(s for s in digits.train if s.class_index == 3))
    for use in (
        lambda g: g.draw(one_class.train[0], 0, one_class),
        lambda g: g.check_dataset(one_class),
    ):
        with pytest.raises(GenaugError, match=r"a single class. Write generator.mixing.classes=any"):
            use(generator())
    single = dataclasses.replace(digits, train=digits.train[:1])
    with pytest.raises(GenaugError, match="at least two"):
        generator(classes="any").check_dataset(single)
    with pytest.raises(GenaugError, match=r"intra needs two training images.*dataset\.shots=2"):
        generator(classes="intra").check_dataset(dataclasses.replace(digits, train=digits.train[::2]))


def test_images_of_mixed_sizes_become_one_size(tmp_path):
    wide = Sample(id="a", digest="a", image=np.zeros((20, 60, 3), dtype=np.uint8), label={0: 1.0})
    assert square_pixels(wide, SIZE).shape == (3, SIZE, SIZE)


def test_the_kind_of_use_and_space_decide_what_is_made():
    assert generator().makes_pool and generator().fits and not generator().uses_prior
    assert not generator(online=True).makes_pool
    assert not generator(space="pixel").fits
    assert generator(space="prior_vae").uses_prior


def test_pixels_go_into_each_space_and_come_back_from_zero_to_one(digits, tmp_path):
    prior = PriorConfig(image_size=32).load("cpu")
    images = to_unit(torch.stack([square_pixels(sample, 32) for sample in digits.train[:4]]))
    with torch.no_grad():
        pairs = interpolation(generator(space="prior_vae", image_size=32), None, prior, "cpu")
        assert (pairs.decode(pairs.encode(images)) - images).abs().mean() < 0.1
        fit = generator()
        fit.fit(digits, None, tmp_path)
        pairs = interpolation(fit, tmp_path, None, "cpu")
        found = pairs.decode(pairs.encode(images[..., :SIZE, :SIZE]))
        assert 0 <= found.min() and found.max() <= 1 and 0.2 < found.mean() < 0.8  # hardly trained: mid-grey


def test_only_what_an_image_depends_on_is_in_its_identity(digits):
    source = digits.train[0]

    def identity(**fields):
        return generator(**fields).variant_of(source, 0, digits, "fitted").fingerprint

    assert identity() == identity(keep_real=False, lam_per="sample", pairing="derangement", checkpoint_every=7)
    assert identity() == identity(lam=0.5, num_interp=3)
    assert (
        len({identity(), identity(lam=0.3), identity(interp="cdf"), identity(space="decoded"), identity(seed=1)}) == 5
    )


def test_what_is_learned_depends_on_the_training_images_and_the_fit_alone(digits):
    def identity(dataset=digits, **fields):
        return generator(**fields).fit_fingerprint(dataset, None)

    fewer = dataclasses.replace(digits, train=digits.train[:10])
    assert identity() == identity(lam=0.1, online=True, classes="any", seed=5)
    assert len({identity(), identity(fewer), identity(lambda_adv=0.0), identity(training_seed=1)}) == 4


def test_what_is_learned_from_all_training_images_is_the_same_whatever_was_drawn(tmp_path):
    def drawn(**fields) -> Dataset:
        return Digits(name="digits", image_size=SIZE, **fields).load()

    few, other, whole = drawn(shots=2, seed=0), drawn(fraction=0.1, seed=1), drawn(seed=0)
    everything, shots = generator(images="all"), generator()
    assert len({everything.fit_fingerprint(dataset, None) for dataset in (few, other, whole)}) == 1
    assert len({shots.fit_fingerprint(dataset, None) for dataset in (few, other, whole)}) == 3
    assert everything.fit_fingerprint(few, None) != generator(images="all", z_dim=3).fit_fingerprint(few, None)
    weights = []
    for dataset in (few, other):
        folder = tmp_path / str(len(dataset.train))
        folder.mkdir()
        assert generator(images="all", num_steps=2).fit(dataset, None, folder)["num_images"] == len(whole.train)
        weights.append((folder / "autoencoder.safetensors").read_bytes())
    assert weights[0] == weights[1]
    seen = {sample.id for sample in fitted_samples(everything.training, few)}
    assert not seen & {sample.id for sample in (*whole.val, *whole.test)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_preset_does_not_collapse(seed):
    config = compose(["generator=latent_interpolation", f"seed={seed}"])
    preset, dataset = config.generator, config.dataset.load()
    assert isinstance(preset, LatentInterpolation)
    aae, training = build_autoencoder(preset), preset.training
    samples = fitted_samples(training, dataset)
    batches = Batches(samples, preset.image_size, training.batch_size, training.seed, training.max_shift).between(0, 90)
    optimizers = aae.configure_optimizers()
    for step, x in (batches[i] for i in range(90)):
        losses = aae.play(step, x, optimizers, lambda loss: loss.backward())
    assert not collapsed(preset.networks, losses)
    assert losses["explained"] > 0.3


def test_partners_are_of_the_wanted_kind_and_do_not_depend_on_m(digits):
    by_id = {sample.id: sample for sample in digits.train}
    for source in digits.train:
        for j in range(4):
            inter, intra = (generator(classes=kind).draw(source, j, digits) for kind in ("inter", "intra"))
            assert by_id[inter["partner_id"]].class_index != source.class_index
            assert by_id[intra["partner_id"]].class_index == source.class_index and intra["partner_id"] != source.id
    grid = generator(lam="grid", num_interp=3)
    draws = [grid.draw(digits.train[0], j, digits) for j in range(4)]
    assert [d["lam"] for d in draws] == [0.25, 0.5, 0.75, 0.25]
    assert draws[0]["partner_id"] == draws[2]["partner_id"]


def test_a_fit_is_described_and_repeats_itself(digits, fitted, tmp_path):
    about = generator(checkpoint_every=3).fit(digits, None, tmp_path)
    assert (tmp_path / "autoencoder.safetensors").read_bytes() == (fitted / "autoencoder.safetensors").read_bytes()
    assert about["num_images"] == 20 and about["diagnostics"]["hole/num_codes"] == 20 + len(digits.val)
    assert {p.name for p in tmp_path.iterdir()} == {"autoencoder.safetensors", "hole.json", "losses.json"}


def test_a_pool_is_prefix_stable_and_its_manifest_complete(digits, fitted, tmp_path):
    store, dataset = Store(tmp_path), dataclasses.replace(digits, train=digits.train[:6])

    def pool(m, **fields):
        quiet = {"say": lambda text: None}
        return make_pool(store, generator(lam=0.3, **fields), dataset, fitted, "f", lambda: None, m, **quiet)

    one = pool(1)
    three = pool(3, images_at_once=5)
    assert three.counts["images_reused"] == 6 and three.counts["images_generated"] == 12
    first = [s for s in three.samples if s.index == 0]
    assert {s.digest for s in first} == {s.digest for s in one.samples}
    for sample in three.samples:
        assert sorted(sample.label.values()) == [0.3, 0.7]
        assert {"partner_id", "partner_digest", "partner_label", "lam", "fitted", "source_id"} <= sample.about.keys()


def test_an_online_step_and_a_pool_of_its_pairs_are_the_same_images(digits, fitted):
    both = generator(lam="uniform", lam_per="sample", keep_real=False)
    online = both.interpolate(fitted, digits, None, "cpu")
    images = to_unit(torch.stack([square_pixels(s, SIZE) for s in digits.train]))
    classes = np.array([s.class_index for s in digits.train])
    weights = torch.eye(10)[classes]
    partners, lam = online.draw(classes, step=9)
    mixed, labels = online(images, weights, step=9)
    variants = [
        Variant(source=s, index=0, draws={"partner_id": digits.train[j].id, "lam": float(w)}, fingerprint=str(i))
        for i, (s, j, w) in enumerate(zip(digits.train, partners, lam, strict=True))
    ]
    made = list(both.generate(variants, digits, None, fitted))
    for item, image, label in zip(made, mixed, labels, strict=True):
        # a published image has 8 bits: half a level of 255, and rounding at the border
        np.testing.assert_allclose(np.asarray(item.image) / 255, image.permute(1, 2, 0), atol=0.51 / 255, rtol=1e-4)
        assert item.label == pytest.approx({i: w for i, w in enumerate(label.tolist()) if w}, abs=1e-6)


def test_images_do_not_depend_on_their_batch(digits, fitted):
    made = []
    for size in (3, 64):
        g = generator(images_at_once=size)
        variants = [g.variant_of(source, 0, digits, "f") for source in digits.train[:8]]
        made.append([np.asarray(item.image).astype(int) for item in g.generate(variants, digits, None, fitted)])
    # the order of additions in a convolution may differ between batch shapes: at most one of 255 levels
    assert max(np.abs(a - b).max() for a, b in zip(*made, strict=True)) <= 1


def test_the_autoencoder_stays_frozen_while_the_classifier_learns(digits, fitted):
    online = generator().interpolate(fitted, digits, None, "cpu")
    aae = online.encode.__closure__[0].cell_contents  # type: ignore[attr-defined]
    assert not any(p.requires_grad for p in aae.parameters()) and not any(m.training for m in aae.modules())
    before = {key: value.clone() for key, value in aae.state_dict().items()}
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 10))
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    images, weights = torch.rand(8, 3, SIZE, SIZE), torch.eye(10)[:8]
    for step in range(3):
        mixed, labels = online(images, weights, step)
        torch.nn.functional.cross_entropy(classifier(mixed), labels).backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in aae.state_dict().items())


def test_decoded_images_are_in_the_range_of_real_ones(digits, fitted):
    images = to_unit(torch.stack([square_pixels(s, SIZE) for s in digits.train]))
    online = generator(lam=1.0, keep_real=False).interpolate(fitted, digits, None, "cpu")
    aae = online.encode.__closure__[0].cell_contents  # type: ignore[attr-defined]
    mixed, _ = online(images, torch.eye(10).repeat_interleave(2, dim=0), step=0)
    with torch.no_grad():
        by_hand = (aae.decoder(aae.encoder(images * 2 - 1)) + 1) / 2
    assert torch.equal(mixed, by_hand) and 0 <= mixed.min() and mixed.max() <= 1


def test_extra_images_are_learned_from_but_never_scored_ones(digits, tmp_path):
    extra = tmp_path / "extra"
    extra.mkdir()
    Image.new("RGB", (30, 20), "red").save(extra / "a.png")
    g = generator(extra_dir=str(extra))
    content = fingerprint(g)
    (tmp_path / "fit").mkdir()
    assert g.fit(digits, None, tmp_path / "fit")["num_images"] == 21
    Image.new("RGB", (30, 20), "blue").save(extra / "b.png")
    assert fingerprint(g) != content and g.fit_fingerprint(digits, None) != generator().fit_fingerprint(digits, None)
    leaked = Sample(id="t", digest=digest_bytes((extra / "a.png").read_bytes()), image=extra / "a.png", label={0: 1.0})
    with pytest.raises(GenaugError, match="also in the validation or test split"):
        g.fit(dataclasses.replace(digits, test=(leaked,)), None, tmp_path / "fit")
    with pytest.raises(GenaugError, match="holds no images"):
        generator(extra_dir=str(tmp_path / "none")).check_dataset(digits)


def test_the_figure_shows_the_codes_with_and_without_discriminator(digits, tmp_path):
    generator(z_dim=2, figure=True, num_steps=2).fit(digits, None, tmp_path)
    with Image.open(tmp_path / "codes.png") as picture:
        assert picture.width > 1.9 * picture.height
    assert not (tmp_path / "twin").exists()


def test_acai_and_gaussian_fits_run(digits, tmp_path):
    for fields in ({"critic": "acai", "lambda_adv": 0.0}, {"prior": "gaussian", "code": "linear"}):
        folder = tmp_path / str(len(fields["critic"])) if "critic" in fields else tmp_path / "gaussian"
        folder.mkdir()
        about = generator(num_steps=2, **fields).fit(digits, None, folder)
        assert np.isfinite(list(about["losses"].values())).all()


@pytest.mark.parametrize("overrides", [{}, {"image_size": 64, "channels": 8, "decoder_channels": 64, "z_dim": 5}])
def test_the_plan_knows_the_operations_of_the_autoencoder(overrides: dict[str, int]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = generator(**overrides)
    aae = build_autoencoder(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        aae.decoder(aae.encoder(torch.zeros(1, 3, config.image_size, config.image_size)))
    assert config.networks.gflop(config.image_size) == pytest.approx(counter.get_total_flops() / 1e9)
