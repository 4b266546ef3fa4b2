"""Every row of the label policy, and what pasting back promises."""

import numpy as np
import pytest

from genaug.data.detections import Detections
from genaug.data.sample import Boxes
from genaug.generators.labelling.config import Audit, Labels
from genaug.generators.labelling.decisions import audit_rows, decide, iou, known_fractions, paste, paste_weights

SIDE = 32
SOURCE = np.random.default_rng(0).integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
OTHER = np.random.default_rng(1).integers(120, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def boxes(*rows, crowd=None):
    return Boxes(
        xyxy=np.asarray(rows, dtype=np.float32).reshape(-1, 4),
        labels=np.zeros(len(rows), dtype=np.int64),
        crowd=np.zeros(len(rows), dtype=bool) if crowd is None else np.asarray(crowd),
    )


def found(*rows):
    return Detections(
        xyxy=np.asarray([r[:4] for r in rows], dtype=np.float32).reshape(-1, 4),
        labels=np.asarray([r[5] for r in rows], dtype=np.int64),
        scores=np.asarray([r[4] for r in rows], dtype=np.float32),
    )


def known_in(x1, y1, x2, y2):
    mask = np.zeros((SIDE, SIDE), dtype=np.float32)
    mask[y1:y2, x1:x2] = 1
    return mask


BOX = (4, 4, 14, 14)
KNOWN = known_in(2, 2, 16, 16)


GUARDED, AUDIT = Labels(on_unconfirmed="restore"), Audit(on_hallucination="restore")


def judge(mask=KNOWN, detections=None, generated=OTHER, weights=None, labels=GUARDED, audit=AUDIT):
    weights = (mask > 0.5).astype(np.float32) if weights is None else weights
    return decide(generated, SOURCE, mask, weights, boxes(BOX), detections, labels, audit, 2)


def test_box_that_is_known_and_pasted_is_exact_and_equals_the_source():
    verdict = judge()
    assert verdict.rejected is None and verdict.about["box_decisions"][0]["decision"] == "exact"
    assert np.array_equal(verdict.pixels[4:14, 4:14], SOURCE[4:14, 4:14])
    assert np.array_equal(verdict.pixels[20:], OTHER[20:])


def test_known_box_without_paste_back_is_not_exact():
    verdict = judge(weights=np.zeros((SIDE, SIDE), dtype=np.float32))
    assert verdict.about["box_decisions"][0]["decision"] == "restored"


@pytest.mark.parametrize(
    ("score", "label", "decision"), [(0.6, 0, "verified"), (0.31, 0, "restored"), (0.9, 1, "restored")]
)
def test_half_known_box_needs_a_detection_of_its_class(score, label, decision):
    verdict = judge(known_in(2, 2, 10, 16), detections=found((4, 4, 14, 13, score, label)))
    assert verdict.about["box_decisions"][0]["decision"] == decision
    equal = np.array_equal(verdict.pixels[4:14, 4:14], SOURCE[4:14, 4:14])
    assert equal == (decision == "restored")


def test_a_detection_that_covers_little_of_a_box_confirms_nothing():
    corner = found((9, 9, 14, 14, 0.9, 0))  # IoU .25
    decide_by = lambda audit: judge(known_in(2, 2, 10, 16), detections=corner, audit=audit).about["box_decisions"][0]
    assert decide_by(Audit())["decision"] == "restored"
    assert decide_by(Audit(confirm_iou=0.2))["decision"] == "verified"


def test_unconfirmed_box_is_ignored_or_rejects_the_image_if_so_asked():
    ignored = judge(known_in(0, 0, 1, 1), labels=Labels(on_unconfirmed="ignore"))
    assert ignored.boxes is not None and ignored.boxes.crowd.tolist() == [True] and ignored.rejected is None
    assert judge(known_in(0, 0, 1, 1), labels=Labels(on_unconfirmed="reject")).rejected == "unconfirmed_box"


def test_a_crowd_region_stays_one_whatever_is_decided_and_the_sources_own_boxes_are_not_changed():
    source, weights = boxes(BOX, (20, 20, 30, 30), crowd=[True, False]), (KNOWN > 0.5).astype(np.float32)
    before = weights.copy()
    labels = Labels(on_unconfirmed="ignore", min_change=0)
    verdict = decide(OTHER, SOURCE, KNOWN, weights, source, None, labels, AUDIT, 2)
    assert [row["decision"] for row in verdict.about["box_decisions"]] == ["exact", "ignored"]
    assert verdict.boxes is not None and verdict.boxes.crowd.tolist() == [True, True]
    assert source.crowd.tolist() == [True, False]
    decide(OTHER, SOURCE, KNOWN, weights, boxes((20, 20, 30, 30)), None, GUARDED, AUDIT, 2)  # restores its pixels
    assert np.array_equal(weights, before)


def test_a_restored_box_takes_its_margin_along_and_an_exact_one_does_not():
    restored = judge(known_in(0, 0, 1, 1)).pixels
    assert np.array_equal(restored[2:16, 2:16], SOURCE[2:16, 2:16])
    assert np.array_equal(restored[1, 2:16], OTHER[1, 2:16]) and np.array_equal(restored[16:], OTHER[16:])
    exact = judge(known_in(4, 4, 14, 14)).pixels
    assert np.array_equal(exact[3], OTHER[3]) and np.array_equal(exact[14:], OTHER[14:])


def test_the_change_of_an_image_is_that_of_its_hole():
    there = SOURCE.copy()
    there[20:] = np.clip(SOURCE[20:].astype(int) + 30, 0, 255).astype(np.uint8)
    mask = np.ones((SIDE, SIDE), dtype=np.float32)
    mask[20:] = 0
    assert judge(mask, generated=there).about["hole_change"] == pytest.approx(30, abs=0.01)


def test_detections_below_a_tenth_are_not_kept():
    rows = audit_rows(found((0, 0, 4, 4, 0.1, 0), (0, 0, 4, 4, 0.09, 0), (0, 0, 4, 4, 0.9, 7)), ["cat"])
    assert rows == [{"bbox": [0, 0, 4, 4], "score": pytest.approx(0.1, abs=1e-5), "category": "cat"}]


def test_by_default_an_object_that_is_found_nowhere_and_a_second_invented_one_cost_the_image():
    nowhere = judge(known_in(2, 2, 10, 16), detections=found((4, 4, 14, 13, 0.31, 0)), labels=Labels(), audit=Audit())
    assert nowhere.rejected == "unconfirmed_box"
    second = found((4, 4, 14, 14, 0.9, 0), (20, 20, 30, 30, 0.8, 0))
    assert judge(detections=second, labels=Labels(), audit=Audit()).rejected == "hallucinated_object"
    assert judge(detections=found((4, 4, 14, 14, 0.9, 0)), labels=Labels(), audit=Audit()).rejected is None


def test_the_seam_between_crisp_boxes_and_a_blurred_ground_is_measured_outside_the_boxes():
    flat = np.full_like(SOURCE, 100)
    verdict = judge(generated=flat)
    assert verdict.about["gradient_outside"] == 0 or verdict.about["gradient_outside"] < 5
    assert verdict.about["gradient_outside_source"] > 15
    assert judge(generated=SOURCE).about["gradient_outside"] == verdict.about["gradient_outside_source"]


def test_invented_object_is_restored_rejected_or_kept():
    invented = found((4, 4, 14, 14, 0.9, 0), (20, 20, 30, 30, 0.8, 0))
    restored = judge(detections=invented)
    assert restored.about["hallucinations"] == 1 and restored.rejected is None
    assert np.array_equal(restored.pixels[20:30, 20:30], SOURCE[20:30, 20:30])
    assert judge(detections=invented, audit=Audit(on_hallucination="reject")).rejected == "hallucinated_object"
    kept = judge(detections=invented, audit=Audit(on_hallucination="keep"))
    assert kept.rejected is None and np.array_equal(kept.pixels[20:30, 20:30], OTHER[20:30, 20:30])
    weak = judge(detections=found((20, 20, 30, 30, 0.4, 0)), audit=Audit(on_hallucination="reject"))
    assert weak.rejected is None


def test_image_whose_hole_did_not_change_is_rejected():
    assert judge(generated=SOURCE.copy()).rejected == "unchanged"
    slightly = np.clip(SOURCE.astype(int) + 5, 0, 255).astype(np.uint8)
    assert judge(generated=slightly).rejected == "unchanged"
    assert judge(generated=slightly, labels=Labels(min_change=4.0)).rejected is None


def test_copied_labels_are_never_questioned():
    verdict = judge(known_in(0, 0, 1, 1), labels=None, generated=SOURCE.copy())
    assert verdict.rejected is None and "box_decisions" not in verdict.about


def test_feather_is_zero_in_the_hole_and_one_on_the_boxes():
    kept = known_in(4, 4, 14, 14) > 0
    weights = paste_weights(KNOWN, np.ones_like(kept), "feathered", kept, 2)
    assert (weights[KNOWN == 0] == 0).all() and (weights[kept] == 1).all()
    assert 0 < weights[2, 8] < weights[3, 8] < 1
    pasted = paste(OTHER, SOURCE, weights)
    assert np.array_equal(pasted[kept], SOURCE[kept]) and np.array_equal(pasted[KNOWN == 0], OTHER[KNOWN == 0])


def test_grey_stays_grey():
    grey = np.repeat(SOURCE[:, :, :1], 3, axis=2)
    pasted = paste(np.repeat(OTHER[:, :, :1], 3, axis=2), grey, paste_weights(KNOWN, KNOWN > 0, "hard", KNOWN > 0, 2))
    assert np.array_equal(pasted[:, :, 0], pasted[:, :, 1])


def test_known_fraction_counts_the_box_without_its_margin():
    assert known_fractions(known_in(4, 4, 9, 14), boxes(BOX).xyxy) == [0.5]
    assert iou(np.asarray(BOX), np.asarray([BOX, (9, 4, 19, 14)])).tolist() == pytest.approx([1, 1 / 3])
