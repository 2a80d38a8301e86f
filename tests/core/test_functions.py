"""Preconditioning, distances, pairs, losses, samplers, averages: identities and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cm_ray.core.distance import L1, L2, PseudoHuber
from cm_ray.core.ema import update_average
from cm_ray.core.losses import consistency_loss
from cm_ray.core.pairs import perturb, training_pair
from cm_ray.core.precondition import ConsistencyPrecondition
from cm_ray.core.samplers import multistep

GENERATOR = torch.Generator().manual_seed(0)


def images(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=GENERATOR, dtype=dtype)


@pytest.mark.parametrize("sigma_data", [0.5, 0.3, 1.0])
def test_the_boundary_is_exact(sigma_data):
    x = images(4, 3, 5, 5)
    t = torch.full((4,), 0.002)
    f = ConsistencyPrecondition(sigma_data)
    assert torch.equal(f(lambda x, time: torch.full_like(x, 1e6), x, t), x)


def test_coefficients_are_openais():
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    f = ConsistencyPrecondition()
    assert f.c_skip(t) == pytest.approx([0.25 / ((v - 0.002) ** 2 + 0.25) for v in t.tolist()])
    assert f.c_out(t) == pytest.approx([0.5 * (v - 0.002) / math.sqrt(v * v + 0.25) for v in t.tolist()])
    assert f.c_in(t) == pytest.approx([1 / math.sqrt(v * v + 0.25) for v in t.tolist()])
    assert f.network_time(t) == pytest.approx([250 * math.log(v) for v in t.tolist()])


def test_a_network_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        ConsistencyPrecondition()(lambda x, time: x[:, :1], images(2, 3, 4, 4), torch.ones(2))


class DistanceContract:
    """What every distance promises."""

    def test_is_zero_for_equal_and_positive_for_others(self):
        a, b = images(6, 3, 4, 4), images(6, 3, 4, 4)
        assert self.distance(a, a).abs().max() < 1e-6
        assert (self.distance(a, b) > 0).all()

    def test_is_symmetric_and_per_sample(self):
        a, b = images(6, 3, 4, 4), images(6, 3, 4, 4)
        whole = self.distance(a, b)
        assert whole.shape == (6,)
        torch.testing.assert_close(whole, self.distance(b, a))
        torch.testing.assert_close(whole[2:3], self.distance(a[2:3], b[2:3]))

    def test_refuses_other_shapes(self):
        with pytest.raises(ValueError, match="shapes differ"):
            self.distance(images(2, 3, 4, 4), images(1, 3, 4, 4))

    def test_has_finite_gradients_even_where_it_is_zero(self):
        a = images(2, 1, 4, 4).requires_grad_()
        self.distance(a, a.detach()).sum().backward()
        assert torch.isfinite(a.grad).all()


class TestL1(DistanceContract):
    distance = L1()


class TestL2(DistanceContract):
    distance = L2()


class TestPseudoHuber(DistanceContract):
    distance = PseudoHuber()

    def test_takes_the_norm_over_all_pixels(self):
        a, b = images(2, 3, 4, 4, dtype=torch.float64), images(2, 3, 4, 4, dtype=torch.float64)
        c = 0.00054 * math.sqrt(48)
        expected = [math.sqrt(float((x - y).square().sum()) + c * c) - c for x, y in zip(a, b, strict=True)]
        assert self.distance(a, b).tolist() == pytest.approx(expected, rel=1e-12)

    def test_goes_from_squares_to_absolute_values(self):
        a = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        far, near = PseudoHuber(1e-6), PseudoHuber(1e3)
        assert float(far(a, a + 2)) == pytest.approx(2, rel=1e-5)
        assert float(near(a, a + 2)) == pytest.approx(2**2 / 2e3, rel=1e-3)


def test_a_training_pair_is_on_one_line_of_the_same_noise():
    x, noise = images(3, 1, 4, 4, dtype=torch.float64), images(3, 1, 4, 4, dtype=torch.float64)
    t, s = torch.tensor([80.0, 1.0, 0.3]).double(), torch.tensor([70.0, 0.5, 0.002]).double()
    x_t, x_s = training_pair(x, noise, t, s)
    torch.testing.assert_close((x_t - x) / t.reshape(-1, 1, 1, 1), noise)
    # an Euler step of dx/dt = (x_t - x)/t with x in the place of the denoiser
    euler = x_t + ((s - t) / t).reshape(-1, 1, 1, 1) * (x_t - x)
    torch.testing.assert_close(euler, x_s)
    with pytest.raises(ValueError, match="shapes differ"):
        perturb(x, noise[:1], t)


def test_the_target_gets_no_gradient():
    f_t, f_s = images(2, 1, 3, 3).requires_grad_(), images(2, 1, 3, 3).requires_grad_()
    consistency_loss(f_t, f_s, torch.tensor([1.0, 3.0]), L2()).sum().backward()
    assert f_s.grad is None
    torch.testing.assert_close(f_t.grad[1], 3 * 2 * (f_t - f_s)[1].detach() / 9)


SIGMA = 0.5


def gaussian_consistency(x_t, t):
    """f for data N(0, SIGMA^2): the PF ODE scales x by sqrt((SIGMA^2 + t_min^2)/(SIGMA^2 + t^2))."""
    scale = torch.sqrt((SIGMA**2 + 0.002**2) / (SIGMA**2 + t**2))
    return scale.reshape(-1, 1, 1, 1) * x_t


@pytest.mark.parametrize("taus", [(), (0.8,), (10.0, 2.0, 0.5, 0.1)])
def test_multistep_samples_of_gaussian_data_are_gaussian(taus):
    draws = [images(4000, 1, 1, 1, dtype=torch.float64) for _ in range(len(taus) + 1)]
    steps = list(multistep(gaussian_consistency, lambda i: draws[i], taus, clip=False))
    assert len(steps) == len(taus) + 1
    sample = steps[-1].flatten().numpy()
    assert stats.kstest(sample, stats.norm(scale=SIGMA).cdf).pvalue > 0.01


def test_multistep_clips_and_begins_at_t_max():
    seen = []

    def denoise(x_t, t):
        seen.append((x_t.clone(), t.clone()))
        return 5 * torch.sign(x_t)

    draws = [images(3, 1, 2, 2), images(3, 1, 2, 2)]
    *_, last = multistep(denoise, lambda i: draws[i], (0.5,))
    assert torch.equal(seen[0][0], 80.0 * draws[0])
    assert seen[0][1].tolist() == [80.0] * 3
    torch.testing.assert_close(seen[1][0], torch.sign(draws[0]) + math.sqrt(0.25 - 0.002**2) * draws[1])
    assert last.abs().max() == 1


@pytest.mark.parametrize("taus", [(0.5, 0.8), (80.0,), (0.002,), (1.0, 1.0), (-1.0,)])
def test_multistep_refuses_time_points_that_do_not_descend(taus):
    with pytest.raises(ValueError, match="taus must descend"):
        list(multistep(gaussian_consistency, lambda i: images(1, 1, 1, 1), taus))


@given(st.floats(0, 0.999999), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_averages(decay, count):
    averages = [images(3, 2) for _ in range(count)]
    current = [images(3, 2) for _ in range(count)]
    expected = [decay * a.double() + (1 - decay) * c.double() for a, c in zip(averages, current, strict=True)]
    update_average(averages, current, decay)
    for average, value in zip(averages, expected, strict=True):
        torch.testing.assert_close(average.double(), value, rtol=1e-5, atol=1e-6)
