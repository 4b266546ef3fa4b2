"""PSLD as a generator, on a prior of random weights: identity, labels, masks, refusals."""

import dataclasses

import numpy as np
import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.core.store import Store
from genaug.data.sample import Boxes, Sample
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.data.sources.digits import Digits
from genaug.downstream.detection.config import Detector
from genaug.generators.labelling.config import Audit, Labels
from genaug.generators.psld import inpaint as inpainting
from genaug.generators.psld.config import Framing, Masking, Measurement, Psld, Solver
from genaug.generators.psld.frames import make_frame
from genaug.generators.psld.masks import BOX_AWARE
from genaug.generators.publishing import make_pool
from genaug.generators.sdedit.sampler import to_tensor
from genaug.priors.config import PriorConfig
from genaug.priors.overlap import Moving
from genaug.priors.random_weights import save_random_prior


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = save_random_prior(tmp_path_factory.mktemp("prior"))
    return PriorConfig(path=str(folder), image_size=32).load("cpu")


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes(seed=0, image_size=32, num_train=4, num_val=1, num_test=1).load()


SECTIONS = {
    "masking": Masking, "frame": Framing, "measurement": Measurement, "solver": Solver, "labels": Labels, "audit": Audit,
}  # fmt: skip


def psld(**changes):
    """``psld(num_steps=4, solver={"omega": 2.0})``"""
    teacher = Detector(name="teacher", seed=0, image_size=32, num_steps=1, warmup_steps=0, batch_size=2)
    base = {"name": "psld", "seed": 0, "num_steps": 2, "teacher": teacher}
    defaults = {"masking": {"margin": 1}, "audit": {"by": "none"}}
    sections = {key: cls(**{**defaults.get(key, {}), **changes.pop(key, {})}) for key, cls in SECTIONS.items()}
    return Psld(**{**base, **sections, **changes})


PROJECTION = {"solver": {"mode": "projection"}}


def images(config, dataset, prior, count=None):
    variants = [config.variant_of(s, 0, dataset, "fit") for s in dataset.train[:count]]
    made = {g.variant.source.id: g for g in config.generate(variants, dataset, prior, None)}
    assert len(made) == len(variants)
    return [made[variant.source.id] for variant in variants]


@pytest.mark.parametrize("mode", ["gradient", "projection"])
def test_exact_boxes_of_accepted_images_equal_the_source(prior, scenes, mode):
    for item in images(psld(solver={"mode": mode}), scenes, prior):
        assert item.rejected is None
        source, result = np.asarray(item.variant.source.open()), np.asarray(item.image)
        assert item.boxes is not None
        for box, decision in zip(item.boxes.xyxy, item.about["box_decisions"], strict=True):
            x1, y1, x2, y2 = (round(value) for value in box.tolist())
            assert decision["decision"] == "exact"
            assert np.array_equal(result[y1:y2, x1:x2], source[y1:y2, x1:x2])
        assert not np.array_equal(result, source)


@pytest.mark.parametrize("changes", [{}, {"mode": "projection", "renoise": "ddpm"}, {"norm_over_batch": True}])
def test_image_does_not_depend_on_batch_size_or_company(prior, scenes, changes):
    alone, together = (images(psld(batch_size=b, solver=changes), scenes, prior) for b in (1, 3))
    for a, b in zip(alone, together, strict=True):
        difference = np.abs(np.asarray(a.image, dtype=int) - np.asarray(b.image, dtype=int))
        assert difference.max() <= 1  # rounding to 8 bits of sums in another order
    (again,) = images(psld(solver=changes), dataclasses.replace(scenes, train=scenes.train[2:3]), prior)
    assert np.abs(np.asarray(again.image, dtype=int) - np.asarray(alone[2].image, dtype=int)).max() <= 1


@pytest.mark.parametrize("mask", BOX_AWARE)
def test_every_mask_around_boxes_makes_images(prior, scenes, mask):
    (item,) = images(psld(mask=mask, **PROJECTION), scenes, prior, 1)
    assert item.about["mask"] == mask and item.image.size == (32, 32)
    assert 0 <= item.about["known"] <= 0.95 or item.rejected == "no_editable_area"


def test_images_without_boxes_are_rejected_or_masked_otherwise(prior, scenes):
    assert scenes.train[0].boxes is not None
    none = dataclasses.replace(
        scenes.train[0].boxes, xyxy=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), crowd=np.zeros(0, bool)
    )
    bare = dataclasses.replace(scenes, train=(dataclasses.replace(scenes.train[0], boxes=none),))
    assert images(psld(), bare, prior)[0].rejected == "no_boxes"
    other = images(psld(masking={"without_boxes": "center_box"}), bare, prior)[0]
    assert other.rejected is None and other.about["mask"] == "center_box"


def test_each_variant_has_a_mask_of_its_own_or_all_of_an_image_share_one_that_the_seed_draws(prior, scenes):
    def mask(j, **changes):
        config = psld(mask="random", **changes)
        return make_frame(config, config.variant_of(scenes.train[0], j, scenes, "fit"), 32, 8).mask

    assert (mask(0) == mask(0)).all() and (mask(0) != mask(1)).any()
    shared = {"masking": {"per_copy": False}}
    assert (mask(0, **shared) == mask(1, **shared)).all()
    assert (mask(0, **shared) != mask(0, seed=1, **shared)).any()


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_solver_is_given_the_noised_source_and_noise_of_each_step(prior, scenes, monkeypatch, everywhere):
    given = []
    real = inpainting.solve
    monkeypatch.setattr(inpainting, "solve", lambda *args: given.extend(args) or real(*args))
    monkeypatch.setattr(inpainting, "fill_hole", lambda image, mask, how: image)
    noisy = {"sigma_y": 0.5, "noise_everywhere": everywhere}
    images(psld(num_steps=10, t0=0.5, measurement=noisy), scenes, prior, 1)
    z, rows, y, operator, *_, encode, noise, _ = given
    hole = (operator.mask == 0).expand_as(y)
    assert bool((y[hole] != 0).all()) == everywhere and hole.any()
    assert not torch.equal(noise("eta", 0, z.shape[1:]), noise("eta", 1, z.shape[1:]))
    clean = encode(to_tensor(scenes.train[0].open(), 32)[None], None)
    wanted = rows[0].a ** 0.5 * clean + (1 - rows[0].a) ** 0.5 * noise("start", 0, z.shape[1:])
    torch.testing.assert_close(z, wanted)


def test_the_error_of_what_is_known_is_in_decibels_of_the_full_range(prior, scenes):
    config = psld()
    frame = make_frame(config, config.variant_of(scenes.train[0], 0, scenes, "fit"), 32, 8)
    pixels = torch.zeros(1, 3, 32, 32)
    ((_, _, about),) = inpainting._finished(
        config, prior, [frame], pixels, Moving(pixels + 0.2), Moving(torch.zeros(1))
    )
    assert about["psnr_known"] == pytest.approx(20, abs=1e-3)  # of 2, an error of 0.2


def test_a_prior_computes_as_before_after_a_run_that_saved_memory(prior, scenes):
    images(psld(checkpointing=True), scenes, prior, 1)
    assert not prior.unet.is_gradient_checkpointing and not prior.vae.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("mask", "how"), [("outpainting", "hard"), ("random_outpainting", "hard"), ("random_entirepainting", "none")]
)
def test_speckle_is_pasted_back_in_the_boxes_alone_and_not_at_all_where_those_are_not_kept(scenes, mask, how):
    config = psld(mask=mask)
    frame = make_frame(config, config.variant_of(scenes.train[0], 0, scenes, "fit"), 32, 8)
    region, paste_back = inpainting.pasted_region(config, frame)
    assert paste_back == how
    assert np.array_equal(region, frame.inside) == (mask == "random_outpainting")
    known = psld(mask=mask, labels={"paste_region": "known"})
    assert inpainting.pasted_region(known, frame)[1] == "hard"


def test_boxes_follow_an_image_that_is_squashed_to_a_square(scenes):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 48, 3), dtype=np.uint8)
    box = Boxes(xyxy=np.float32([[6, 6, 24, 18]]), labels=np.int64([1]), crowd=np.zeros(1, bool))
    data = dataclasses.replace(scenes, train=(Sample(id="wide", digest="wide", image=pixels, boxes=box),))
    config = psld(frame={"resize": "square"})
    frame = make_frame(config, config.variant_of(data.train[0], 0, data, "fit"), 32, 8)
    assert frame.boxes is not None and frame.source.shape == (32, 32, 3)
    np.testing.assert_allclose(frame.boxes.xyxy, [[4, 8, 16, 24]])


def test_mask_that_leaves_too_little_to_edit_is_rejected(prior, scenes):
    (item,) = images(psld(masking={"margin": 40}), scenes, prior, 1)
    assert item.rejected == "no_editable_area"
    assert np.array_equal(np.asarray(item.image), np.asarray(item.variant.source.open()))


def test_box_beyond_the_frame_is_no_fault(prior, scenes):
    assert scenes.train[0].boxes is not None
    far = dataclasses.replace(scenes.train[0].boxes, xyxy=scenes.train[0].boxes.xyxy + np.float32(15))
    moved = dataclasses.replace(scenes, train=(dataclasses.replace(scenes.train[0], boxes=far),))
    assert images(psld(**PROJECTION), moved, prior)[0].image.size == (32, 32)


def test_reference_preset_keeps_labels_unchecked_and_makes_grey_images(prior, scenes):
    config = psld(
        label_policy="copy",
        guidance=7.5,
        labels={"paste_back": "none"},
        frame={"color": "grey", "resize": "square", "minmax_stretch": True},
        measurement={"sigma_y": 0.05, "noise_everywhere": True},
        solver={
            "norm_over_batch": True, "prediction_noise": 0.05, "encode": "sample", "step_clamp": None, "norm_floor": 0.0,
        },
        masking={"reference_edge": True},
    )  # fmt: skip
    (item,) = images(config, scenes, prior, 1)
    pixels = np.asarray(item.image)
    assert item.rejected is None and np.array_equal(pixels[:, :, 0], pixels[:, :, 2])


@pytest.mark.parametrize("fill", ["mean", "nearest"])
def test_start_at_the_filled_source_takes_fewer_steps(prior, scenes, fill):
    before = prior.num_evaluations
    images(psld(num_steps=10, t0=0.5, solver={"mode": "projection", "fill": fill}), scenes, prior, 1)
    assert prior.num_evaluations - before == 5


@pytest.mark.parametrize("operator", ["super_resolution", "gaussian_blur", "motion_blur"])
def test_other_operators_run(prior, scenes, operator):
    config = psld(
        label_policy="copy",
        measurement={"operator": operator, "blur_sigma": 1.0},
        labels={"paste_back": "none"},
        solver={"gamma": 0.0 if "blur" in operator else 0.2},
    )
    assert images(config, scenes, prior, 1)[0].image.size == (32, 32)


def test_classification_uses_masks_that_need_no_boxes(prior):
    digits = Digits(seed=0, image_size=32, shots=1).load()
    (item,) = images(psld(mask="center_box", **PROJECTION), digits, prior, 1)
    source, result = np.asarray(item.variant.source.open()), np.asarray(item.image)
    assert item.boxes is None and np.array_equal(result[0], source[0]) and not np.array_equal(result, source)
    with pytest.raises(GenaugError, match="center_box"):
        psld().check("classification")
    psld(masking={"without_boxes": "random"}).check("classification")


def test_audit_looks_at_every_image_and_its_scores_are_in_the_manifest(prior, scenes, tmp_path):
    config = psld(audit={"by": "detector"}, **PROJECTION)
    (tmp_path / "fit").mkdir()
    config.fit(scenes, prior, tmp_path / "fit")
    pool = make_pool(
        Store(tmp_path / "store"),
        config,
        scenes,
        tmp_path / "fit",
        "fit",
        lambda: prior,
        num_variants=1,
        say=lambda text: None,
    )
    assert len(pool.samples) + sum(pool.rejected.values()) == len(scenes.train)
    for sample in pool.samples:
        assert isinstance(sample.about["audit"], list) and len(sample.about["box_decisions"]) == len(
            sample.about["objects"]
        )
        assert sample.boxes is not None and sample.about["mask_seed"] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"solver": {"mode": "projection", "omit_unet_jacobian": True}}, "omit_unet_jacobian"),
        ({"solver": {"mode": "projection", "norm_over_batch": True}}, "norm_over_batch"),
        ({"labels": {"paste_back": "feathered"}}, "paste_back=hard"),
        ({"measurement": {"operator": "gaussian_blur"}, "labels": {"paste_back": "none"}}, r"solver\.gamma=0"),
        ({"measurement": {"operator": "super_resolution"}}, "paste_back=none"),
        ({"mask": "nothing"}, "outpainting"),
        ({"solver": {"omega": 0.0, "gamma": 0.0}}, "nothing that guides"),
        ({"masking": {"hole_share": 1.5}}, r"generator\.masking\.hole_share=1\.5 must be in \(0, 1\)"),
        ({"masking": {"erase_range": [0.8, 0.2]}}, "erase_range"),
        ({"masking": {"random_range": [0.3]}}, "random_range"),
        ({"solver": {"renoise": "full"}}, "projection"),
        ({"solver": {"gamma": float("inf")}}, r"generator\.solver\.gamma=inf is not a finite number"),
        ({"solver": {"omega": -1.0}}, r"generator\.solver\.omega=-1\.0 must be in \[0, 1e\+06\]"),
        ({"solver": {"step_clamp": 0.0}}, "step_clamp=0.0 must be above 0"),
        ({"t0": 0.0}, r"generator\.t0=0\.0 must be in \(0, 1\]"),
        ({"num_steps": 0}, r"generator\.num_steps=0 must be in \[1, 1000\]"),
        ({"audit": {"confirm_iou": 1.1}}, r"generator\.audit\.confirm_iou=1\.1"),
        ({"measurement": {"factor": 1}}, r"generator\.measurement\.factor=1"),
        ({"labels": {"min_change": -1.0}}, r"generator\.labels\.min_change"),
    ],
)
def test_contradictions_are_refused(changes, said):
    with pytest.raises(GenaugError, match=said):
        psld(**changes)


def test_ladder_that_does_not_divide_the_schedule_is_refused(prior, scenes):
    with pytest.raises(GenaugError, match="num_steps=300 does not divide"):
        images(psld(num_steps=300), scenes, prior, 1)


def test_image_smaller_than_the_factor_is_refused(prior, scenes):
    with pytest.raises(GenaugError, match=r"not multiples|too small"):
        images(
            psld(measurement={"operator": "super_resolution", "factor": 20}, labels={"paste_back": "none"}),
            scenes,
            prior,
            1,
        )


def test_generators_that_redraw_the_whole_image_say_why_they_refuse_boxes():
    from genaug.generators.sdedit.da_fusion import DAFusion
    from genaug.generators.sdedit.real_guidance import RealGuidance

    for generator in (
        DAFusion(name="da_fusion", seed=0, class_names=False),
        RealGuidance(name="rg", seed=0, class_names=False),
    ):
        with pytest.raises(GenaugError, match=r"boxes no longer fit.*mask=keep_object"):
            generator.check("detection")


def test_a_warm_start_takes_and_costs_the_later_steps_only(scenes):
    variants = [psld().variant_of(scenes.train[0], j, scenes, "fit") for j in range(3)]
    alphas = [1 - t / 1001 for t in range(1000)]
    config = psld(num_steps=25, t0=0.6)
    assert [row.t for row in config.rows(alphas)] == list(range(561, 0, -40))
    assert config.forward_passes(variants).count == 3 * 15
    assert psld(num_steps=25).forward_passes(variants).count == 3 * 25
    assert psld(num_steps=25, t0=0.6, guidance=2.0).forward_passes(variants).count == 3 * 30
    with pytest.raises(GenaugError, match=r"generator\.t0=0\.03 of generator\.num_steps=25 is less than one step"):
        psld(num_steps=25, t0=0.03).check("detection")


def test_an_audit_without_a_detector_is_refused():
    config = psld(audit={"by": "detector"}, teacher=None)
    with pytest.raises(GenaugError, match=r"downstream@generator\.teacher=detector_tiny"):
        config.check("detection")


@pytest.mark.parametrize("resize", ["bucket", "letterbox"])
@pytest.mark.parametrize("shape", [(24, 48), (60, 36)])
def test_images_that_are_not_square_keep_their_aspect_and_their_boxes(prior, scenes, resize, shape):
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = Boxes(xyxy=np.float32([[4, 6, 16, 18]]), labels=np.int64([1]), crowd=np.zeros(1, bool))
    sample = Sample(id="wide", digest="wide", image=pixels, boxes=box)
    data = dataclasses.replace(scenes, train=(sample,))
    (item,) = images(psld(frame={"resize": resize}, **PROJECTION), data, prior)
    assert item.rejected is None and item.boxes is not None
    assert item.image.width / item.image.height == pytest.approx(width / height, abs=0.1)
    scale = np.asarray([item.image.width / width, item.image.height / height] * 2)
    np.testing.assert_allclose(item.boxes.xyxy[0], box.xyxy[0] * scale, rtol=1e-5)
    x1, y1, x2, y2 = (round(value) for value in item.boxes.xyxy[0].tolist())
    source = np.asarray(sample.open().resize(item.image.size, 3))
    assert np.array_equal(np.asarray(item.image)[y1:y2, x1:x2], source[y1:y2, x1:x2])
