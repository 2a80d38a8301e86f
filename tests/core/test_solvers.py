"""One-step solvers have their orders."""

import itertools

import pytest
import torch

from cm_ray.core.pairs import perturb
from cm_ray.core.solvers import data_denoiser, euler_step, heun_step, slope
from tests.core.gaussian import Gaussian, full, normals, order

DATA = Gaussian(0.3, 0.5)
X_T = perturb(DATA.draw(1, 64, 1, 1, 1), normals(2, 64, 1, 1, 1), torch.full((64,), 2.0))


@pytest.mark.parametrize(("step", "p"), [(euler_step, 1), (heun_step, 2)])
def test_local_errors_fall_at_one_more_than_the_order(step, p):
    """One step from t = 2 over halvings of its length."""
    t, lengths = full(X_T, 2.0), [2.0**-k for k in range(2, 7)]

    def error(length):
        s = t - length
        return (step(DATA.denoise, X_T, t, s) - DATA.flow(X_T, t, s)).abs().max()

    assert order([1 / h for h in lengths], [error(h) for h in lengths]) == pytest.approx(p + 1, abs=0.3)


@pytest.mark.parametrize(("step", "p"), [(euler_step, 1), (heun_step, 2)])
def test_global_errors_fall_at_the_order(step, p):
    """n equal steps over the interval from t = 2 to 1/2."""

    def error(n):
        x = X_T
        for t, s in itertools.pairwise(torch.linspace(2, 0.5, n + 1, dtype=torch.float64).tolist()):
            x = step(DATA.denoise, x, full(x, t), full(x, s))
        return (x - DATA.flow(X_T, full(x, 2.0), full(x, 0.5))).abs().max()

    counts = [8, 16, 32, 64]
    assert order(counts, [error(n) for n in counts]) == pytest.approx(p, abs=0.3)


def test_the_slope_is_minus_t_times_the_score():
    t = torch.linspace(0.01, 50, 64, dtype=torch.float64)
    torch.testing.assert_close(
        slope(DATA.denoise, X_T, t), -t.reshape(-1, 1, 1, 1) * DATA.score(X_T, t), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("step", [euler_step, heun_step])
def test_steps_of_no_length_stay(step):
    t = full(X_T, 0.7)
    assert torch.equal(step(DATA.denoise, X_T, t, t), X_T)


def test_a_step_to_zero_is_the_estimate():
    t = full(X_T, 0.7)
    torch.testing.assert_close(euler_step(DATA.denoise, X_T, t, 0 * t), DATA.denoise(X_T, t))


@pytest.mark.parametrize("step", [euler_step, heun_step])
def test_every_sample_has_its_own_times(step):
    t, s = torch.linspace(1, 9, 64, dtype=torch.float64), torch.linspace(0.1, 0.9, 64, dtype=torch.float64)
    whole = step(DATA.denoise, X_T, t, s)
    assert torch.equal(whole[5:7], step(DATA.denoise, X_T[5:7], t[5:7], s[5:7]))


@pytest.mark.parametrize("step", [euler_step, heun_step])
def test_a_denoiser_of_another_shape_is_refused(step):
    with pytest.raises(ValueError, match="shapes differ"):
        step(data_denoiser(X_T[:1]), X_T, full(X_T, 1.0), full(X_T, 0.5))
