"""What every distance promises, and what each is."""

import math

import pytest
import torch

from cm_ray.core.distance import L1, L2, AdaptiveL2, Norm, PseudoHuber
from cm_ray.errors import SettingError
from tests.core.gaussian import normals


def pair(*shape, dtype=torch.float32):
    return normals(0, *shape).to(dtype), normals(1, *shape).to(dtype)


class DistanceContract:
    """What every distance promises."""

    def test_is_zero_for_equal_and_positive_for_others(self):
        a, b = pair(6, 3, 4, 4)
        assert self.distance(a, a).abs().max() < 1e-6
        assert (self.distance(a, b) > 0).all()

    def test_is_symmetric_and_per_sample(self):
        a, b = pair(6, 3, 4, 4)
        whole = self.distance(a, b)
        assert whole.shape == (6,)
        torch.testing.assert_close(whole, self.distance(b, a))
        torch.testing.assert_close(whole[2:3], self.distance(a[2:3], b[2:3]))

    def test_refuses_other_shapes(self):
        a, _ = pair(2, 3, 4, 4)
        for other in (a[:1], a[:, :1], a[..., :1]):
            with pytest.raises(ValueError, match="shapes differ"):
                self.distance(a, other)

    def test_has_finite_gradients_even_where_it_is_zero(self):
        a = pair(2, 1, 4, 4)[0].requires_grad_()
        self.distance(a, a.detach()).sum().backward()
        assert torch.isfinite(a.grad).all()


class TestAdaptiveL2(DistanceContract):
    distance = AdaptiveL2(p=0.75, c=0.5)

    def test_is_the_squared_norm_over_a_constant(self):
        a = torch.zeros(2, 1, 1, 2)
        b = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 1.0]]]], requires_grad=True)
        found = self.distance(a, b)
        torch.testing.assert_close(found, torch.tensor([25 / 25.5**0.75, 1 / 1.5**0.75]))
        found.sum().backward()
        torch.testing.assert_close(b.grad[0].flatten(), torch.tensor([6.0, -8.0]) / 25.5**0.75)

    def test_half_a_power_has_the_gradient_of_pseudo_huber(self):
        a, b = pair(3, 1, 4, 4)
        grads = []
        for distance in (AdaptiveL2(p=0.5, c=0.09), PseudoHuber(c=0.3)):
            moved = b.clone().requires_grad_()
            distance(a, moved).sum().backward()
            grads.append(moved.grad)
        torch.testing.assert_close(grads[0], 2 * grads[1])

    @pytest.mark.parametrize("wrong", [{"p": -0.1}, {"c": 0.0}])
    def test_refuses_values_out_of_range(self, wrong):
        with pytest.raises(SettingError):
            AdaptiveL2(**wrong)


class TestL1(DistanceContract):
    distance = L1()

    def test_is_the_mean_over_pixels(self):
        a = torch.zeros(2, 1, 1, 2)
        assert self.distance(a, torch.tensor([[[[1.0, -3.0]]], [[[0.0, 5.0]]]])).tolist() == [2.0, 2.5]


class TestL2(DistanceContract):
    distance = L2()

    def test_is_the_mean_over_pixels(self):
        a = torch.zeros(2, 1, 1, 2)
        assert self.distance(a, torch.tensor([[[[1.0, -3.0]]], [[[0.0, 2.0]]]])).tolist() == [5.0, 2.0]


class TestNorm(DistanceContract):
    distance = Norm()

    def test_is_the_norm_over_all_pixels(self):
        a, b = pair(5, 3, 4, 4, dtype=torch.float64)
        expected = [math.sqrt(float((x - y).square().sum())) for x, y in zip(a, b, strict=True)]
        assert self.distance(a, b).tolist() == pytest.approx(expected, rel=1e-12)

    def test_is_zero_with_zero_gradient_where_images_are_equal(self):
        a, b = pair(2, 1, 4, 4)
        b[0] = a[0]
        a.requires_grad_()
        distance = self.distance(a, b)
        distance.sum().backward()
        assert distance[0] == 0
        assert (a.grad[0] == 0).all()
        assert a.grad[1].norm() == pytest.approx(1, rel=1e-6)

    def test_is_pseudo_huber_as_c_vanishes(self):
        a, b = pair(5, 3, 4, 4, dtype=torch.float64)
        for c in (1e-2, 1e-4, 1e-6):
            difference = (PseudoHuber(c)(a, b) - self.distance(a, b)).abs()
            assert (difference <= c).all()


class TestPseudoHuber(DistanceContract):
    distance = PseudoHuber()

    def test_takes_the_norm_over_all_pixels_and_icts_c(self):
        a, b = pair(2, 3, 4, 4, dtype=torch.float64)
        c = 0.00054 * math.sqrt(48)
        expected = [math.sqrt(float((x - y).square().sum()) + c * c) - c for x, y in zip(a, b, strict=True)]
        assert self.distance(a, b).tolist() == pytest.approx(expected, rel=1e-12)

    def test_has_the_papers_c_for_cifar10(self):
        """0.03, table 1 of iCT."""
        a = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
        b = a.clone()
        b[0, 0, 0, 0] = 1.0
        torch.testing.assert_close(self.distance(a, b), PseudoHuber(0.03)(a, b), rtol=1e-4, atol=0)

    def test_goes_from_squares_to_absolute_values(self):
        a = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        far, near = PseudoHuber(1e-6), PseudoHuber(1e3)
        assert float(far(a, a + 2)) == pytest.approx(2, rel=1e-5)
        assert float(near(a, a + 2)) == pytest.approx(2**2 / 2e3, rel=1e-3)
