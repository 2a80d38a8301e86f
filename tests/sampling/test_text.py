"""Samplers as texts: what they mean, and what means nothing."""

import pytest

from cm_ray import recipes
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError
from cm_ray.sampling.text import parse

CONSISTENCY, DENOISER = Diffusion(), Diffusion(boundary="none")


@pytest.mark.parametrize(
    ("text", "evaluations", "taus"),
    [
        ("one-step", 1, ()),
        ("multistep:1", 1, ()),
        ("multistep@2.0,0.8", 3, (2.0, 0.8)),
        ("multistep:2", 2, (2.52,)),
        ("multistep@1e1", 2, (10.0,)),
    ],
)
def test_multistep(text, evaluations, taus):
    sampling = parse(text, CONSISTENCY)
    assert sampling.evaluations == evaluations
    assert sampling.taus == taus
    assert sampling.times == (0.002, *taus[::-1], 80.0)
    assert parse(sampling.text, CONSISTENCY) == sampling, "the text says it all"


@pytest.mark.parametrize(
    ("text", "evaluations", "lowest"),
    [
        ("heun:18", 35, 0),
        ("heun:1", 1, 0),
        ("euler:40", 40, 0),
        ("dpm2:10", 19, 0),
        ("ancestral:7", 7, 0),
        ("pd:4", 4, 0.002),
        ("heun:32,s_churn=40,s_noise=1.0", 63, 0),
    ],
)
def test_samplers_of_diffusion_models(text, evaluations, lowest):
    sampling = parse(text, DENOISER)
    assert (sampling.evaluations, sampling.times[0], sampling.times[-1]) == (evaluations, lowest, 80.0)
    assert sampling.text == text


def test_grids():
    assert parse("heun:18", DENOISER).times == (0.0, *karras_times(18).tolist())
    assert parse("pd:4", DENOISER).times == tuple(karras_times(5).tolist())
    churn = parse("heun:32,s_churn=40,s_noise=1.0", DENOISER).churn
    assert (churn.s_churn, churn.s_noise, churn.s_min) == (40.0, 1.0, 0.05)


def test_grids_follow_rho():
    assert parse("pd:2", Diffusion(boundary="none", rho=3.0)).times[1] == float(karras_times(3, rho=3.0)[1])
    assert parse("multistep:1000", CONSISTENCY).evaluations == 1000


def test_the_models_own():
    assert parse("own", DENOISER, own="pd:4").text == "pd:4"
    assert parse("multistep:3", CONSISTENCY, time_points=((2.0,), (9.0, 1.0))).taus == (9.0, 1.0)
    own = {name: preset().own_sampler() for name, preset in recipes.PRESETS.items() if "digits" in name}
    assert own == {
        "edm_digits": "heun:18",
        "cd_digits": "one-step",
        "ct_digits": "one-step",
        "pd_digits": "pd:1",
        "ict_digits": "one-step",
        "ect_digits": "one-step",
    }
    assert recipes.pd_digits().own_sampler(8) == "pd:8"


def test_texts_become_parts_of_file_names():
    assert parse("multistep@2.0,0.8", CONSISTENCY).file_name == "multistep-2.0-0.8"
    assert parse("heun:4,s_churn=2", DENOISER).file_name == "heun-4-s_churn=2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hein:18", "There is no sampler 'hein:18': did you mean 'heun'"),
        ("own", "There is no sampler 'own'"),
        ("heun", "lacks its steps: write heun:4"),
        ("heun:0", "must have at least one step"),
        ("heun:-1", "There is no sampler"),
        ("heun:3@1.0", "must have at least one step, or time points instead"),
        ("euler@1.0", "takes a number of steps alone"),
        ("euler:4,s_churn=1", "takes a number of steps alone"),
        ("heun:4,s_burn=1", "unknown option: did you mean 's_churn'"),
        ("heun:4,s_churn=-3", "must be finite and not negative"),
        ("heun:4,s_churn=nan", "must be finite and not negative"),
        ("heun:4,s_churn=much", "s_churn of the sampler 'heun:4,s_churn=much' must be a number"),
    ],
)
def test_texts_that_mean_nothing(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text, DENOISER)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("multistep", "lacks its steps: write multistep:4"),
        ("multistep@", "There is no sampler"),
        ("multistep@,", "are not numbers"),
        ("multistep@1.0.0", "time points of the sampler 'multistep@1.0.0' are not numbers"),
        ("multistep@0.5,0.8", "must descend between 80 and 0.002"),
        ("multistep@100", "must descend"),
        ("multistep:2@1.0", "or time points instead"),
    ],
)
def test_multistep_texts_that_mean_nothing(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text, CONSISTENCY)
