"""Edits around an object: the mask's rules, the latents that stay, boxes on detection data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError
from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.generators.labelling.config import Labels
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.generators.sdedit.diff_mix import DiffMix
from genaug.generators.sdedit.edit_region import edit_region, lay_out, mosaic_centre, to_square
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.generators.sdedit.sampler import sdedit
from genaug.generators.sdedit.vae_reconstruction import VaeReconstruction
from genaug.generators.tokens.config import TextualInversion
from genaug.priors.noise import make_scheduler


def real_guidance(**changes) -> RealGuidance:
    base = {"name": "rg", "seed": 0, "class_names": True, "num_steps": 4, "guidance": 1.0, "mask_dilation": 2}
    return RealGuidance(**{**base, **changes})


def masked(mask: np.ndarray, boxes: Boxes | None = None) -> Sample:
    picture = np.zeros((*mask.shape, 3), dtype=np.uint8)
    return Sample(id="one", digest="one", image=picture, label={0: 1.0}, mask=mask, boxes=boxes)


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes(seed=0, image_size=32, num_train=6, num_val=1, num_test=1).load()


def test_an_even_filter_reaches_one_pixel_further_down_and_right():
    """Card, section 5: zero-padding of 8 before and 7 after, a maximum over 16, stride 1."""
    mask = np.zeros((64, 64), dtype=bool)
    mask[30, 20] = True
    editable = edit_region(masked(mask), 64, 64, "edit_object", 16)[0]
    rows, columns = np.flatnonzero(editable.any(1)), np.flatnonzero(editable.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (23, 38, 13, 28)
    random = np.random.default_rng(0).random((64, 64)) < 0.01
    padded = torch.nn.functional.pad(torch.from_numpy(random).float()[None], (8, 7, 8, 7))
    expected = torch.nn.functional.max_pool2d(padded, 16, 1)[0] > 0.5
    assert np.array_equal(edit_region(masked(random), 64, 64, "edit_object", 16)[0], expected.numpy())


def test_keep_object_is_the_inverse_of_edit_object():
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 30:45] = True
    keep, edit = (edit_region(masked(mask), 32, 32, kind, 2)[0] for kind in ("keep_object", "edit_object"))
    assert np.array_equal(keep, ~edit) and 0 < edit.mean() < 1
    assert edit_region(masked(mask), 32, 32, "none", 2)[0].all()


def test_mask_and_boxes_together_are_the_object():
    mask = np.zeros((32, 32), dtype=bool)
    mask[2:6, 2:6] = True
    boxes = Boxes(xyxy=np.float32([[20, 20, 24, 30]]), labels=np.int64([0]), crowd=np.zeros(1, dtype=bool))
    editable = edit_region(masked(mask, boxes), 32, 32, "edit_object", 0)[0]
    expected = mask.copy()
    expected[20:30, 20:24] = True
    assert np.array_equal(editable, expected)


def test_what_cannot_be_edited_says_why():
    assert edit_region(masked(np.zeros((32, 32), dtype=bool)), 32, 32, "keep_object", 2)[1] == "no_object"
    assert edit_region(masked(np.ones((32, 32), dtype=bool)), 32, 32, "keep_object", 2)[1] == "no_editable_area"
    assert edit_region(replace(masked(np.ones((32, 32), dtype=bool)), label={}), 32, 32, "none", 2)[1] == "no_boxes"


@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++", "unipc", "pndm_ref"])
def test_kept_latents_are_those_of_the_source_at_every_step(prior, monkeypatch, scheduler):
    """They are at the level of the next t while the rest is denoised, and clean at the end."""
    z, eps = torch.randn(2, 1, 4, 4, 4)
    editable = torch.zeros(1, 4, 4, dtype=torch.bool)
    editable[:, :, 2:] = True
    seen: list[tuple[int, torch.Tensor]] = []
    real = prior.predict_noise

    def predict_noise(z_t, t, *arguments):
        seen.append((int(t), z_t.clone()))
        return real(z_t, t, *arguments)

    monkeypatch.setattr(prior, "predict_noise", predict_noise)
    settings = {"scheduler": scheduler, "num_steps": 10, "num_taken": 6, "guidance": 1.0}
    end = sdedit(prior, z, eps, prior.embed(["a photo"]), None, **settings, editable_bhw=editable)
    free = sdedit(prior, z, eps, prior.embed(["a photo"]), None, **settings)
    assert torch.equal(end[:, :, :, :2], z[:, :, :, :2])
    assert not torch.equal(end[:, :, :, 2:], z[:, :, :, 2:]) and not torch.equal(end, free)
    levels = make_scheduler(scheduler, prior.betas).alphas_cumprod
    for t, z_t in seen[: len(seen) // 2]:
        kept = levels[t].sqrt() * z + (1 - levels[t]).sqrt() * eps
        torch.testing.assert_close(z_t[:, :, :, :2], kept[:, :, :, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", ["none", "keep_object", "edit_object"])
@pytest.mark.parametrize("make", [real_guidance, lambda **c: DAFusion(name="da", seed=0, class_names=True, **c)])
def test_plain_edits_of_detection_data_are_refused_unless_overridden(make, mask):
    generator = make(mask=mask)
    if mask == "keep_object":
        generator.check("detection")
    else:
        with pytest.raises(GenaugError, match=r"boxes no longer fit.*generator\.mask=keep_object.*label_policy=copy"):
            generator.check("detection")
    make(mask=mask, label_policy="copy").check("detection")
    generator.check("classification")


def test_detection_data_are_not_cropped_and_not_mixed():
    with pytest.raises(GenaugError, match=r"generator\.resize=crop would cut off boxes"):
        real_guidance(mask="keep_object", resize="crop").check("detection")
    with pytest.raises(GenaugError, match="does not work on detection data"):
        DiffMix(name="mix", seed=0, class_names=True, mask="keep_object").check("detection")


def test_a_mask_needs_data_with_objects(dataset, scenes):
    real_guidance(mask="keep_object").check_dataset(scenes)
    with pytest.raises(GenaugError, match=r"patterns has neither object masks nor boxes\. Write generator\.mask=none"):
        real_guidance(mask="keep_object").check_dataset(dataset)


@pytest.mark.parametrize("save_size", [None, 48])
def test_boxes_of_accepted_images_hold_the_pixels_of_the_source(prior, scenes, save_size):
    generator = real_guidance(mask="keep_object", t0=1.0, save_size=save_size)
    made = list(
        generator.generate([generator.variant_of(s, 0, scenes, "fit") for s in scenes.train], scenes, prior, None)
    )
    accepted = [item for item in made if item.rejected is None]
    assert len(made) == 6 and accepted
    for item in accepted:
        side = save_size or 32
        source = np.asarray(item.variant.source.open().resize((side, side), 2))
        result = np.asarray(item.image)
        assert item.boxes is not None and item.variant.source.boxes is not None
        np.testing.assert_allclose(item.boxes.xyxy, item.variant.source.boxes.xyxy * side / 32, rtol=1e-6)
        inside = np.zeros((side, side), dtype=bool)
        for x1, y1, x2, y2 in item.boxes.xyxy:
            inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        assert np.array_equal(result[inside], source[inside])
        assert not np.array_equal(result[~inside], source[~inside])


def test_images_without_boxes_are_counted_not_edited(prior, scenes):
    nothing = Boxes(xyxy=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), crowd=np.zeros(0, bool))
    train = (replace(scenes.train[0], id="empty", boxes=nothing, mask=None), scenes.train[1])
    data = replace(scenes, train=train)
    generator = real_guidance(mask="keep_object")
    made = list(generator.generate([generator.variant_of(s, 0, data, "fit") for s in train], data, prior, None))
    assert [item.rejected for item in made] == ["no_boxes", None]


def test_tokens_are_learned_from_boxed_images_by_their_largest_object(prior, scenes, tmp_path):
    tokens = TextualInversion(seed=0, num_steps=2, batch_size=1)
    generator = DAFusion(name="da", seed=0, class_names=True, mask="keep_object", tokens=tokens, num_steps=4)
    generator.fit(scenes, prior, tmp_path)
    made = list(
        generator.generate([generator.variant_of(s, 0, scenes, "fit") for s in scenes.train], scenes, prior, tmp_path)
    )
    by_id = {item.variant.source.id: item for item in made if item.rejected is None}
    assert by_id
    for sample in scenes.train:
        if sample.id in by_id:
            name = scenes.class_names[sample.class_index]
            assert by_id[sample.id].about["prompt"] == f"a photo of a <{name}>"


def test_the_mask_is_part_of_the_identity(scenes):
    sample = scenes.train[0]
    generator = real_guidance(mask="keep_object")
    other = replace(sample, mask=~sample.mask)
    fingerprints = {generator.variant_of(s, 0, scenes, "fit").fingerprint for s in (sample, other)}
    fingerprints.add(real_guidance().variant_of(sample, 0, scenes, "fit").fingerprint)
    assert len(fingerprints) == 3


def test_a_mosaic_holds_the_source_unscaled_in_its_centre_and_gives_it_back():
    """Crops of Leafy Spurge, 39 px, under a prior of 512 px."""
    crop = Image.fromarray(np.random.default_rng(0).integers(0, 256, (39, 39, 3), dtype=np.uint8))
    tiled = to_square(crop, 512, "tile", Image.Resampling.BILINEAR)
    top = (512 - 39) // 2
    assert tiled.size == (512, 512)
    assert np.array_equal(np.asarray(tiled)[top : top + 39, top : top + 39], crop)
    assert np.array_equal(np.asarray(tiled)[top - 39 : top, top : top + 39], crop)
    assert np.array_equal(mosaic_centre(tiled, crop.size), crop)


def test_images_made_from_a_mosaic_have_the_sources_size_and_lose_nothing_to_scaling(prior):
    pixels = np.full((15, 11, 3), 128, dtype=np.uint8)
    source = Sample(id="one", digest="one", image=pixels, label={0: 1.0})
    dataset = Dataset(name="d", task="classification", class_names=("x",), train=(source,), val=(), test=())
    generator = real_guidance(resize="tile", t0=0.5)
    (made,) = generator.generate([generator.variant_of(source, 0, dataset, "f")], dataset, prior, None)
    assert made.image.size == (11, 15)


def wide_scene(seed: int = 0) -> Sample:
    """A photograph of 4:3 with one box off its centre."""
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    boxes = Boxes(xyxy=np.float32([[8, 6, 40, 30]]), labels=np.int64([0]), crowd=np.zeros(1, dtype=bool))
    return Sample(id=f"wide {seed}", digest=f"wide {seed}", image=pixels, boxes=boxes)


def one_class(*train: Sample) -> Dataset:
    return Dataset(name="d", task="detection", class_names=("thing",), train=train, val=(), test=())


def test_images_with_boxes_keep_their_aspect_ratio_and_their_boxes_with_it(prior):
    data = one_class(wide_scene())
    generator = real_guidance(mask="keep_object", t0=1.0)
    (made,) = generator.generate([generator.variant_of(data.train[0], 0, data, "f")], data, prior, None)
    width, height = made.image.size
    assert width / height == pytest.approx(4 / 3, rel=0.05)
    assert made.boxes is not None
    np.testing.assert_allclose(made.boxes.xyxy, np.float32([[8, 6, 40, 30]]) * width / 80, rtol=0.05)
    layout = lay_out(data.train[0], 48, 32, "edit_object", 0)
    assert layout.geometry is not None and layout.geometry.inner != layout.size
    assert layout.editable.sum() == layout.geometry.crop(layout.editable).sum() > 0  # nothing of the padding


def test_saved_at_the_size_of_the_source_the_object_is_the_sources_pixel_for_pixel(prior):
    data = one_class(wide_scene())
    generator = real_guidance(mask="keep_object", t0=1.0, save_size="source")
    (made,) = generator.generate([generator.variant_of(data.train[0], 0, data, "f")], data, prior, None)
    source, result = np.asarray(data.train[0].open()), np.asarray(made.image)
    assert made.image.size == (80, 60) and made.boxes is not None and made.boxes.xyxy.tolist() == [[8, 6, 40, 30]]
    assert np.array_equal(result[6:30, 8:40], source[6:30, 8:40])
    assert not np.array_equal(result[40:], source[40:])
    known = replace(generator, labels=Labels(paste_region="known", min_change=0.0), mask_dilation=12)
    (wider,) = known.generate([known.variant_of(data.train[0], 0, data, "f")], data, prior, None)
    kept = lambda item: np.all(np.asarray(item.image) == source, axis=2).mean()
    assert kept(wider) > kept(made)


@pytest.mark.parametrize("size", [0, -1, "large", True, 1.5])
def test_a_size_of_saved_images_that_is_none_is_refused(size):
    with pytest.raises(GenaugError, match=r"generator\.save_size=.* must be a number of pixels"):
        real_guidance(save_size=size)


class Eye:
    """Stands in for a trained detector: finds what it is told to."""

    def __init__(self, *rows):
        self.rows = rows

    def learn(self, dataset, folder, device):
        (folder / "teacher.pt").write_text("learned")
        return {"teacher": "eye"}

    def eye(self, num_classes, folder, device):
        assert (folder / "teacher.pt").exists()
        return lambda name, pixels: Detections(
            xyxy=np.asarray([row[:4] for row in self.rows], dtype=np.float32).reshape(-1, 4),
            labels=np.asarray([0] * len(self.rows), dtype=np.int64),
            scores=np.asarray([row[4] for row in self.rows], dtype=np.float32),
        )

    def forward_passes(self):
        return ForwardPasses(network="eye", count=1)


@pytest.mark.parametrize(
    ("rows", "rejected"),
    [
        ([(3, 2, 16, 12, 0.9)], None),  # the repainted object is where its label says, in a frame of 32 x 24
        ([(3, 2, 16, 12, 0.31)], "unconfirmed_box"),
        ([], "unconfirmed_box"),
        ([(3, 2, 16, 12, 0.9), (20, 14, 30, 22, 0.8)], "hallucinated_object"),
    ],
)
def test_the_audit_decides_over_repainted_objects_of_every_edit(prior, tmp_path, rows, rejected):
    data = one_class(wide_scene())
    generator = real_guidance(mask="edit_object", t0=1.0, teacher=Eye(*rows))
    generator.check("detection")
    assert generator.fits and generator.fit(data, prior, tmp_path) == {"teacher": "eye"}
    (made,) = generator.generate([generator.variant_of(data.train[0], 0, data, "f")], data, prior, tmp_path)
    assert made.image.size == (32, 24) and made.rejected == rejected
    assert len(made.about["audit"]) == len(rows) and "gradient_outside" in made.about


def test_a_reconstruction_is_the_vaes_and_keeps_its_boxes(prior):
    data = one_class(wide_scene(), wide_scene(1))
    generator = VaeReconstruction(name="control", seed=0)
    made = list(generator.generate([generator.variant_of(s, 0, data, "f") for s in data.train], data, prior, None))
    assert prior.num_evaluations == 0 and {item.image.size for item in made} == {(32, 24)}
    assert all(item.boxes is not None and len(item.boxes.xyxy) == 1 for item in made)
