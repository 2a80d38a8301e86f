"""The noise is the published generator, a pure function of its arguments, and normal."""

import pytest
import torch
from scipy import stats

from cm_ray.core.noise import Purpose, derived_seed, normal, philox, uniform

KNOWN_ANSWERS = [  # of the Random123 distribution: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
POSITIONS = torch.arange(1000)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    words = philox([torch.tensor([word]) for word in counter], key)
    assert tuple(word.item() for word in words) == answer


def test_a_row_depends_on_its_position_alone():
    whole = normal(3, 7, POSITIONS, Purpose.NOISE, (2, 5))
    picked = POSITIONS[[5, 999, 0]]
    assert torch.equal(normal(3, 7, picked, Purpose.NOISE, (2, 5)), whole[picked])


def test_every_argument_matters():
    base = normal(3, 7, POSITIONS, Purpose.NOISE, (4,))
    others = [
        normal(4, 7, POSITIONS, Purpose.NOISE, (4,)),
        normal(3, 8, POSITIONS, Purpose.NOISE, (4,)),
        normal(3, 7, POSITIONS + 1000, Purpose.NOISE, (4,)),
        normal(3, 7, POSITIONS, Purpose.SAMPLE, (4,)),
    ]
    for other in others:
        assert (base == other).double().mean() < 0.001
        assert abs(torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1]) < 0.06


def test_normal_numbers_are_normal():
    draws = normal(0, 0, POSITIONS, Purpose.NOISE, (3, 32)).flatten()
    assert stats.kstest(draws.double().numpy(), "norm").pvalue > 0.01
    assert abs(torch.corrcoef(normal(0, 0, POSITIONS, Purpose.NOISE, (8,)).T) - torch.eye(8)).max() < 0.13


def test_uniform_numbers_stay_inside():
    draws = uniform(0, 0, torch.arange(20_000), Purpose.TIMES, (16,)).flatten()
    assert draws.min() > 0
    assert draws.max() < 1
    assert stats.kstest(draws.double().numpy(), "uniform").pvalue > 0.01


def test_box_muller_is_finite_at_the_ends_of_the_interval():
    from cm_ray.core.noise import _to_unit

    ends = _to_unit(torch.tensor([0, 2**32 - 1]))
    assert ends[0] > 0
    assert ends[1] < 1
    assert torch.isfinite(ends.log()).all()


def test_derived_seeds_differ():
    seeds = {derived_seed(seed, step, word) for seed in range(9) for step in range(99) for word in ("a", "b")}
    assert len(seeds) == 9 * 99 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.gpu
def test_cuda_draws_the_same_numbers():
    for draw in (uniform, normal):
        here = draw(1, 2, POSITIONS, Purpose.NOISE, (3, 8))
        there = draw(1, 2, POSITIONS.cuda(), Purpose.NOISE, (3, 8)).cpu()
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)
