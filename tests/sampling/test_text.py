"""Samplers as texts: what they mean, and what means nothing."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray import recipes
from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import UserError
from cm_ray.sampling.samplers import DPM2, Ancestral, Euler, Heun, Jumps, Multistep, OneStep, Progressive
from cm_ray.sampling.score_samplers import AdaptiveODE, Langevin, PredictorCorrector
from cm_ray.sampling.text import file_name, parse, text_of

CONSISTENCY, DENOISER = Diffusion(), Diffusion(boundary="none")
TWO = Diffusion(boundary="two-times")
SAMPLERS = [
    ("one-step", OneStep()),
    ("multistep@2.0,0.8", Multistep((2.0, 0.8))),
    ("multistep@0.0352", Multistep((0.0352,))),
    ("jumps@2.0,0.8", Jumps((2.0, 0.8))),
    ("heun:18", Heun()),
    ("heun:1", Heun(1)),
    ("langevin:232", Langevin()),
    ("langevin:10,repeats=100,step_size=0.2,denoise=no", Langevin(10, 100, 0.2, denoise=False)),
    ("pc:1000", PredictorCorrector()),
    (
        "pc:500,sde=vp,predictor=ancestral,corrections=2,snr=0.01",
        PredictorCorrector(500, "vp", "ancestral", 2, 0.01),
    ),
    ("ode", AdaptiveODE()),
    ("ode,rtol=0.001,denoise=yes", AdaptiveODE(rtol=1e-3, denoise=True)),
    ("heun:32,s_churn=40", Heun(32, s_churn=40.0)),
    ("heun:9,s_churn=0.5,s_min=0.1,s_max=20,s_noise=1", Heun(9, 0.5, 0.1, 20.0, 1.0)),
    ("heun:4,s_churn=1e-07", Heun(4, s_churn=1e-7)),
    ("euler:40", Euler(40)),
    ("dpm2:10", DPM2(10)),
    ("ancestral:7", Ancestral(7)),
    ("pd:4", Progressive(4)),
]


@pytest.mark.parametrize(("text", "sampler"), SAMPLERS)
def test_a_text_and_its_sampler_are_one(text, sampler):
    assert parse(text, DENOISER if sampler.for_denoisers else TWO) == sampler
    assert text_of(sampler) == text


@pytest.mark.parametrize(
    ("text", "sampler"),
    [
        ("multistep:1", OneStep()),
        ("multistep:2", Multistep((2.52,))),
        ("multistep:7", Multistep((35.0, 13.7, 4.64, 1.29, 0.267, 0.0352))),
        ("jumps:1", OneStep()),
        ("jumps:2", Jumps((0.976,))),  # half of 80/81, where t/(1 + t) is 40/81
        ("jumps:4", Jumps((2.86, 0.976, 0.328))),
        ("multistep@1e1", Multistep((10.0,))),
        ("heun:018,s_noise=1.0,s_churn=40.00", Heun(18, s_churn=40.0, s_noise=1.0)),
        ("heun:18,s_churn=0", Heun()),
    ],
)
def test_other_ways_to_write_a_sampler(text, sampler):
    assert parse(text, DENOISER if sampler.for_denoisers else TWO) == sampler


@given(st.lists(st.floats(0.0021, 79.9), min_size=1, max_size=5, unique=True))
@settings(max_examples=40, deadline=None)
def test_no_digit_of_a_time_point_is_lost(taus):
    sampler = Multistep(tuple(sorted(taus, reverse=True)))
    assert parse(text_of(sampler), CONSISTENCY) == sampler


@given(st.integers(1, 999), *[st.floats(0, 1e6)] * 4)
@settings(max_examples=40, deadline=None)
def test_no_digit_of_an_option_is_lost(steps, s_churn, s_min, s_max, s_noise):
    sampler = Heun(steps, s_churn, s_min, s_max, s_noise)
    assert parse(text_of(sampler), DENOISER) == sampler


def test_many_points_of_a_grid_stay_apart():
    sampler = parse("multistep:1000", CONSISTENCY)
    assert sampler.nfe == 1000
    assert len(set(sampler.taus)) == 999
    assert sampler.taus[0] < 80
    assert sampler.taus[-1] > 0.002


def test_the_models_own():
    assert parse("own", DENOISER, own=Progressive(4)) == Progressive(4)
    assert parse("multistep:3", CONSISTENCY, time_points=((2.0,), (9.0, 1.0))) == Multistep((9.0, 1.0))
    assert parse("jumps:3", TWO, time_points=((2.0,), (9.0, 1.0))) == Jumps((9.0, 1.0))
    assert parse("multistep:2", TWO, time_points=((2.0,),)) == Multistep((2.52,)), "they are for jumps"
    with pytest.raises(UserError, match="own is for consistency models, and this is a diffusion model"):
        parse("own", DENOISER, own=OneStep())
    own = {
        name: text_of(recipe().own_sampler()) for name, recipe in recipes.RECIPES.items() if "digits" in name
    }
    assert own == {
        "edm_digits": "heun:18",
        "edm2_digits": "heun:18",
        "cd_digits": "one-step",
        "ct_digits": "one-step",
        "pd_digits": "pd:1",
        "ict_digits": "one-step",
        "ect_digits": "one-step",
        "tcm_digits": "one-step",
        "meanflow_digits": "one-step",
        "shortcut_digits": "one-step",
        "ncsn_digits": "langevin:10,repeats=100,step_size=0.2,denoise=no",
        "ncsnv2_digits": "langevin:22",
        "ve_digits": "heun:18",
        "vp_digits": "heun:18",
        "subvp_digits": "heun:18",
        "trigflow_digits": "heun:18",
        "sct_digits": "one-step",
        "scd_digits": "one-step",
    }
    assert recipes.pd_digits().own_sampler(8) == Progressive(8)


def test_texts_become_parts_of_file_names():
    assert file_name(Multistep((2.0, 0.8))) == "multistep-2.0-0.8"
    assert file_name(Heun(4, s_churn=2.0)) == "heun-4-s_churn=2"
    many = [file_name(parse(f"multistep:{n}", CONSISTENCY)) for n in (100, 101)]
    assert all(len(name) <= 100 for name in many)
    assert many[0] != many[1]
    assert many[0].startswith("multistep-75.7-71.7-67.8-")


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
        ("euler:4,s_churn=1", "unknown option"),
        ("heun:4,s_burn=1", "unknown option: did you mean 's_churn'"),
        ("heun:4,steps=1", "unknown option"),
        ("heun:4,s_churn=-3", "'heun:4,s_churn=-3' cannot be: s_churn must be finite and not negative"),
        ("heun:4,s_churn=nan", "must be finite and not negative"),
        ("ode:4", "The sampler 'ode:4' has no number of steps: write ode"),
        ("ode@1.0", "takes a number of steps alone"),
        ("ode,denoise=1", "denoise of the sampler 'ode,denoise=1' must be yes or no"),
        ("pc:4,corrections=0.5", "corrections of the sampler 'pc:4,corrections=0.5' must be a whole number"),
        ("pc:4,sde=edm", "cannot be: sde must be one of ve, vp, sub-vp, not edm"),
        ("langevin", "lacks its steps: write langevin:4"),
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
        ("one-step:2", "has no number of steps: write one-step"),
    ],
)
def test_multistep_texts_that_mean_nothing(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text, CONSISTENCY)


@pytest.mark.parametrize(("text", "sampler"), SAMPLERS)
def test_samplers_of_the_other_kind_of_model_are_refused(text, sampler):
    diffusion = CONSISTENCY if sampler.for_denoisers else DENOISER
    with pytest.raises(UserError, match=r"is for (consistency|diffusion) models, and this is a"):
        parse(text, diffusion)


def test_time_points_are_those_of_the_models_noise_levels():
    levels = dataclasses.replace(CONSISTENCY, t_max=9.0)
    assert parse("multistep:2", levels).taus < (9.0,)
    with pytest.raises(UserError, match=r"must descend between 9 and 0\.002"):
        parse("multistep@10", levels)
