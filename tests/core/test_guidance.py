"""Guided estimates are those of the guided density, and w = 1 and w = 0 are no guidance to the bit."""

import pytest
import torch

from cm_ray.core.guidance import guided
from tests.core.gaussian import Gaussian, Mixture, full, normals

CLASSES = Mixture()
"""Two classes; the model without a class is the mixture of both."""


def of_class(number):
    return Gaussian(CLASSES.means[number], CLASSES.sigma)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 4.5])
def test_the_score_is_that_of_the_guided_density(scale):
    """(D_w - x)/t^2 is the gradient of (1 - w) ln p(x) + w ln p(x|c)."""
    x = (2 * normals(0, 3, 1, 4, 4)).requires_grad_()
    t = torch.tensor([0.1, 0.6, 3.0], dtype=torch.float64)
    one = of_class(1)
    within = -((x - one.mean) ** 2) / (2 * (one.sigma**2 + t.view(-1, 1, 1, 1) ** 2))
    density = (1 - scale) * CLASSES.log_density(x, t) + scale * within
    (score,) = torch.autograd.grad(density.sum(), x)
    found = guided(one.denoise(x, t), CLASSES.denoise(x, t), scale).detach()
    torch.testing.assert_close((found - x.detach()) / t.view(-1, 1, 1, 1) ** 2, score)


def test_scales_of_one_and_zero_are_exact():
    """Though one of the estimates is so large that their difference has lost digits of the other."""
    small, large = normals(1, 2, 3, 4, 4).float(), 1e3 * normals(2, 2, 3, 4, 4).float()
    for one, other in ((small, large), (large, small)):
        assert torch.equal(guided(one, other, 1.0), one)
        assert torch.equal(guided(one, other, 0.0), other)
        mixed = guided(one, other, torch.tensor([1.0, 0.0]))
        assert torch.equal(mixed[0], one[0])
        assert torch.equal(mixed[1], other[1])


def test_each_sample_has_its_scale():
    one, other, scales = (
        normals(1, 3, 1, 2, 2),
        normals(2, 3, 1, 2, 2),
        torch.tensor([0.5, 1.5, 4.0]).double(),
    )
    wanted = torch.stack([b + w * (a - b) for a, b, w in zip(one, other, scales, strict=True)])
    torch.testing.assert_close(guided(one, other, scales), wanted)
    assert torch.equal(guided(one, other, 2), guided(one, other, 2.0))
    with pytest.raises(ValueError, match="shapes differ"):
        guided(one, other[:1], 2.0)


def test_guidance_moves_samples_away_from_the_other_class():
    x, t = normals(0, 4, 1, 2, 2), full(normals(0, 4, 1, 2, 2), 0.3)
    estimates = [guided(of_class(1).denoise(x, t), CLASSES.denoise(x, t), w) for w in (1.0, 2.0, 4.0)]
    assert (estimates[0] <= estimates[1]).all()
    assert (estimates[1] < estimates[2]).any()
