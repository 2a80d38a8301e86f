"""Samplers as settings: times, NFE, what they refuse; sampling with a function of one's own."""

import math

import pytest
import torch
from torch import nn

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.core.times import NoiseLevels, karras_times, turned
from cm_ray.errors import SettingError, UserError
from cm_ray.sampling import score_samplers as score_samplers  # their words
from cm_ray.sampling.samplers import (
    DPM2,
    Ancestral,
    Euler,
    Heun,
    Jumps,
    Multistep,
    OneStep,
    Progressive,
    Sampler,
    sample,
)
from cm_ray.sampling.sampling_steps import Churn, dpm_solver_2, euler, euler_ancestral, heun, multistep
from cm_ray.settings.choices import classes_of
from tests.core.gaussian import Gaussian, full, normals

DATA, LEVELS = Gaussian(0.3, 0.2), NoiseLevels()
CONSISTENCY = [OneStep(), Multistep(), Multistep((2.0, 0.8))]
DENOISERS = [Euler(40), Heun(), Heun(5, s_churn=2.0), DPM2(10), Ancestral(7), Progressive(4)]


class Counted:
    """A map with a `diffusion` that counts its evaluations."""

    def __init__(self, function, diffusion):
        self.function, self.diffusion, self.times, self.labels = function, diffusion, [], []

    def __call__(self, x_t, t, *labels):
        self.times.append(float(t[0]))
        self.labels += labels
        return self.function(x_t, t)


def of_kind(sampler):
    if sampler.for_denoisers:
        return Counted(DATA.denoise, Diffusion(boundary="none"))
    return Counted(DATA.consistency(), Diffusion())


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def test_all_samplers_have_words():
    assert {word: kind.__name__ for word, kind in classes_of(Sampler).items()} == {
        "one-step": "OneStep",
        "multistep": "Multistep",
        "jumps": "Jumps",
        "euler": "Euler",
        "ancestral": "Ancestral",
        "pd": "Progressive",
        "dpm2": "DPM2",
        "heun": "Heun",
        "langevin": "Langevin",
        "pc": "PredictorCorrector",
        "ode": "AdaptiveODE",
    }


@pytest.mark.parametrize("sampler", CONSISTENCY + DENOISERS)
def test_the_nfe_are_the_evaluations_that_happen(sampler):
    f = of_kind(sampler)
    steps = list(sampler.trajectory(f, lambda i: normals(i, 2, 1, 2, 2), f.diffusion))
    assert len(f.times) == sampler.nfe
    assert len(steps) == len(sampler.times(f.diffusion)) - 1
    assert f.times[0] == 80


@pytest.mark.parametrize(
    ("sampler", "nfe"),
    [
        (OneStep(), 1),
        (Multistep((2.0, 0.8)), 3),
        (Jumps((2.0, 0.8)), 3),
        (Heun(18), 35),
        (Heun(1), 1),
        (DPM2(10), 19),
        (Euler(40), 40),
        (Ancestral(7), 7),
        (Progressive(4), 4),
    ],
)
def test_published_numbers_of_evaluations(sampler, nfe):
    assert sampler.nfe == nfe


def test_times_ascend_from_the_end_to_t_max():
    assert OneStep().times(LEVELS) == (0.002, 80.0)
    assert Multistep((2.0, 0.8)).times(LEVELS) == (0.002, 0.8, 2.0, 80.0)
    assert Jumps((2.0, 0.8)).times(LEVELS) == (0.0, 0.8, 2.0, 80.0)
    for sampler in (Heun(18), Euler(18), DPM2(18), Ancestral(18)):
        assert sampler.times(LEVELS) == (0.0, *karras_times(18).tolist())
    assert Euler(1).times(LEVELS) == (0.0, 80.0)
    assert Progressive(4).times(LEVELS) == tuple(karras_times(5).tolist())


def test_times_follow_the_noise_levels():
    levels = NoiseLevels(t_min=0.01, t_max=9.0, rho=3.0)
    grid = karras_times(3, t_min=0.01, t_max=9.0, rho=3.0).tolist()
    assert Progressive(2).times(levels) == tuple(grid)
    assert Heun(3).times(levels) == (0.0, *grid)
    assert Multistep().times(levels) == (0.01, 0.8, 9.0)
    assert OneStep().times(levels) == (0.01, 9.0)


@pytest.mark.parametrize(
    ("sampler", "loop"),
    [
        (OneStep(), multistep),
        (Multistep((2.0, 0.8)), multistep),
        (Euler(6), euler),
        (Progressive(6), euler),
        (Heun(6), heun),
        (DPM2(6), dpm_solver_2),
        (Ancestral(6), euler_ancestral),
        (Heun(6, 30.0, 0.1, 20.0, 1.1), lambda *a: heun(*a, churn=Churn(30.0, 0.1, 20.0, 1.1))),
    ],
)
def test_a_sampler_is_its_loop_with_clipped_estimates(sampler, loop):
    f = of_kind(sampler)
    noise = lambda i: normals(i, 4, 1, 3, 3)  # noqa: E731
    bounded = loop(lambda x, t: f(x, t).clamp(-1, 1), noise, sampler.times(LEVELS))
    steps = list(sampler.trajectory(f, noise, LEVELS))
    assert all(torch.equal(ours.x, wanted.x) for ours, wanted in zip(steps, bounded, strict=True))
    wide = loop(lambda x, t: 9 * f(x, t), noise, sampler.times(LEVELS))
    *_, last = wide
    assert not torch.allclose(steps[-1].x, last.x)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Multistep(()), "taus needs at least one time point"),
        (lambda: Multistep((0.5, 0.8)), r"taus must descend, not be \[0.5, 0.8\]"),
        (lambda: Multistep((0.5, 0.5)), "taus must descend"),
        (lambda: Multistep((0.5, 0.0)), "taus must be positive numbers"),
        (lambda: Multistep((math.nan,)), "taus must be positive numbers"),
        (lambda: Euler(0), "steps must be at least 1, not 0"),
        (lambda: Heun(0), "steps must be at least 1, not 0"),
        (lambda: Heun(s_churn=-1.0), "s_churn must be finite and not negative, not -1"),
        (lambda: Heun(s_max=math.inf), "s_max must be finite and not negative, not inf"),
        (
            lambda: Multistep((90.0, 1.0)).times(LEVELS),
            r"taus must descend between 80 and 0.002, not be \[90",
        ),
        (lambda: Multistep((0.001,)).times(LEVELS), "taus must descend between 80 and 0.002"),
        (lambda: Multistep((80.0,)).times(LEVELS), "taus must descend between 80 and 0.002"),
    ],
)
def test_samplers_check_themselves(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()


def test_turned_is_its_own_inverse():
    assert turned([3.0, 2.0, 1.0]) == (1.0, 2.0, 3.0)
    assert turned(turned([3.0, 1.0, 2.0])) == (3.0, 1.0, 2.0)
    assert turned(()) == ()


# With a function of one's own


def test_one_step_is_the_functions_answer():
    f, z = of_kind(OneStep()), normals(0, 5, 1, 2, 2)
    assert torch.equal(sample(f, z), f(80 * z, full(z, 80.0)).clamp(-1, 1))
    assert torch.equal(sample(f, z, OneStep()), sample(f, z))


def test_several_steps_take_noise_of_the_generator():
    f, z = of_kind(OneStep()), normals(0, 5, 1, 2, 2)
    got = sample(f, z, Multistep((7.0,)), generator=seeded())
    first = f(80 * z, full(z, 80.0)).clamp(-1, 1)
    more = torch.randn(z.shape, generator=seeded()).double()
    x = first + math.sqrt(49 - 0.002**2) * more
    torch.testing.assert_close(got, f(x, full(z, 7.0)).clamp(-1, 1))
    assert not torch.equal(got, sample(f, z, Multistep((7.0,)), generator=seeded(6)))


def test_pytorchs_seed_decides_without_a_generator():
    f, z = of_kind(OneStep()), normals(0, 5, 1, 2, 2)
    with torch.random.fork_rng(devices=[]):
        samples = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            samples.append(sample(f, z, Multistep()))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


MANY = [Euler(300), Heun(60), Heun(60, s_churn=2.0), DPM2(60), Ancestral(300), Progressive(300)]


@pytest.mark.parametrize("sampler", MANY)
def test_samples_of_a_denoiser_are_the_datas(sampler):
    x = sample(of_kind(sampler), normals(1, 4000, 1, 1, 1), sampler, generator=seeded())
    assert DATA.p_value(x) > 0.01


def test_a_denoisers_default_is_heun():
    f, z = of_kind(Heun()), normals(1, 5, 1, 2, 2)
    assert torch.equal(sample(f, z), sample(f, z, Heun(18)))
    assert len(f.times) == 2 * 35


@pytest.mark.parametrize("sampler", CONSISTENCY)
def test_samples_of_a_consistency_function_are_the_datas(sampler):
    x = sample(of_kind(sampler), normals(1, 4000, 1, 1, 1), sampler, generator=seeded())
    assert DATA.p_value(x.clamp(-0.99, 0.99), 0.002) > 0.01


def test_labels_go_to_the_function():
    f, labels = of_kind(OneStep()), torch.tensor([2, 0])
    sample(f, normals(0, 2, 1, 2, 2), Multistep(), labels)
    assert len(f.labels) == 2
    assert all(torch.equal(given, labels) for given in f.labels)


@pytest.mark.parametrize("sampler", CONSISTENCY + DENOISERS)
def test_a_sampler_for_another_kind_of_model_is_refused(sampler):
    other = of_kind(OneStep() if sampler.for_denoisers else Heun())
    take = "Multistep" if sampler.for_denoisers else "Heun"
    with pytest.raises(UserError, match=rf"^{type(sampler).__name__} is for .* models, .*: take {take}\.$"):
        sample(other, normals(0, 2, 1, 2, 2), sampler)


class Module(nn.Module):
    """A consistency function with dropout."""

    def __init__(self):
        super().__init__()
        self.inner, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()
        self.diffusion, self.modes = Diffusion(column=EDM()), []

    def forward(self, x_t, t):
        self.modes += [self.training, self.inner.training, torch.is_grad_enabled()]
        return self.frozen(self.inner(DATA.consistency()(x_t, t)))


def test_a_module_is_in_eval_mode_meanwhile():
    f, z = Module().train(), normals(0, 5, 1, 2, 2)
    f.frozen.eval()
    assert torch.equal(sample(f, z), sample(of_kind(OneStep()), z))
    assert f.modes == [False, False, False]
    assert (f.training, f.inner.training, f.frozen.training) == (True, True, False)
    with pytest.raises(SettingError, match="must descend between"):
        sample(f, z, Multistep((90.0,)))
    assert f.training
    assert torch.is_grad_enabled()


def test_samples_keep_the_precision_of_the_noise():
    z = normals(0, 2, 1, 2, 2)
    assert sample(of_kind(OneStep()), z.float(), Multistep()).dtype == torch.float32
    assert sample(of_kind(OneStep()), z, Multistep()).dtype == torch.float64


def test_jumps_are_for_functions_of_two_times():
    noise = normals(0, 4, 1, 3, 3)

    def mean(x_t, t, labels=None, s=None):
        return DATA.mean_denoised(x_t, t, torch.zeros_like(t) if s is None else s)

    mean.diffusion = Diffusion(column=EDM(), boundary="two-times")
    one, many = (sample(mean, noise, each) for each in (OneStep(), Jumps((2.0, 0.8))))
    exact = DATA.flow(80 * noise, full(noise, 80.0), full(noise, 0.0))
    torch.testing.assert_close(many, exact.clamp(-1, 1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one, exact.clamp(-1, 1), rtol=1e-6, atol=1e-6)
    with pytest.raises(UserError, match="functions of two times, and f is none"):
        sample(of_kind(OneStep()), noise, Jumps((2.0,)))
