"""Samplers of score-based models: laws of their samples, the papers' steps, the order of the ODE's solver."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.ode import Tolerance
from cm_ray.core.sde import SDES
from cm_ray.core.techniques import langevin_step_size
from cm_ray.core.times import NoiseLevels
from cm_ray.errors import SettingError, UserError
from cm_ray.sampling.samplers import sample
from cm_ray.sampling.sampling_steps import euler_ancestral
from cm_ray.sampling.score_samplers import AdaptiveODE, Langevin, PredictorCorrector
from cm_ray.sampling.score_steps import adaptive_ode, annealed_langevin, predictor_corrector, stages
from tests.core.gaussian import Gaussian, Mixture, full, normals, order

DATA, MIXTURE, LEVELS = Gaussian(0.3, 0.2), Mixture(sigma=0.15), NoiseLevels()
SHAPE = (8, 2, 16, 16)
"""The corrector's step size follows from norms over the pixels of an image, which are to be many."""
EVERY_PC = [
    PredictorCorrector(200, sde=sde, predictor=predictor, corrections=corrections)
    for sde in SDES
    for predictor in ("reverse-diffusion", "euler-maruyama", "ancestral")
    for corrections in (0, 1)
    if (sde, predictor) != ("sub-vp", "ancestral")
]
FEW = [
    Langevin(6, repeats=2),
    PredictorCorrector(5),
    PredictorCorrector(5, sde="sub-vp"),
    AdaptiveODE(1e-3, 1e-3),
]


def of(data):
    f = lambda x_t, t: data.denoise(x_t, t)  # noqa: E731
    f.diffusion = Diffusion(boundary="none")
    return f


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def drawn(data, sampler, shape=SHAPE):
    return sample(of(data), normals(1, *shape), sampler, generator=seeded())


def p_value(data, x, t=0.002):
    values = x.flatten().numpy()
    if isinstance(data, Gaussian):
        return data.p_value(x, t)
    return float(stats.kstest(values, lambda v: data.cdf(v, t)).pvalue)


@pytest.mark.parametrize("denoise", [False, True])
def test_langevin_dynamics_lead_to_a_mixture(denoise):
    x = drawn(MIXTURE, Langevin(200, repeats=8, denoise=denoise), (2, 2, 16, 16))
    assert p_value(MIXTURE, x, 0.0 if denoise else 0.002) > 0.01


def gaussian_langevin(sampler):
    """Mean and standard deviation of Langevin samples of Gaussian data, whose steps are linear."""
    times = sampler.times(LEVELS)
    mean, variance, size = 0.0, times[-1] ** 2, langevin_step_size(times[-1] / times[-2], sampler.repeats)
    for t in reversed(times):
        for _ in range(sampler.repeats):
            kept = 1 - size * t**2 / (DATA.sigma**2 + t**2)
            mean = DATA.mean + kept * (mean - DATA.mean)
            variance = kept**2 * variance + 2 * size * t**2
    return mean, math.sqrt(variance)


def test_langevin_samples_have_the_law_of_their_steps():
    """Few steps lag behind the levels: a spread that is too large, which more steps mend."""
    sampler = Langevin(60, repeats=3, denoise=False)
    mean, std = gaussian_langevin(sampler)
    assert std > 0.23
    assert Gaussian(mean, std).p_value(drawn(DATA, sampler)) > 0.01
    more = gaussian_langevin(Langevin(300, repeats=20, denoise=False))
    assert more == pytest.approx((DATA.mean, DATA.sigma), abs=0.006)


@pytest.mark.parametrize("sampler", EVERY_PC)
def test_predictors_and_correctors_lead_to_the_data(sampler):
    assert p_value(DATA, drawn(DATA, sampler), 0.0) > 0.01


@pytest.mark.parametrize(
    "sampler", [PredictorCorrector(200), PredictorCorrector(200, sde="vp"), AdaptiveODE(1e-4, 1e-4)]
)
def test_a_mixture_gets_its_shares(sampler):
    assert p_value(MIXTURE, drawn(MIXTURE, sampler)) > 0.01


def test_the_corrector_mends_few_steps():
    errors = {}
    for corrections in (0, 3):
        x = drawn(MIXTURE, PredictorCorrector(16, predictor="euler-maruyama", corrections=corrections))
        errors[corrections] = stats.kstest(x.flatten().numpy(), lambda v: MIXTURE.cdf(v, 0.0)).statistic
    assert errors[3] < 0.75 * errors[0]


def test_langevin_steps_are_the_papers():
    """By hand in pixels in [0, 1], as NCSNv2's code counts: a = 6.2e-6 (sigma_i/sigma_L)^2."""
    times, noise = [0.0, 0.02, 1.0], lambda i: normals(i, 2, 1, 2, 2)
    *_, last = annealed_langevin(DATA.denoise, noise, times, repeats=2, step_size=6.2e-6 / 0.01**2)
    x, index = (1.0 * noise(0) + 1) / 2, 1
    score = lambda x, sigma: 2 * DATA.score(2 * x - 1, full(x, 2 * sigma))  # noqa: E731
    for sigma in (0.5, 0.01):
        a = 6.2e-6 * (sigma / 0.01) ** 2
        for _ in range(2):
            x = x + a * score(x, sigma) + math.sqrt(2 * a) * noise(index)
            index += 1
    x = x + 0.01**2 * score(x, 0.01)
    torch.testing.assert_close(last.x, 2 * x - 1)
    assert last.t == 0


def test_ancestral_prediction_of_ve_is_ancestral_sampling():
    times, noise = PredictorCorrector(9).times(LEVELS), lambda i: normals(i, 2, 1, 2, 2)
    ours = predictor_corrector(DATA.denoise, noise, times, predictor="ancestral", corrections=0)
    theirs = euler_ancestral(DATA.denoise, noise, times)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.x, other.x)
        assert one.t == other.t


@pytest.mark.parametrize("predictor", ["ancestral", "reverse-diffusion"])
def test_prediction_of_vp_is_ddpms(predictor):
    """y_{i-1} from y_i, with the noise that the denoiser implies, as Ho et al. and Song et al. write it."""
    times, noise = [0.3, 0.5], lambda i: normals(i, 2, 1, 2, 2)
    loop = predictor_corrector(
        DATA.denoise, noise, [0.0, *times], space="vp", predictor=predictor, corrections=0
    )
    first = next(loop)
    bar, bar_s = 1 / (1 + 0.5**2), 1 / (1 + 0.3**2)
    beta, x_t = 1 - bar / bar_s, 0.5 * noise(0)
    y, eps = math.sqrt(bar) * x_t, (x_t - DATA.denoise(x_t, full(x_t, 0.5))) / 0.5
    if predictor == "ancestral":
        mean = (y - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)
    else:
        mean = (2 - math.sqrt(1 - beta)) * y - beta / math.sqrt(1 - bar) * eps
    torch.testing.assert_close(first.x, (mean + math.sqrt(beta) * noise(1)) / math.sqrt(bar_s))


@pytest.mark.parametrize("space", ["ve", "vp"])
def test_the_corrector_is_the_papers(space):
    """Algorithms 4 and 5, for one image, in y: a = 2 c (r |z|/|s|)^2, y + a s + sqrt(2 a) z."""
    noise, r = lambda i: normals(i, 1, 1, 4, 4), 0.2
    loop = predictor_corrector(
        DATA.denoise, noise, [0.0, 0.3, 0.5], space=space, predictor="ancestral", corrections=1, snr=r
    )
    alpha, alpha_s = (math.sqrt(1 / (1 + t**2)) if space == "vp" else 1.0 for t in (0.5, 0.3))
    y, z = alpha * 0.5 * noise(0), noise(1)
    score = DATA.score(y / alpha, full(y, 0.5)) / alpha  # of y, by the change of variables
    a = 2 * (alpha / alpha_s) ** 2 * (r * z.norm() / score.norm()) ** 2
    corrected = (y + a * score + (2 * a).sqrt() * z) / alpha
    plain = predictor_corrector(
        DATA.denoise,
        lambda i: corrected / 0.5 if i == 0 else noise(2),
        [0.0, 0.3, 0.5],
        space=space,
        predictor="ancestral",
        corrections=0,
    )
    torch.testing.assert_close(next(loop).x, next(plain).x)


def test_steps_of_the_sdes_are_uniform_in_their_times():
    for name, sde in SDES.items():
        plan = stages(PredictorCorrector(50, sde=name).times(LEVELS), name)
        u = sde.time(torch.tensor([stage.t for stage in plan], dtype=torch.float64))
        torch.testing.assert_close(u.diff(), u.diff()[:1].expand(49), rtol=1e-6, atol=1e-9)
        assert plan[-1].s == 0
        assert plan[-1].spread == pytest.approx(float(sde.diffusion_squared(u[-1]) * -u.diff()[0]))


def test_the_ode_is_the_flow_and_its_error_follows_the_tolerance():
    noise, ends = lambda i: normals(i, 6, 1, 2, 2), (0.002, 80.0)
    exact = DATA.flow(80 * noise(0), full(noise(0), 80.0), full(noise(0), 0.002))
    tolerances = [1e-4, 1e-6, 1e-8]
    errors = []
    for value in tolerances:
        (step,) = adaptive_ode(DATA.denoise, noise, ends, tolerance=Tolerance(rtol=value, atol=value))
        errors.append(float((step.x - exact).abs().max()))
    assert all(error < 100 * value for error, value in zip(errors, tolerances, strict=True))
    assert errors == sorted(errors, reverse=True)


def test_the_evaluations_of_the_ode_grow_as_those_of_order_five():
    counts, tolerances = [], np.array([1e-5, 1e-7, 1e-9])
    for value in tolerances:
        seen = []

        def denoise(x, t, seen=seen):
            seen.append(1)
            return MIXTURE.denoise(x, t)

        list(
            adaptive_ode(
                denoise,
                lambda i: normals(i, 1, 1, 1, 1),
                (0.002, 80.0),
                tolerance=Tolerance(rtol=value, atol=value),
            )
        )
        counts.append(len(seen))
    assert order(counts, tolerances) == pytest.approx(5, abs=1)


@pytest.mark.parametrize("sampler", FEW)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    noise = lambda rows: lambda i: normals(i, 5, 1, 4, 4)[rows]  # noqa: E731
    *_, whole = sampler.trajectory(MIXTURE.denoise, noise(slice(None)), LEVELS)
    *_, alone = sampler.trajectory(MIXTURE.denoise, noise(slice(3, 4)), LEVELS)
    torch.testing.assert_close(whole.x[3:4], alone.x, rtol=1e-9, atol=1e-12)


def test_the_ode_asks_for_rows_with_their_own_labels():
    means = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)

    def f(x_t, t, labels):
        centre = means[labels].reshape(-1, 1, 1, 1)
        return centre + DATA.denoise(x_t - centre, t) - DATA.mean * 0

    f.diffusion = Diffusion(boundary="none")
    labels, z = (
        torch.tensor([2, 0, 1]),
        normals(0, 3, 1, 2, 2) * torch.tensor([3.0, 0.1, 1.0]).reshape(-1, 1, 1, 1),
    )
    together = sample(f, z, AdaptiveODE(), labels)
    for row in range(3):
        alone = sample(f, z[row : row + 1], AdaptiveODE(), labels[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("sampler", FEW)
def test_a_consistency_function_is_refused(sampler):
    f = lambda x, t: DATA.consistency()(x, t)  # noqa: E731
    f.diffusion = Diffusion()
    with pytest.raises(UserError, match=rf"^{type(sampler).__name__} is for diffusion models, and f is none"):
        sample(f, normals(0, 2, 1, 2, 2), sampler)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Langevin(1), "steps must be at least 2 noise levels, not 1"),
        (lambda: Langevin(repeats=0), "repeats must be at least 1"),
        (lambda: Langevin(step_size=1.0), r"step_size must be in \[0, 1\)"),
        (lambda: PredictorCorrector(1), "steps must be at least 2"),
        (lambda: PredictorCorrector(corrections=-1), "corrections must not be negative"),
        (lambda: PredictorCorrector(snr=0.0), "snr must be positive"),
        (lambda: PredictorCorrector(sde="edm"), "sde must be one of ve, vp, sub-vp, not edm"),
        (lambda: PredictorCorrector(predictor="heun"), "predictor must be one of reverse-diffusion"),
        (lambda: PredictorCorrector(sde="sub-vp", predictor="ancestral"), "ancestral is of sde ve and vp"),
        (lambda: AdaptiveODE(rtol=0.0), "rtol must be in"),
    ],
)
def test_samplers_of_scores_check_themselves(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()
