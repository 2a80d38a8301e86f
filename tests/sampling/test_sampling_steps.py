"""Samplers converge at their orders, draw from the data's law, and keep the interface's promises."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from cm_ray.core.solvers import data_denoiser
from cm_ray.core.times import karras_times
from cm_ray.sampling.sampling_steps import (
    Churn,
    clipped,
    dpm_solver_2,
    euler,
    euler_ancestral,
    heun,
    jumps,
    multistep,
)
from tests.core.gaussian import Gaussian, Mixture, full, normals, order

DATA = Gaussian(0.3, 0.5)


def churned(denoise, noise, times):
    return heun(denoise, noise, times, churn=Churn(s_churn=30.0, s_noise=1.0))


ODE = [(euler, 1), (heun, 2), (dpm_solver_2, 2)]
SAMPLERS = [multistep, euler, heun, churned, dpm_solver_2, euler_ancestral]


class Noise:
    """Normal images by index, and a record of the indices asked for."""

    def __init__(self, *shape, rows=slice(None)):
        self.shape, self.rows, self.asked = shape, rows, []

    def __call__(self, index):
        self.asked.append(index)
        return normals(index, *self.shape)[self.rows]


class Counted:
    """A denoiser that counts its evaluations."""

    def __init__(self, denoise):
        self.denoise, self.times = denoise, []

    def __call__(self, x_t, t):
        assert t.shape == (len(x_t),)
        self.times.append(float(t[0]))
        return self.denoise(x_t, t)


def final(steps):
    *_, step = steps
    return step.x


def grid(steps, *, to_zero=False):
    """The times of `steps` steps; to zero, as in EDM, the last one from t_min."""
    return [0.0, *karras_times(steps).tolist()] if to_zero else karras_times(steps + 1).tolist()


# Convergence


@pytest.mark.parametrize(("sampler", "p"), ODE)
def test_ode_samplers_converge_to_the_closed_form_at_their_orders(sampler, p):
    """The solver goes from t_max to t_min in n steps on the Karras grid: a global error."""
    counts, z = [32, 64, 128, 256], normals(0, 64, 1, 1, 1)
    exact = DATA.flow(80 * z, full(z, 80.0), full(z, 0.002))
    errors = [(final(sampler(DATA.denoise, lambda i: z, grid(n))) - exact).abs().max() for n in counts]
    assert order(counts, errors) == pytest.approx(p, abs=0.3)
    assert errors[-1] < 0.02**p


@pytest.mark.parametrize("sampler", [heun, dpm_solver_2])
def test_ode_samplers_agree_with_scipy_on_a_mixture(sampler):
    data, z = Mixture(), normals(1, 16, 1, 1, 1)

    def oracle(t, x):
        """-t times the score, by autograd of the density."""
        x = torch.tensor(x).requires_grad_()
        density = data.log_density(x.reshape(-1, 1, 1, 1), torch.full((len(x),), t, dtype=torch.float64))
        return (-t * torch.autograd.grad(density.sum(), x)[0]).numpy()

    solution = solve_ivp(oracle, (80, 0.002), 80 * z.flatten().numpy(), rtol=1e-10, atol=1e-12).y[:, -1]
    sample = final(sampler(data.denoise, lambda i: z, grid(1000)))
    np.testing.assert_allclose(sample.flatten().numpy(), solution, atol=2e-5)
    quantiles = data.cdf(80 * z.flatten().numpy(), 80.0)
    np.testing.assert_allclose(data.cdf(solution, 0.002), quantiles, atol=1e-8)


def exact_variance(sampler, steps):
    """The variance of a sampler's pixels for data around 0, where they are sums of a_i noise(i).

    Row j of the batch gets noise(j) = 1 and no other, and so ends as a_j. The first is raised to begin with
    the variance of p_t at t_max.
    """
    data, count = Gaussian(0.0, 0.5), steps + 1
    units = torch.eye(count, dtype=torch.float64)
    units[0, 0] = math.hypot(80, data.sigma) / 80
    return (
        final(sampler(data.denoise, lambda i: units[i].reshape(count, 1, 1, 1), grid(steps))).square().sum()
    )


@pytest.mark.parametrize(("sampler", "p"), [*ODE, (euler_ancestral, 1), (churned, 2)])
def test_the_variance_of_samples_converges_to_the_datas_at_the_samplers_order(sampler, p):
    counts, exact = [64, 128, 256, 512], 0.5**2 + 0.002**2
    errors = [(exact_variance(sampler, n) - exact).abs() / exact for n in counts]
    assert order(counts, errors) == pytest.approx(p, abs=0.3)
    assert errors[-1] < 0.03**p


# Laws


@pytest.mark.parametrize("taus", [(), (0.8,), (0.1, 0.5, 2.0, 10.0)])
def test_multistep_samples_are_the_datas(taus):
    f = DATA.consistency()
    sample = final(multistep(f, Noise(4000, 1, 1, 1), (0.002, *taus, 80.0)))
    assert DATA.p_value(sample, 0.002) > 0.01


@pytest.mark.parametrize("sampler", [euler, heun, churned, dpm_solver_2, euler_ancestral])
def test_samples_of_many_steps_are_the_datas(sampler):
    sample = final(sampler(DATA.denoise, Noise(4000, 1, 1, 1), grid(400)))
    assert DATA.p_value(sample, 0.002) > 0.01


@pytest.mark.parametrize("sampler", [churned, euler_ancestral])
def test_stochastic_samplers_have_the_law_of_every_time_on_their_way(sampler):
    for step in itertools.islice(sampler(DATA.denoise, Noise(4000, 1, 1, 1), grid(400)), 40, 400, 90):
        assert DATA.p_value(step.x, step.t) > 0.01


def test_the_test_of_laws_finds_a_sampler_of_too_few_steps():
    sample = final(euler_ancestral(DATA.denoise, Noise(4000, 1, 1, 1), grid(5)))
    assert DATA.p_value(sample, 0.002) < 1e-4


# Consistency sampling


def test_multistep_adds_noise_to_the_level_of_the_time_point():
    """tau^2 - t_min^2 of variance, as the last answer has t_min^2 already."""
    seen, noise = [], Noise(3, 1, 2, 2)

    def f(x_t, t):
        seen.append((x_t, t.tolist()))
        return torch.sign(x_t)

    steps = list(multistep(f, noise, (0.002, 0.5, 7.0, 80.0)))
    (first, at_first), (second, at_second), (third, at_third) = seen
    assert torch.equal(first, 80.0 * normals(0, 3, 1, 2, 2))
    torch.testing.assert_close(second, torch.sign(first) + math.sqrt(49 - 0.002**2) * normals(1, 3, 1, 2, 2))
    torch.testing.assert_close(
        third, torch.sign(second) + math.sqrt(0.25 - 0.002**2) * normals(2, 3, 1, 2, 2)
    )
    assert [at_first, at_second, at_third] == [[80.0] * 3, [7.0] * 3, [0.5] * 3]
    assert [step.t for step in steps] == [0.002] * 3
    assert torch.equal(steps[-1].x, torch.sign(third))


def test_one_step_generation_is_one_answer_at_t_max():
    z = normals(0, 3, 1, 2, 2)
    (step,) = multistep(DATA.consistency(), lambda i: z, (0.002, 80.0))
    assert torch.equal(step.x, DATA.consistency()(80 * z, full(z, 80.0)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clipping_bounds_the_estimates_for_sampling(sampler):
    loud = clipped(lambda x_t, t: 5 * torch.sign(x_t))
    assert loud(normals(0, 2, 1, 3, 3), torch.ones(2)).abs().max() == 1
    sample = final(sampler(loud, Noise(2, 1, 3, 3), grid(6, to_zero=sampler is not multistep)))
    assert sample.abs().max() <= 1


# EDM's algorithms


@pytest.mark.parametrize("sampler", [heun, churned, dpm_solver_2])
@pytest.mark.parametrize("n", [1, 2, 18])
def test_second_order_samplers_evaluate_twice_a_step_but_for_the_one_to_zero(sampler, n):
    to_zero, to_t_min = Counted(DATA.denoise), Counted(DATA.denoise)
    final(sampler(to_zero, Noise(2, 1, 1, 1), grid(n, to_zero=True) if n > 1 else [0.0, 80.0]))
    final(sampler(to_t_min, Noise(2, 1, 1, 1), grid(n)))
    assert len(to_zero.times) == 2 * n - 1
    assert len(to_t_min.times) == 2 * n


def test_eighteen_steps_of_heun_are_35_evaluations():
    """Karras et al. 2022, table 2: CIFAR-10."""
    counted = Counted(DATA.denoise)
    final(heun(counted, Noise(2, 1, 1, 1), grid(18, to_zero=True)))
    assert len(counted.times) == 35
    assert counted.times[0] == 80.0
    assert counted.times[-1] == 0.002


@pytest.mark.parametrize("sampler", [euler, euler_ancestral, multistep])
def test_first_order_samplers_evaluate_once_a_step(sampler):
    counted, times = Counted(DATA.denoise), grid(7)
    final(sampler(counted, Noise(2, 1, 1, 1), times))
    assert counted.times == times[:0:-1]


def test_dpm_solver_2_evaluates_at_geometric_means():
    counted = Counted(DATA.denoise)
    final(dpm_solver_2(counted, Noise(2, 1, 1, 1), [1.0, 4.0, 16.0]))
    assert counted.times == [16.0, 8.0, 4.0, 2.0]


def test_churn_is_capped_and_only_inside_its_interval():
    raised = Churn(s_churn=40.0, s_min=0.05, s_max=50.0).raised
    assert raised(1.0, 18) == pytest.approx(math.sqrt(2))  # 40/18 would be 2.2
    assert raised(1.0, 400) == pytest.approx(1.1)
    assert raised(0.05, 400) == pytest.approx(0.055)
    assert raised(50.0, 400) == pytest.approx(55)
    assert [raised(t, 18) for t in (0.002, 0.0499, 50.1, 80.0)] == [0.002, 0.0499, 50.1, 80.0]
    assert Churn().raised(1.0, 18) == 1.0


def test_churn_raises_the_noise_to_the_level_that_the_step_begins_from():
    """The denoiser that returns its input makes all steps stand still: what moves is the noise added."""
    counted, times, noise = Counted(lambda x_t, t: x_t), [0.01, 0.1, 1.0, 10.0, 60.0], Noise(3, 1, 2, 2)
    x = final(heun(counted, noise, times, churn=Churn(s_churn=0.4, s_noise=1.5)))
    assert noise.asked == [0, 2, 3, 4]  # not for the step from 60, beyond s_max
    assert counted.times == pytest.approx([60.0, 10.0, 11.0, 1.0, 1.1, 0.1, 0.11, 0.01])
    expected = 60 * normals(0, 3, 1, 2, 2)
    for index, t in [(2, 10.0), (3, 1.0), (4, 0.1)]:
        expected += 1.5 * math.sqrt((1.1 * t) ** 2 - t**2) * normals(index, 3, 1, 2, 2)
    torch.testing.assert_close(x, expected)


def test_no_churn_is_the_deterministic_algorithm():
    times, noise = grid(18), Noise(3, 1, 2, 2)
    plain = final(heun(DATA.denoise, noise, times))
    assert noise.asked == [0]
    assert torch.equal(plain, final(heun(DATA.denoise, noise, times, churn=Churn(s_churn=0.0))))
    assert not torch.equal(plain, final(churned(DATA.denoise, noise, times)))


# Ancestral sampling


@given(st.floats(0.01, 80), st.floats(1e-9, 0.999))
@settings(max_examples=40, deadline=None)
def test_an_ancestral_step_draws_from_the_posterior_given_the_image(t, share):
    """N(x + s^2/t^2 (x_t - x), s^2 (t^2 - s^2)/t^2), however long the step."""
    s, x, z, x_t = share * t, normals(0, 2, 1, 2, 2), normals(1, 2, 1, 2, 2), t * normals(2, 2, 1, 2, 2)
    sample = final(euler_ancestral(data_denoiser(x), lambda i: z if i else x_t / t, [s, t]))
    expected = x + s**2 / t**2 * (x_t - x) + s * math.sqrt(t**2 - s**2) / t * z
    torch.testing.assert_close(sample, expected, rtol=1e-9, atol=1e-9)


# The interface


@pytest.mark.parametrize(
    ("sampler", "asked"),
    [
        (multistep, [0, 1, 2, 3, 4]),
        (euler, [0]),
        (heun, [0]),
        (churned, [0, 2, 3, 4, 5]),
        (dpm_solver_2, [0]),
        (euler_ancestral, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_noise_is_taken_by_the_index_of_the_step(sampler, asked):
    noise = Noise(2, 1, 1, 1)
    final(sampler(DATA.denoise, noise, [0.002, 0.06, 0.5, 2.0, 30.0, 80.0]))
    assert noise.asked == asked


def test_an_ancestral_step_to_zero_takes_no_noise():
    noise = Noise(2, 1, 1, 1)
    final(euler_ancestral(DATA.denoise, noise, [0.0, 0.5, 80.0]))
    assert noise.asked == [0, 1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_do_not_depend_on_the_batch_they_are_made_in(sampler):
    whole = final(sampler(DATA.denoise, Noise(8, 1, 2, 2), grid(7)))
    for rows in (slice(0, 1), slice(3, 6)):
        assert torch.equal(final(sampler(DATA.denoise, Noise(8, 1, 2, 2, rows=rows), grid(7))), whole[rows])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("to_zero", [False, True])
def test_a_step_is_yielded_for_every_interval_and_the_last_is_at_the_lowest_time(sampler, to_zero):
    times = grid(5, to_zero=to_zero)
    steps = list(sampler(DATA.denoise, Noise(2, 1, 2, 2), times))
    assert len(steps) == len(times) - 1
    arrivals = [times[0]] * 5 if sampler is multistep else times[-2::-1]
    assert [step.t for step in steps] == arrivals
    assert all(step.x.shape == (2, 1, 2, 2) for step in steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_last_step_to_zero_ends_in_the_estimate(sampler):
    point = Gaussian(0.7, 0.0)
    sample = final(sampler(point.denoise, Noise(2, 1, 2, 2), grid(6, to_zero=True)))
    torch.testing.assert_close(sample, torch.full_like(sample, 0.7))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("times", [(80.0, 1.0, 0.002), (0.002, 1.0, 1.0), (-1.0, 80.0), (80.0,), ()])
def test_times_that_do_not_ascend_are_refused(sampler, times):
    with pytest.raises(ValueError, match="times must ascend"):
        next(sampler(DATA.denoise, Noise(2, 1, 2, 2), times))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_keep_the_precision_of_the_noise(sampler):
    sample = final(sampler(DATA.denoise, lambda i: normals(i, 2, 1, 2, 2).float(), grid(4)))
    assert sample.dtype == torch.float32


@pytest.mark.parametrize("sampler", [euler, heun, churned, dpm_solver_2, euler_ancestral])
def test_a_denoiser_that_changes_the_shape_is_refused(sampler):
    with pytest.raises(ValueError, match="shapes differ"):
        final(sampler(lambda x_t, t: x_t[:1], Noise(2, 1, 2, 2), grid(4)))


@pytest.mark.parametrize("times", [(0.0, 80.0), (0.0, 0.1, 2.0, 80.0), (0.0, 1e-3, 0.5, 0.6, 30.0, 80.0)])
def test_jumps_of_the_exact_function_end_at_the_same_samples(times):
    """They are those of the ODE, for any number of jumps, of one evaluation each, without further noise."""
    noise, evaluated = Noise(5, 1, 2, 2), []

    def mean(x_t, t, s):
        evaluated.append((float(t[0]), float(s[0])))
        return DATA.mean_denoised(x_t, t, s)

    steps = list(jumps(mean, noise, times))
    x_t = 80 * normals(0, 5, 1, 2, 2)
    exact = DATA.flow(x_t, full(x_t, 80.0), full(x_t, 0.0))
    torch.testing.assert_close(steps[-1].x, exact, rtol=1e-9, atol=1e-9)
    assert noise.asked == [0]
    assert evaluated == list(itertools.pairwise(times[::-1]))
    assert [step.t for step in steps] == list(times[-2::-1])


def test_the_clipped_function_of_two_times_sees_both():
    x, t, s = torch.zeros(1, 1, 1, 1), torch.ones(1), torch.zeros(1)
    assert float(clipped(lambda x, t, s: x + 7 + s)(x, t, s)) == 1.0
    assert float(clipped(lambda x, t: x + 0.5)(x, t)) == 0.5
