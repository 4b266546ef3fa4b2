"""Linear algebra of the measurement operators."""

import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.generators.psld.operators import Blur, Inpainting, Operator, SuperResolution, gaussian_blur, motion_blur

MASK = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5).double()
INVERTIBLE = {"inpainting": Inpainting(MASK), "super_resolution": SuperResolution(16, 16, 4, dtype=torch.float64)}
BLURS: dict[str, Operator] = {"gaussian_blur": gaussian_blur(1.0), "motion_blur": motion_blur(5, 30.0)}
ALL = {**INVERTIBLE, **BLURS}


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ALL)
def test_adjoint_is_the_transpose(name):
    operator, x = ALL[name], images(0, 3, 3, 16, 16)
    y = images(1, *operator.apply(x).shape)
    left, right = (operator.apply(x) * y).sum(), (x * operator.adjoint(y, x.shape)).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_pseudo_inverse_projects_and_the_merged_image_explains_the_measurement(name):
    operator, x = INVERTIBLE[name], images(0, 3, 3, 16, 16)
    y = operator.apply(images(2, 3, 3, 16, 16))
    torch.testing.assert_close(operator.apply(operator.pseudo_inverse(operator.apply(x))), operator.apply(x))
    torch.testing.assert_close(operator.apply(operator.merge(x, y)), y)


@pytest.mark.parametrize("name", ALL)
def test_batch_equals_loop(name):
    operator, x = ALL[name], images(0, 3, 3, 16, 16)
    one = Inpainting(MASK[1:2]) if isinstance(operator, Inpainting) else operator
    torch.testing.assert_close(operator.apply(x)[1:2], one.apply(x[1:2]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", BLURS)
def test_gluing_of_a_blur_is_refused_unless_the_heuristic_is_asked_for(name):
    operator, x = BLURS[name], images(0, 1, 3, 16, 16)
    assert isinstance(operator, Blur)
    with pytest.raises(GenaugError, match="gamma=0"):
        operator.merge(x, operator.apply(x))
    heuristic = Blur(operator.kernel, operator.name, heuristic_gluing=True)
    torch.testing.assert_close(heuristic.merge(x, operator.apply(x)), x)


def test_motion_at_45_degrees_goes_up_to_the_right():
    kernel = motion_blur(9, 45.0).kernel
    assert kernel[1, 7] > 0 and kernel[7, 1] > 0 and kernel[1, 1] == kernel[7, 7] == 0
    assert motion_blur(9, 0.0).kernel[4].sum() == pytest.approx(1.0)


def test_constant_images_stay_constant():
    x = torch.full((1, 3, 16, 16), 0.3, dtype=torch.float64)
    for operator in (*BLURS.values(), INVERTIBLE["super_resolution"]):
        torch.testing.assert_close(operator.apply(x), torch.full_like(operator.apply(x), 0.3))


def test_image_smaller_than_the_factor_is_refused():
    with pytest.raises(GenaugError, match="too small"):
        SuperResolution(4, 4, 4)
    with pytest.raises(GenaugError, match="not multiples"):
        SuperResolution(17, 16, 4)
    with pytest.raises(GenaugError, match="too small"):
        gaussian_blur(3.0).apply(torch.zeros(1, 3, 8, 8))


def test_the_released_gluing_of_super_resolution_enlarges_by_nearest_neighbour():
    x, y = images(0, 1, 3, 16, 16), images(1, 1, 3, 4, 4)
    operator = SuperResolution(16, 16, 4, dtype=torch.float64, heuristic_gluing=True)
    enlarged = lambda small: small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    torch.testing.assert_close(operator.merge(x, y), enlarged(y) + x - enlarged(operator.apply(x)))
    assert not torch.allclose(operator.merge(x, y), SuperResolution(16, 16, 4, dtype=torch.float64).merge(x, y))


def test_the_released_gluing_puts_the_noise_of_y_into_the_hole_and_ours_does_not():
    x, y = images(0, len(MASK), 3, 16, 16), images(1, len(MASK), 3, 16, 16)  # y with values in the hole too
    hole = (MASK == 0).expand_as(x)
    assert torch.equal(Inpainting(MASK).merge(x, y)[hole], x[hole])
    torch.testing.assert_close(Inpainting(MASK, identity_adjoint=True).merge(x, y)[hole], (x + y)[hole])
    known = ~hole
    assert torch.equal(Inpainting(MASK, identity_adjoint=True).merge(x, y)[known], y[known])
