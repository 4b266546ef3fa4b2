"""The strong view: each operation alone, the cut-out, and where its randomness comes from."""

import numpy as np
import pytest
import torch

from genaug.downstream.self_training.strong_augmentation import OPERATIONS, StrongView, cutout


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_the_strong_view_keeps_the_format(name):
    image = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    low, high, operation = OPERATIONS[name]
    for magnitude in (low, (low + high) / 2, high):
        changed = operation(image, magnitude)
        assert (changed.shape, changed.dtype) == (image.shape, image.dtype)


def test_the_cutout_paints_at_most_half_the_side_in_grey():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    torch.manual_seed(0)
    shares = [float((cutout(image)[0] == 125).float().mean()) for _ in range(500)]
    # E[(s/2)^2] = 1/12 of the area for a whole square; a uniform centre cuts some off at the border
    assert 0.05 < np.mean(shares) < 1 / 12
    assert max(shares) <= 0.25 + 2 / 32


def test_a_strong_view_draws_from_torch_alone():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    views = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        views.append(StrongView(3)(image))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
