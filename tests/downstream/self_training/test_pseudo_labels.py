"""Every rule and loss of self-training against closed-form numbers (six decimals, so the tolerance is 1e-6)."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from genaug.downstream.self_training import pseudo_labels as rules

ROUNDED = 1e-6
WEAK = torch.tensor([[4, 0, 0], [2, 1, 0], [0, 3, 0], [1, 1, 1.5]], dtype=torch.float64)
STRONG = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 2, 1], [0, 0, 1]], dtype=torch.float64)


def close(*values):
    return pytest.approx([*values], abs=ROUNDED)


def test_confidence_and_label_of_each_image():
    conf, labels = rules.confidence(WEAK)
    assert conf.tolist() == close(0.964663, 0.665241, 0.909443, 0.451863)
    assert labels.tolist() == [0, 0, 1, 2]
    assert F.cross_entropy(STRONG, labels, reduction="none").tolist() == close(0.551445, 1.551445, 0.407606, 0.551445)


@pytest.mark.parametrize(("tau", "loss", "accepted"), [(0.6, 0.627624, 3), (0.9, 0.239763, 2), (0.95, 0.137861, 1)])
def test_fixmatch(tau, loss, accepted):
    value, mask = rules.fixmatch(WEAK, STRONG, tau)
    assert float(value) == pytest.approx(loss, abs=ROUNDED)
    assert int(mask.sum()) == accepted


def test_nothing_accepted_costs_nothing_and_sends_no_gradient():
    strong = STRONG.clone().requires_grad_()
    value, mask = rules.fixmatch(WEAK, strong, 0.99)
    value.backward()
    assert value.item() == 0
    assert not mask.any()
    assert not strong.grad.any()


def test_labels_carry_no_gradient():
    weak = WEAK.clone().requires_grad_()
    strong = STRONG.clone().requires_grad_()
    rules.fixmatch(weak, strong, 0.6)[0].backward()
    assert weak.grad is None


def test_flexmatch_thresholds_follow_the_counts():
    last = torch.tensor([0] * 4 + [1] * 2 + [2] + [-1] * 3)
    thresholds = rules.flexmatch_thresholds(last, 3, 0.9, warmup=False)
    assert thresholds.tolist() == close(0.9, 0.3, 0.128571)
    value, mask = rules.fixmatch(WEAK, STRONG, thresholds.double())
    assert mask.tolist() == [True, False, True, True]
    assert float(value) == pytest.approx(0.377624, abs=ROUNDED)


def test_flexmatch_warmup_counts_the_unused_images():
    last = torch.tensor([0, 0, 1, 2] + [-1] * 6)
    assert rules.flexmatch_thresholds(last, 3, 0.9, warmup=True).tolist() == close(0.18, 0.081818, 0.081818)


def test_flexmatch_with_equal_counts_is_fixmatch_and_without_any_accepts_all():
    equal = rules.flexmatch_thresholds(torch.tensor([0, 1, 2]), 3, 0.9, warmup=False).double()
    assert float(rules.fixmatch(WEAK, STRONG, equal)[0]) == pytest.approx(0.239763, abs=ROUNDED)
    assert rules.flexmatch_thresholds(torch.tensor([-1, -1]), 3, 0.9, warmup=False).tolist() == [0, 0, 0]


def test_debiasmatch_in_both_orders():
    old = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    new = rules.debiased_mean(old, WEAK, 0.9)
    assert new.tolist() == close(0.498731, 0.306148, 0.195121)
    value, mask = rules.debiasmatch(WEAK, STRONG, new, new, 1.0, 0.61)
    assert (float(value), mask.tolist()) == (pytest.approx(0.403215, abs=ROUNDED), [True, False, True, True])
    value, mask = rules.debiasmatch(WEAK, STRONG, old, new, 1.0, 0.61)
    assert (float(value), mask.tolist()) == (pytest.approx(0.172397, abs=ROUNDED), [True, False, True, False])


def test_debiasmatch_with_a_uniform_mean_is_fixmatch():
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    value, _ = rules.debiasmatch(WEAK, STRONG, uniform, uniform, 1.0, 0.9)
    assert float(value) == pytest.approx(0.239763, abs=ROUNDED)


def test_dst_worst_case_head():
    main_l, worst_l = torch.tensor([[2.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 0, 0], [0, 0, 2]])
    main_u, worst_u = torch.tensor([[0.0, 0, 1], [3, 0, 0]]), torch.tensor([[0.0, 0, 1], [1, 1, 0]])
    labelled = rules.dst_worst_case(main_l, worst_l, main_u, torch.tensor([[0.0, 0, -99], [-99, 0, 0]]), 2.0)
    assert float(labelled) == pytest.approx(2.790989, abs=2 * ROUNDED)
    both = rules.dst_worst_case(main_l, worst_l, main_u, worst_u, 2.0)
    assert float(both) == pytest.approx(3.494503, abs=2 * ROUNDED)


@pytest.mark.parametrize(("num_classes", "loss"), [(3, 2.602688), (10, 4.710530)])
def test_dst_of_a_uniform_worst_case_head_is_closed(num_classes, loss):
    flat = torch.zeros(4, num_classes, dtype=torch.float64)
    value = float(rules.dst_worst_case(flat, flat, flat, flat, 2.0))
    assert value == pytest.approx(loss, abs=ROUNDED)
    assert value == pytest.approx(2 * math.log(num_classes) - math.log(1 - 1 / num_classes + 1e-6), abs=1e-12)


@pytest.mark.parametrize(("step", "strength"), [(0, 0.0), (500, 0.0245), (1000, 0.0462), (5000, 0.0987), (10**6, 0.1)])
def test_gradient_reversal_grows_to_a_tenth(step, strength):
    assert rules.reversal_strength(step) == pytest.approx(strength, abs=5e-5)
    x = torch.ones(3, requires_grad=True)
    rules.ReverseGradient.apply(x, rules.reversal_strength(step)).sum().backward()
    assert x.grad.tolist() == pytest.approx([-rules.reversal_strength(step)] * 3)


HEADS = [
    torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[1.0, 0, 0], [0, 2, 0], [1, 0, 0]]),
    torch.tensor([[3.0, 0, 0], [1, 0, 0], [0, 0, 2]]),
]


def test_multi_head_co_training():
    strong = [torch.eye(3) * scale for scale in (1, 2, 0.5)]
    total, masks = rules.multi_head_co_training(HEADS, strong)
    assert float(total) == pytest.approx(0.873096, abs=ROUNDED)
    labels = [weak.argmax(dim=1) for weak in HEADS]
    each = [rules.masked_cross_entropy(strong[i], labels[(i + 1) % 3], masks[i]) for i in range(3)]
    assert [float(loss) for loss in each] == close(0.183815, 0.159697, 0.529585)


def test_three_equal_heads_are_three_times_fixmatch_without_a_threshold():
    total, masks = rules.multi_head_co_training([WEAK] * 3, [STRONG] * 3)
    assert masks.all()
    assert float(total) == pytest.approx(3 * float(rules.fixmatch(WEAK, STRONG, 0.0)[0]), abs=1e-12)


def heads(*rows):
    return torch.tensor(rows, dtype=torch.float64)[:, None, :]


def test_amst_accepts_by_the_mean_what_the_minimum_rejects():
    logits = heads([5, 0, 0], [5, 0, 0], [5, 0, 0], [1, 0, 0])
    conf = logits.softmax(dim=2).max(dim=2).values.flatten()
    assert conf.tolist() == close(0.986703, 0.986703, 0.986703, 0.576117)
    assert (float(conf.mean()), float(conf.min())) == pytest.approx((0.884057, 0.576117), abs=ROUNDED)
    assert rules.accept(logits, 0.85, "mean")[0].tolist() == [True]
    assert rules.accept(logits, 0.85, "min")[0].tolist() == [False]


@pytest.mark.parametrize("rule", ["mean", "min"])
def test_amst_rejects_disagreement_at_any_threshold(rule):
    assert rules.accept(heads([5, 0, 0], [5, 0, 0], [5, 0, 0], [0, 5, 0]), 1e-9, rule)[0].tolist() == [False]


def test_given_agreement_the_mean_of_the_maxima_is_the_maximum_of_the_mean():
    logits = torch.randn(4, 200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = logits.softmax(dim=2)
    agreed = (q.argmax(dim=2) == q.argmax(dim=2)[0]).all(dim=0)
    assert agreed.any()
    assert torch.allclose(q.max(dim=2).values.mean(dim=0)[agreed], q.mean(dim=0).max(dim=1).values[agreed])


@pytest.mark.parametrize(("num_classes", "gap"), [(2, 2.94), (10, 5.14), (37, 6.53), (101, 7.55), (196, 8.22)])
def test_one_threshold_asks_for_a_larger_margin_with_more_classes(num_classes, gap):
    logits = torch.zeros(1, 1, num_classes, dtype=torch.float64)
    logits[..., 0] = gap + 0.01
    assert rules.accept(logits, 0.95, "mean")[0].item()
    logits[..., 0] = gap - 0.01
    assert not rules.accept(logits, 0.95, "mean")[0].item()


def test_labels_are_rebuilt_or_accumulated_from_round_to_round():
    rounds = [([True, False, True], [0, 1, 2]), ([False, True, True], [1, 1, 0]), ([False] * 3, [2, 2, 2])]
    for accumulate, expected in (
        (False, [[0, -1, 2], [-1, 1, 0], [-1, -1, -1]]),
        (True, [[0, -1, 2], [0, 1, 0], [0, 1, 0]]),
    ):
        given = torch.zeros(3, 3)
        for (accepted, labels), wanted in zip(rounds, expected, strict=True):
            given = rules.given_weights(given, torch.tensor(accepted), torch.tensor(labels), accumulate)
            assert [int(row.argmax()) if row.sum() else -1 for row in given] == wanted
            assert set(given.sum(dim=1).tolist()) <= {0.0, 1.0}


def test_pretraining_loss_is_the_mean_over_heads():
    weak = [torch.tensor([[2.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 0, 0], [0, 2, 0]])]
    strong = [torch.tensor([[1.0, 1, 0], [0, 0, 1]]), torch.zeros(2, 3)]
    targets = torch.eye(3)[[0, 1]]
    terms = [float(rules.mean_cross_entropy([logits], targets)) for logits in [*weak, *strong]]
    assert terms == close(0.395495, 0.395495, 1.206720, 1.098612)
    assert float(rules.mean_cross_entropy([*weak, *strong], targets)) == pytest.approx(0.774080, abs=ROUNDED)
    # bootstrap weights: the first head sees the first image twice and the second never
    weights = torch.tensor([[2.0, 0], [1, 1]])
    first, second = (F.cross_entropy(logits, targets, reduction="none") for logits in weak)
    expected = float((2 * first[0] + second.sum()) / 4)
    assert float(rules.mean_cross_entropy(weak, targets, weights)) == pytest.approx(expected, abs=ROUNDED)


def test_pairwise_disagreement_of_heads():
    logits = torch.stack(HEADS)
    assert rules.pairwise_disagreement(logits) == pytest.approx({(0, 1): 1 / 3, (0, 2): 1 / 3, (1, 2): 2 / 3})


def test_two_linear_heads_on_the_same_features_never_drift_apart_and_weight_decay_makes_them_one():
    """Cross-entropy is convex in a linear head: the reason why the number of heads alone buys nothing."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (200,), generator=generator)
    for decay, end in ((0.0, math.inf), (0.01, 1e-3)):
        pair = [torch.randn(5, 16, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
        lipschitz = float(torch.linalg.matrix_norm(features, 2)) ** 2 / 2 / len(features) + decay
        distance = [float((pair[0] - pair[1]).detach().norm())]
        for _ in range(2000):
            for w in pair:
                loss = F.cross_entropy(features @ w.T, labels) + decay / 2 * w.square().sum()
                (gradient,) = torch.autograd.grad(loss, w)
                with torch.no_grad():
                    w -= gradient / lipschitz
            distance.append(float((pair[0] - pair[1]).detach().norm()))
        assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(distance))
        assert distance[-1] < end
    predictions = [(features @ w.T).argmax(dim=1) for w in pair]
    assert torch.equal(predictions[0], predictions[1])
