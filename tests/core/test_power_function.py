"""Reconstruction of power-function averages: inner products, least squares, and averages of random walks."""

import pytest
import torch
from scipy.integrate import quad

from cm_ray.core.averages import LONGEST, PowerEMA, gamma_of
from cm_ray.core.ema import update_average
from cm_ray.core.power_function import Profile, inner_products, reconstruction
from tests.core.gaussian import normals

TRACKED = [Profile(900 * i / 16, length) for length in (0.05, 0.1) for i in range(1, 17)]


def density(profile, t):
    """The profile at a time, or at times."""
    g = gamma_of(profile.length)
    return (g + 1) * (t / profile.steps) ** g / profile.steps * (t <= profile.steps)


@pytest.mark.parametrize("a", [Profile(10, 0.05), Profile(10, 0.28), Profile(3, 0.1), Profile(7.5, LONGEST)])
@pytest.mark.parametrize("b", [Profile(10, 0.1), Profile(4, 0.05), Profile(11, 0.2)])
def test_inner_products_are_integrals(a, b):
    end = min(a.steps, b.steps)
    expected, _ = quad(lambda t: density(a, t) * density(b, t), 0, end, epsabs=0, epsrel=1e-10, limit=200)
    assert float(inner_products([a], [b])) == pytest.approx(expected, rel=1e-8)
    assert float(inner_products([b], [a])) == pytest.approx(expected, rel=1e-8)


def test_profiles_integrate_to_one():
    """The uniform average over the longest time has the inner product 1/k with every profile within it."""
    whole = Profile(1000.0, LONGEST)
    found = inner_products(TRACKED, [whole])[:, 0]
    torch.testing.assert_close(found, torch.full((32,), 1 / 1000, dtype=torch.float64))


@pytest.mark.parametrize("length", [0.02, 0.04, 0.07, 0.14, 0.25])
@pytest.mark.parametrize("steps", [900, 500])
def test_coefficients_are_least_squares_under_their_condition(length, steps):
    """Brute force: profiles on a fine grid of times, and numpy's least squares in the free directions."""
    wanted = Profile(steps, length)
    found = reconstruction(TRACKED, wanted)
    assert sum(found.coefficients) == pytest.approx(1, abs=1e-10)
    times = (torch.arange(9000, dtype=torch.float64) + 0.5) / 10
    profiles, target = torch.stack([density(each, times) for each in TRACKED]), density(wanted, times)
    base, free = profiles[-1], profiles[:-1] - profiles[-1]
    best = torch.linalg.lstsq(free.T, target - base, driver="gelsd").solution
    least = float((target - base - best @ free).norm() / target.norm())
    x = torch.tensor(found.coefficients, dtype=torch.float64)
    reached = float((target - x @ profiles).norm() / target.norm())
    assert reached == pytest.approx(found.error, rel=1e-2, abs=1e-5)
    assert reached <= least * 1.001 + 1e-5


def test_a_tracked_profile_stands_for_itself():
    found = reconstruction(TRACKED, Profile(450, 0.1))
    assert found.error == 0
    assert found.coefficients == tuple(float(each == Profile(450, 0.1)) for each in TRACKED)
    nearby = reconstruction(TRACKED, Profile(450, 0.1 + 1e-9))
    assert nearby.error < 1e-5
    assert max(nearby.coefficients) == pytest.approx(1, abs=1e-2)


def test_errors_grow_away_from_the_tracked_lengths_and_fall_with_snapshots():
    errors = [reconstruction(TRACKED, Profile(900, s)).error for s in (0.05, 0.04, 0.03, 0.02, 0.01)]
    assert errors == sorted(errors)
    assert errors[1] < 0.02
    assert errors[-1] > 0.25
    many = [Profile(900 * i / 64, s) for s in (0.05, 0.1) for i in range(1, 65)]
    assert reconstruction(many, Profile(900, 0.02)).error < 0.1 * errors[3]


def test_thousands_of_steps_and_many_snapshots_are_no_trouble():
    tracked = [Profile(10_000 * i, s) for s in (0.05, 0.0501) for i in range(1, 81)]
    found = reconstruction(tracked, Profile(800_000, 0.07))
    assert all(abs(c) < 1e4 for c in found.coefficients)
    assert found.error < 0.05


def test_nothing_gives_nothing():
    with pytest.raises(ValueError, match="from nothing"):
        reconstruction([], Profile(900, 0.1))


@pytest.mark.parametrize("length", [0.03, 0.07, 0.2])
def test_a_reconstructed_average_of_a_random_walk_is_the_tracked_one(length):
    """A walk in 50 dimensions: the difference is below 1 %, and below 5 % of the distance to any snapshot."""
    steps = 480
    kind = PowerEMA(lengths=(0.05, 0.1, length))
    walk = normals(0, steps, 50).cumsum(0)
    averages = [[torch.zeros(50, dtype=torch.float64)] for _ in kind.lengths]
    kept, snapshots = [], []
    for step, theta in enumerate(walk):
        for average, decay in zip(averages, kind.decays_at(step), strict=True):
            update_average(average, [theta], decay)
        if step + 1 in kind.snapshot_steps(0, steps):
            kept += [Profile(step + 1, each) for each in kind.lengths[:2]]
            snapshots += [average[0].clone() for average in averages[:2]]
    found = reconstruction(kept, Profile(steps, length))
    made = sum(c * snapshot for c, snapshot in zip(found.coefficients, snapshots, strict=True))
    tracked = averages[2][0]
    assert float((made - tracked).norm() / tracked.norm()) < 0.01
    nearest = min(float((snapshot - tracked).norm()) for snapshot in snapshots)
    assert float((made - tracked).norm()) < 0.05 * nearest
