"""The adaptive solver takes SciPy's steps for every sample of a batch, and reaches closed-form solutions."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import RK45

from cm_ray.core.ode import Tolerance, integrate
from cm_ray.errors import SettingError, UserError

TIGHT = Tolerance(rtol=1e-9, atol=1e-11)


def van_der_pol(y, t, rows):
    x, v = y.unbind(1)
    return torch.stack([v, (1 + rows) * (1 - x**2) * v - x + 0.1 * t], 1)


@pytest.mark.parametrize("end", [6.0, -0.3])
def test_every_sample_takes_the_steps_that_scipy_takes_for_it_alone(end):
    start = torch.tensor([[0.5, 0.0], [2.0, -1.0], [0.0, 0.0], [-1.0, 3.0]], dtype=torch.float64)
    state, evaluations = integrate(van_der_pol, start, 0.0, end, Tolerance(rtol=1e-6, atol=1e-8))
    for row in range(len(start)):

        def alone(t, y, row=row):
            one = van_der_pol(torch.tensor(y)[None], torch.tensor([t]), torch.tensor([row]))
            return one[0].numpy()

        solver = RK45(alone, 0.0, start[row].numpy(), end, rtol=1e-6, atol=1e-8)
        while solver.status == "running":
            solver.step()
        np.testing.assert_allclose(state[row], solver.y, rtol=1e-12, atol=1e-12)
        assert evaluations[row] == solver.nfev


def test_a_sample_does_not_depend_on_its_batch():
    start = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together, counts = integrate(van_der_pol, start, 0.0, 4.0)
    for row in range(7):
        alone, count = integrate(
            lambda y, t, rows, row=row: van_der_pol(y, t, rows + row), start[row : row + 1], 0.0, 4.0
        )
        assert torch.equal(alone[0], together[row])
        assert count == counts[row]
    assert len(set(counts.tolist())) > 1


def test_a_closed_form_is_reached_in_both_directions():
    start = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    grown, _ = integrate(lambda y, t, rows: y * t[:, None], start, 0.0, 2.0, TIGHT)
    torch.testing.assert_close(grown, start * math.exp(2.0), rtol=1e-8, atol=0)
    back, _ = integrate(lambda y, t, rows: y * t[:, None], grown, 2.0, 0.0, TIGHT)
    torch.testing.assert_close(back, start, rtol=1e-8, atol=0)


def test_the_error_follows_the_tolerance():
    start = torch.ones(1, 1, dtype=torch.float64)
    errors, counts = [], []
    for rtol in (1e-4, 1e-6, 1e-8):
        end, count = integrate(
            lambda y, t, rows: -y + t.cos()[:, None], start, 0.0, 5.0, Tolerance(rtol=rtol, atol=rtol)
        )
        exact = 0.5 * (math.cos(5) + math.sin(5)) + 0.5 * math.exp(-5)
        errors.append(abs(float(end) - exact))
        counts.append(int(count))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert counts[0] < counts[1] < counts[2]


def test_no_interval_needs_no_evaluation():
    state, evaluations = integrate(van_der_pol, torch.ones(2, 2), 1.0, 1.0)
    assert torch.equal(state, torch.ones(2, 2))
    assert evaluations.tolist() == [0, 0]


def test_what_cannot_be_solved_is_said():
    start = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(UserError, match="not finite"):
        integrate(lambda y, t, rows: y / 0.0, start, 0.0, 1.0)
    with pytest.raises(UserError, match=r"stiff|not finite"):
        integrate(lambda y, t, rows: y**2, start, 0.0, 2.0)  # infinite at t = 1
    with pytest.raises(SettingError, match="rtol"):
        Tolerance(rtol=0.0)
