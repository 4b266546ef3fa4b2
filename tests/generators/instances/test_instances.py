"""Objects are painted again within their outlines: the blend's closed form, the order, the draws, what stays the source's."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.masks import Segmentations, object_masks
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.generators.instances import painting
from genaug.generators.instances.config import InstanceAugmentation
from genaug.generators.sentences import Sentences
from tests.generators.pipeline.tiny_pipelines import TINY

SIZE = 48
XYXY = ((4.0, 4.0, 20.0, 24.0), (26.0, 10.0, 42.0, 40.0), (2.0, 40.0, 8.0, 46.0))


def scene(seed: int = 0, boxes: tuple = XYXY, mask: Any = None, crowd: tuple = (False, False, False)) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(len(boxes)) % 2
    return Sample(
        id=f"scene/{seed}",
        digest=str(seed),
        image=pixels,
        boxes=Boxes(xyxy=np.asarray(boxes, np.float32), labels=labels, crowd=np.asarray(crowd)),
        mask=mask,
    )


def data(*samples: Sample) -> Dataset:
    return Dataset(name="scenes", task="detection", class_names=("cat", "dog"), train=samples, val=(), test=())


def config(**fields: Any) -> InstanceAugmentation:
    given = {"class_names": True, "image_size": 32, "num_steps": 2, "seed": 0, "strength": 1.0, "label_policy": "copy"}
    given |= {"min_area": 50, "redraw_prob": 1.0, "mask_dilation": 1}
    return InstanceAugmentation(name="ia", path=str(TINY), **{**given, **fields})  # type: ignore[arg-type]


def made(settings: InstanceAugmentation, dataset: Dataset, count: int = 1) -> list[Any]:
    variants = [settings.variant_of(s, j, dataset, "w") for s in dataset.train for j in range(count)]
    return list(settings.generate(variants, dataset, None, None))


def test_the_pixels_of_each_object_come_from_its_own_mask_else_from_what_its_box_holds_alone() -> None:
    triangle = [[4, 4, 20, 4, 4, 24]]
    sample = scene(mask=Segmentations([triangle], SIZE, SIZE, "here"))
    own, other, small = object_masks(sample)
    assert own[5, 5] and not own[22, 18]  # the triangle, not its box
    assert not other.any() and not small.any()  # outside the image's mask
    first, second = object_masks(scene(boxes=((4, 4, 24, 24), (14, 14, 30, 30)), crowd=(False, False)))
    assert first.sum() == 20 * 20 - 10 * 10 and second.sum() == 16 * 16 - 10 * 10 and not (first & second).any()


def test_the_blend_is_that_of_the_released_code() -> None:
    cv2 = pytest.importorskip("cv2")
    mask = np.random.default_rng(1).random((30, 40)) > 0.9
    theirs = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    theirs = cv2.GaussianBlur(theirs.astype(float), (5, 5), 0.0)
    assert np.allclose(painting.blend_weights(mask), theirs, atol=1e-12)


def test_objects_are_blended_into_the_image_and_everything_else_is_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = []

    def flat(pipe: Any, settings: Any, batch: Any, dataset: Any) -> list[Image.Image]:
        colours.append((40 * (len(colours) + 1),) * 3)
        return [Image.new("RGB", (16, 16), colours[-1])]

    monkeypatch.setattr(painting.images, "call", flat)
    sample = scene()
    (found,) = made(config(), data(sample))
    assert found.variant.draws["objects"] == [1, 0]  # the largest first; the third is too small
    expected = np.asarray(sample.open(), dtype=float)
    for colour, place in zip(colours, (1, 0), strict=True):
        x1, y1, x2, y2 = (int(v) for v in XYXY[place])
        weights = np.zeros((SIZE, SIZE))
        weights[y1:y2, x1:x2] = 1
        grown = np.max([np.roll(weights, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)
                        if painting.ELLIPSE[dy + 2, dx + 2]], axis=0)  # fmt: skip
        padded = np.pad(grown, 2, mode="reflect")
        b = sum(painting.BINOMIAL[i] * painting.BINOMIAL[j] * padded[i : i + SIZE, j : j + SIZE]
                for i in range(5) for j in range(5))  # fmt: skip
        expected = np.rint(b[..., None] * np.asarray(colour) + (1 - b[..., None]) * expected)
    picture = np.asarray(found.image)
    assert np.array_equal(picture, expected.astype(np.uint8))
    outside = np.ones((SIZE, SIZE), dtype=bool)
    for x1, y1, x2, y2 in (XYXY[0], XYXY[1]):
        outside[int(y1) - 4 : int(y2) + 4, int(x1) - 4 : int(x2) + 4] = False
    assert np.array_equal(picture[outside], np.asarray(sample.open())[outside]) and outside.any()
    assert found.boxes.xyxy.tolist() == [list(box) for box in XYXY]


def test_a_real_pipeline_paints_the_objects_and_nothing_else() -> None:
    sample = scene()
    found = made(config(), data(sample), count=2)
    pictures = [np.asarray(item.image) for item in found]
    source = np.asarray(sample.open())
    for picture in pictures:
        assert picture.shape == source.shape and np.array_equal(picture[:, 46:], source[:, 46:])
        assert np.abs(picture[12:38, 28:40].astype(int) - source[12:38, 28:40]).mean() > 5
    assert not np.array_equal(*pictures)
    again = made(config(), data(sample), count=2)
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(found, again, strict=True))


def test_each_object_has_its_own_draws_and_the_image_its_own_identity() -> None:
    sample = scene()
    texts = Sentences(texts=["a {name}", "one {name} at night"], class_names=True)
    settings = config(redraw_prob=0.5, guidances=[6.0, 7.0], sentences=texts)
    drawn = [settings.variant_of(sample, j, data(sample), "w").draws for j in range(200)]
    share = sum(len(d["objects"]) for d in drawn) / 400
    assert 0.42 < share < 0.58
    assert 70 < sum(len(d["objects"]) == 1 for d in drawn) < 130  # each object by its own draw
    both = [d for d in drawn if len(d["objects"]) == 2]
    assert {tuple(d["prompts"]) for d in both} == {(a, b) for a in texts.texts for b in texts.texts}
    assert {g for d in drawn for g in d["guidances"]} == {6.0, 7.0}
    assert settings.forward_passes([settings.variant_of(sample, j, data(sample), "w") for j in range(200)]).count == (
        2 * sum(len(d["objects"]) for d in drawn)
    )
    one, two = (config(min_area=area).variant_of(sample, 0, data(sample), "w").fingerprint for area in (50, 400))
    assert one != two


def test_what_each_call_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def looking(pipe: Any, settings: Any, batch: Any, dataset: Any) -> list[Image.Image]:
        (own,) = batch
        seen.append((painting.images.prompt_of(settings, own, dataset), settings.guidance, own.source, own.fingerprint))
        return [own.source.open()]

    monkeypatch.setattr(painting.images, "call", looking)
    sample = scene()
    (found,) = made(config(guidances=[7.5], context=0.5), data(sample))
    (prompt, guidance, crop, seed), other = seen
    assert prompt == "a photo of a dog" and other[0] == "a photo of a cat" and guidance == 7.5
    assert crop.open().size == (48 - 18, 48)  # 26 - 8 to 42 + 8, cut at the border; 10 - 15 to 40 + 15 likewise
    assert crop.mask.sum() == 16 * 30 and crop.mask[10, 8] and not crop.mask[10, 7]
    assert seed != other[3] and np.array_equal(np.asarray(found.image), np.asarray(sample.open()))


def test_crowds_small_objects_and_all_but_the_largest_are_kept() -> None:
    sample = scene(crowd=(False, True, False))
    assert config().eligible(sample) == [0]
    assert config(min_area=0).eligible(sample) == [0, 2]
    assert config(min_area=0, max_objects=1).eligible(sample) == [0]
    (found,) = made(config(min_area=10_000), data(sample))
    assert found.rejected == "no_object"


def test_labels_follow_the_common_policy() -> None:
    with pytest.raises(GenaugError, match=r"redraws the objects.*generator\.teacher"):
        config(label_policy="guarded").check("detection")
    with pytest.raises(GenaugError, match=r"write generator\.mask=edit_object"):
        config(mask="none")
    with pytest.raises(GenaugError, match="does not work on classification data"):
        config().check("classification")
    from genaug.generators.labelling.config import Audit, Labels

    sample = scene()
    guarded = config(
        label_policy="guarded", audit=Audit(by="none"), labels=Labels(on_unconfirmed="ignore", min_change=0.0)
    )
    (found,) = made(guarded, data(sample))
    assert found.boxes.crowd.tolist() == [True, True, False]  # what nobody confirmed; the kept object's label is exact
    assert np.array_equal(np.asarray(found.image)[40:46, 2:8], np.asarray(sample.open())[40:46, 2:8])


def test_an_object_without_a_pixel_of_its_own_is_kept() -> None:
    covered = scene(boxes=((10, 10, 20, 20), (5, 5, 40, 40)), crowd=(False, False))
    assert not object_masks(covered)[0].any()
    (found,) = made(config(), dataclasses.replace(data(covered)))
    assert found.rejected is None and found.variant.draws["objects"] == [1, 0]
