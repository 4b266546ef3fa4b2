"""Mask rules against golden numbers and what must hold for any box."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from genaug.generators.labelling.pixel_boxes import grow, union
from genaug.generators.psld import masks

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "psld.json").read_text())["masks"]
SIDE, MARGIN = GOLDEN["frame"], GOLDEN["margin"]


def boxes_of(rows):
    return [grow(masks.corners(*row[1:], SIDE, SIDE), SIDE, SIDE, MARGIN, reference_edge=True) for row in rows]


@pytest.mark.parametrize("item", GOLDEN["items"], ids=lambda item: str(item["area_K"]))
def test_boxes_union_distance_and_expected_known_fraction_equal_the_golden_numbers(item):
    boxes = boxes_of(item["boxes"])
    assert [list(box) for box in boxes] == item["pixel_boxes_x1y1x2y2"]
    inside = union(boxes, SIDE, SIDE)
    assert inside.sum() == item["area_K"]
    from scipy.ndimage import distance_transform_edt

    assert distance_transform_edt(~inside).max() == pytest.approx(item["max_distance"], abs=1e-6)
    keep = norm.sf(masks.distance(inside) / GOLDEN["sigma"])
    assert keep.mean() == pytest.approx(item["expected_known_fraction_random_entirepainting"], abs=1e-6)
    assert np.where(inside, 1, keep).mean() == pytest.approx(
        item["expected_known_fraction_random_outpainting"], abs=1e-6
    )


def test_last_row_and_column_are_outside_by_the_reference_rule_alone():
    whole = (0.5, 0.5, 1.0, 1.0)
    assert grow(masks.corners(*whole, 64, 64), 64, 64, 8, reference_edge=True) == (0, 0, 63, 63)
    assert grow(masks.corners(*whole, 64, 64), 64, 64, 8) == (0, 0, 64, 64)


def test_a_box_between_pixels_keeps_every_pixel_that_it_touches():
    assert grow((10.4, 20.6, 30.2, 40.0), 64, 64, 0) == (10, 20, 31, 40)


@pytest.mark.parametrize("kind", ["random_outpainting", "random_entirepainting"])
def test_keep_rate_at_a_distance_is_the_normal_tail(kind):
    inside = union(boxes_of(GOLDEN["items"][0]["boxes"]), SIDE, SIDE)
    mask = getattr(masks, kind)(inside, np.random.default_rng(0))
    d = masks.distance(inside)
    for centre in (0.1, 0.2, 0.32, 0.5, 0.64):
        ring = (abs(d - centre) < 0.02) & ~inside
        expected = norm.sf(d[ring] / 0.32).mean()
        tolerance = 3 * (expected * (1 - expected) / ring.sum()) ** 0.5  # 3 sigma of a binomial
        assert abs(mask[ring].mean() - expected) < tolerance
    share = mask[inside].mean()
    assert share == 1 if kind == "random_outpainting" else abs(share - 0.5) < 0.01


def test_outpainting_knows_the_boxes_alone():
    inside = union([(3, 4, 9, 12)], 16, 16)
    assert np.array_equal(masks.outpainting(inside), inside)


def test_erased_rectangle_equals_the_golden_numbers_and_stays_inside_its_box():
    golden = GOLDEN["random_erasing_ore"]
    (box,) = boxes_of([golden["box"]])
    assert list(masks.erased_rectangle(box, golden["u_h_w_x_y"])) == golden["erased_x1y1x2y2"]
    for seed in range(50):
        mask = masks.random_erasing_ore([box], SIDE, SIDE, np.random.default_rng(seed))
        erased = mask == 0
        assert not erased[~union([box], SIDE, SIDE)].any()
        area, height, width = (box[3] - box[1]) * (box[2] - box[0]), box[3] - box[1], box[2] - box[0]
        assert int(0.2 * height) * int(0.2 * width) <= erased.sum() <= 0.64 * area


def test_box_free_masks_follow_their_shares():
    rng = lambda: np.random.default_rng(3)
    assert (masks.box(512, 512, rng()) == 0).sum() == 256 * 256
    assert (masks.extreme(512, 512, rng()) == 1).sum() == 256 * 256
    assert np.array_equal(masks.extreme(64, 48, rng()), 1 - masks.box(64, 48, rng()))
    hole = masks.center_box(64, 48) == 0
    assert hole.sum() == 32 * 24 and hole[12:36, 16:48].all()
    assert 0.3 <= (masks.random(64, 64, rng()) == 0).mean() <= 0.7
    assert 0 < (masks.free_form(64, 64, rng()) == 0).mean() < 0.9
    rows = np.flatnonzero((masks.box(512, 512, rng()) == 0).any(1))
    assert rows[0] >= 16 and rows[-1] < 512 - 16


def test_no_boxes_and_zero_area_and_outside_boxes_make_no_known_pixels():
    for boxes in ([], [(5, 5, 5, 5)], [grow((70, 70, 80, 80), 64, 64, 0)]):
        assert not union(boxes, 64, 64).any()
    assert masks.distance(np.ones((8, 8), dtype=bool)).max() == 0  # no background: the clamp has nothing to divide
