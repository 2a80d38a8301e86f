"""The one loss of all methods."""

import pytest
import torch

from cm_ray.core.distance import L1, L2, Norm, PseudoHuber
from cm_ray.core.loss import regression_loss
from tests.core.gaussian import normals


def test_the_aim_gets_no_gradient():
    answer, aim = normals(0, 2, 1, 3, 3).requires_grad_(), normals(1, 2, 1, 3, 3).requires_grad_()
    regression_loss(answer, aim, torch.tensor([1.0, 3.0]), L2()).sum().backward()
    assert aim.grad is None
    torch.testing.assert_close(answer.grad[1], 3 * 2 * (answer - aim)[1].detach() / 9)


@pytest.mark.parametrize("distance", [L1(), L2(), Norm(), PseudoHuber()])
def test_the_loss_is_per_sample_and_weighted(distance):
    answer, aim, weight = normals(0, 3, 1, 2, 2), normals(1, 3, 1, 2, 2), torch.tensor([1.0, 0.0, 2.5])
    loss = regression_loss(answer, aim, weight, distance)
    assert loss.shape == (3,)
    assert torch.equal(loss, weight * distance(answer, aim))
    assert torch.equal(regression_loss(answer, answer, weight, distance) == 0, torch.full((3,), True))


@pytest.mark.parametrize("distance", [L1(), L2(), Norm(), PseudoHuber()])
def test_unequal_shapes_are_refused(distance):
    with pytest.raises(ValueError, match="shapes differ"):
        regression_loss(normals(0, 2, 1, 3, 3), normals(0, 1, 1, 3, 3), torch.ones(2), distance)
