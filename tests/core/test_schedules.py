"""The curricula hit the papers' numbers and OpenAI's."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.schedules import (
    Adaptive,
    AdaptiveDecay,
    Constant,
    ConstantDecay,
    Doubling,
    Halving,
    LearningRate,
)

PUBLISHED = [(2, 150, 800_000), (2, 200, 800_000), (2, 150, 1_000_000)]


def of_a_run(total, curriculum):
    """Return a curriculum as a function of the step alone, for runs of so many steps."""
    return lambda step: curriculum(step, total)


def openai(step, s0, s1, total, mu0):
    """N and mu as `create_ema_and_scales_fn` of OpenAI's code computes them, before its end."""
    scales = math.ceil(math.sqrt((step / total) * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1)
    scales = max(scales, 1)
    return scales + 1, math.exp(s0 * math.log(mu0) / scales)


@pytest.mark.parametrize(("s0", "s1", "total"), PUBLISHED)
def test_adaptive_scales_are_algorithm_3_and_openais(s0, s1, total):
    scales = of_a_run(total, Adaptive(s0, s1))

    def paper(k):
        return math.ceil(math.sqrt(k / total * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1

    steps = [*range(0, total, 997), *range(200), total - 1]
    assert [scales(k) for k in steps] == [paper(k) for k in steps]
    assert [scales(k) for k in steps] == [openai(k, s0, s1, total, 0.9)[0] for k in steps]


@pytest.mark.parametrize(("s0", "s1", "total"), PUBLISHED)
def test_adaptive_scales_go_from_s0_to_s1_plus_one_and_stop_there(s0, s1, total):
    scales = of_a_run(total, Adaptive(s0, s1))
    assert scales(0) == s0
    assert scales(1) == s0 + 1
    assert scales(total) == scales(total + 1) == scales(10 * total) == s1 + 1


def test_adaptive_scales_do_not_round_wrongly_at_exact_squares():
    scales = of_a_run(151**2 - 4, Adaptive(2, 150))  # one more under the root per step
    assert [scales(n * n - 4) for n in range(2, 152)] == list(range(2, 152))
    assert [scales(n * n - 3) for n in range(2, 151)] == list(range(3, 152))


def test_doubling_scales_are_ict():
    """Ten to 1280 intervals in eight stages of 50 000 steps, table 1 of iCT."""
    scales = of_a_run(400_000, Doubling(10, 1280))
    for stage, n in enumerate([11, 21, 41, 81, 161, 321, 641, 1281]):
        assert scales(50_000 * stage) == scales(50_000 * (stage + 1) - 1) == n
    assert scales(400_000) == scales(10**9) == 1281


def test_doubling_scales_stop_at_s1_though_it_is_no_power():
    scales = of_a_run(7000, Doubling(2, 150))  # floor(150/2) = 75, K' = floor(7000/(log2 75 + 1))
    period = math.floor(7000 / (math.log2(75) + 1))
    assert [scales(period * i) for i in range(9)] == [3, 5, 9, 17, 33, 65, 129, 151, 151]
    assert scales(period - 1) == 3


def test_adaptive_decay_is_the_papers_not_openais():
    """The paper's N counts boundaries, and so mu begins at mu0; OpenAI's begins at its square."""
    scales = of_a_run(800_000, Adaptive(2, 150))
    decay = of_a_run(800_000, lambda step, total: AdaptiveDecay(0.95)(step, total, Adaptive(2, 150)))
    assert decay(0) == pytest.approx(0.95)
    assert openai(0, 2, 150, 800_000, 0.95)[1] == pytest.approx(0.9025)
    for k in (1, 1000, 123_456, 800_000):
        assert decay(k) == pytest.approx(math.exp(2 * math.log(0.95) / scales(k)))
        assert decay(k) ** (scales(k) / (scales(k) - 1)) == pytest.approx(openai(k, 2, 150, 800_000, 0.95)[1])
    assert decay(800_000) == pytest.approx(0.95 ** (2 / 151))


def test_decays_rise_with_the_scales():
    decay, scales = AdaptiveDecay(0.9), Adaptive(2, 150)
    values = [decay(k, 1000, scales) for k in range(0, 1500, 10)]
    assert values == sorted(values)
    assert values[0] >= 0.9
    assert values[-1] < 1


def test_constants_are_constant():
    assert [ConstantDecay(0.0)(k, 10, Adaptive()) for k in (0, 5, 10**9)] == [0.0] * 3
    assert [Constant(n=18)(k, 10) for k in (0, 5, 10**9)] == [18] * 3


def test_halving_scales_halve_with_the_last_two_rounds_doubled():
    scales = Halving(1, 8)
    assert scales.intervals == [8, 4, 2, 1]
    assert scales.starts(600) == [0, 100, 200, 400, 600]
    assert [scales(k, 600) for k in (0, 99, 100, 199, 200, 399, 400, 599, 600, 10**6)] == [
        9,
        9,
        5,
        5,
        3,
        3,
        2,
        2,
        2,
        2,
    ]
    assert [scales.round(k, 600) for k in (0, 99, 100, 200, 400, 10**6)] == [0, 0, 1, 2, 3, 3]


def test_the_rounds_of_salimans_and_ho_last_50_000_steps_and_100_000():
    """1024 steps of the student down to one: nine rounds and two of double length."""
    scales = Halving(1, 1024)
    assert scales.starts(650_000) == [*range(0, 450_001, 50_000), 550_000, 650_000]
    assert scales.intervals == [2**i for i in range(10, -1, -1)]


@pytest.mark.parametrize(("s0", "s1"), [(4, 32), (4, 4), (3, 12)])
def test_rounds_that_end_above_two_steps_are_alike(s0, s1):
    scales = Halving(s0, s1)
    lengths = [end - start for start, end in itertools.pairwise(scales.starts(1200))]
    assert len(lengths) == len(scales.intervals) == math.log2(s1 // s0) + 1
    assert set(lengths) == {1200 // len(lengths)}
    assert scales.intervals[-1] == s0


@pytest.mark.parametrize(
    ("s0", "s1", "sentence"),
    [
        (1, 6, "s1 6 must be s0 = 1 times a power of two"),
        (3, 8, "s1 8 must be s0 = 3 times a power of two"),
        (4, 20, "s1 20 must be s0 = 4 times a power of two"),
        (8, 4, r"s0 8 must be in \[1, s1 = 4\]"),
    ],
)
def test_halving_that_does_not_lead_to_s0_is_refused(s0, s1, sentence):
    with pytest.raises(ValueError, match=sentence):
        Halving(s0, s1)


@given(st.integers(0, 10), st.integers(1, 5), st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_every_step_of_a_halving_belongs_to_one_round(power, s0, total):
    scales = Halving(s0, s0 << power)
    starts = scales.starts(total)
    assert starts[0] == 0
    assert starts[-1] == total
    assert starts[-2] < total
    rounds = [scales.round(k, total) for k in range(0, total, max(1, total // 50))]
    assert rounds == sorted(rounds)
    assert scales.round(total - 1, total) == scales.round(total, total) == power
    assert scales(total - 1, total) == s0 + 1


def test_a_constant_rate_is_constant_after_a_linear_warm_up():
    rate = LearningRate(1.0, 3, False, (0, 100))
    assert [rate(k) for k in (0, 1, 2, 3, 4, 99, 100, 1000)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert LearningRate(2e-4, 0, False, (0, 100))(0) == 2e-4


def test_a_rate_decays_to_zero_in_every_round_and_begins_anew():
    rate = LearningRate(1.0, 0, True, (0, 100, 300))
    assert [rate(k) for k in (0, 50, 99, 100, 200, 299)] == pytest.approx([1.0, 0.5, 0.01, 1.0, 0.5, 0.005])
    assert rate(300) == rate(10**6) == 0.0


def test_a_rate_falls_as_in_edm2():
    """Their formula in images: ref/sqrt(max(n/(t_ref batch), 1)) min(n/10^7, 1), the ramp a step ahead."""
    batch, reference = 2048, 35_000
    rate = LearningRate(1e-2, 4882, False, (0, 2**19), reference)
    for step in (0, 1000, 4882, 4883, 35_000, 35_001, 140_000, 2**19 - 1):
        images = step * batch
        theirs = 1e-2 / max(images / (reference * batch), 1) ** 0.5
        ramp = min((images + batch) / 1e7, 1)
        assert rate(step) == pytest.approx(theirs * ramp, rel=1e-4)
    assert rate(140_000) == pytest.approx(5e-3)
    both = LearningRate(1.0, 0, True, (0, 100), 25)
    assert both(50) == pytest.approx(0.5 / 2**0.5)


def test_every_round_warms_up():
    rate = LearningRate(1.0, 9, True, (0, 100, 300))
    assert rate(0) == pytest.approx(0.1)
    assert rate(100) == pytest.approx(0.1)
    assert rate(9) == pytest.approx(91 / 100)
    assert rate(109) == pytest.approx(191 / 200)


@given(st.integers(1, 300), st.integers(0, 50), st.booleans(), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_rates_are_positive_in_training_and_never_negative(total, warmup, decays, power):
    rate = LearningRate(3e-4, warmup, decays, tuple(Halving(1, 1 << power).starts(total)))
    assert all(0 < rate(k) <= 3e-4 for k in range(total))
    assert all(0 <= rate(total + k) <= 3e-4 for k in range(3))
