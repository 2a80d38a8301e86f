"""Recipes of score-based models have the published settings, and those that NCSNv2's techniques give."""

import contextlib
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits

from cm_ray import recipes
from cm_ray.core.noise_times import Geometric, LogUniform, SubVPTimes, VPTimes
from cm_ray.core.precondition import VE, VP
from cm_ray.core.score_columns import NCSN, SubVP
from cm_ray.core.sde import SDES
from cm_ray.core.sliced import SlicedScoreMatching
from cm_ray.core.techniques import largest_distance, level_ratio, number_of_levels
from cm_ray.core.weights import SNR
from cm_ray.errors import SettingError
from cm_ray.networks.score_networks import RefineNet
from cm_ray.networks.unet import UNet
from cm_ray.recipes.sections import Adam
from cm_ray.sampling.score_samplers import Langevin, PredictorCorrector
from cm_ray.sampling.text import parse

NAMES = ("ncsn", "ncsnv2", "ve", "vp", "subvp")
KINDS = {
    "ncsn": (Geometric, NCSN()),
    "ncsnv2": (Geometric, VE()),
    "ve": (LogUniform, VE()),
    "vp": (VPTimes, VP()),
    "subvp": (SubVPTimes, SubVP()),
}


@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_has_the_times_the_column_and_the_weight_of_its_model(name, data):
    recipe = recipes.named(f"{name}_{data}")
    times, column = KINDS[name]
    assert type(recipe.method.times) is times
    assert recipe.column == column
    assert recipe.method.weight == SNR()
    assert recipe.diffusion.denoiser
    for text in recipe.evaluation.samplers:
        parse(text, recipe.diffusion, own=recipe.own_sampler())


def test_the_sdes_of_cifar10_have_the_settings_of_appendix_h():
    for name, decay in (("ve", 0.999), ("vp", 0.9999), ("subvp", 0.9999)):
        recipe = recipes.named(f"{name}_cifar10")
        assert (recipe.steps, recipe.batch_size) == (1_300_000, 128)
        assert recipe.averages.decays == (decay,)
        assert recipe.optimizer.learning_rate == 2e-4
        assert (recipe.optimizer.warmup_steps, recipe.optimizer.gradient_clip) == (5000, 1.0)
        assert (recipe.network.channels, recipe.network.channel_mult, recipe.network.blocks) == (
            128,
            (1, 2, 2, 2),
            4,
        )
        assert recipe.network.dropout == 0.1
    assert (recipes.ve_cifar10().noise.t_max / 2, recipes.ve_cifar10().noise.t_min / 2) == (50, 0.01)
    ends = torch.tensor([1e-5, 1.0], dtype=torch.float64)
    noise = recipes.vp_cifar10().noise
    assert [noise.t_min, noise.t_max] == pytest.approx(SDES["vp"].level(ends).tolist(), rel=2e-3)
    corrected = parse(recipes.ve_cifar10().evaluation.samplers[0], recipes.ve_cifar10().diffusion)
    assert corrected == PredictorCorrector(1000, "ve", "reverse-diffusion", 1, 0.16)


def test_ncsnv2_of_cifar10_has_its_settings():
    recipe = recipes.ncsnv2_cifar10()
    assert (recipe.steps, recipe.batch_size, recipe.averages.decays) == (300_000, 128, (0.999,))
    assert recipe.network == RefineNet(channels=128)
    levels = recipe.method.times.levels(recipe.noise) / 2
    assert (len(levels), float(levels[0]), float(levels[-1])) == (232, 0.01, 50)
    sampler = parse(recipe.evaluation.samplers[0], recipe.diffusion)
    assert sampler == Langevin(232, 5, 0.062)
    assert sampler.step_size * 0.01**2 == pytest.approx(6.2e-6)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_ncsn_has_its_settings(data):
    recipe = recipes.named(f"ncsn_{data}")
    assert (recipe.batch_size, recipe.averages.decays) == (128, (0.0,))
    levels = recipe.method.times.levels(recipe.noise) / 2
    assert (len(levels), float(levels[0]), float(levels[-1])) == (10, 0.01, 1)
    indices = recipe.column.network_time(recipe.method.times.levels(recipe.noise))
    torch.testing.assert_close(indices, torch.arange(9, -1, -1, dtype=torch.float64))
    assert recipe.evaluation.samplers == ("own",)
    sampler = recipe.own_sampler()
    assert sampler == Langevin(10, 100, 0.2, denoise=False)
    assert sampler.step_size * 0.01**2 == pytest.approx(2e-5)


def test_ncsn_of_cifar10_is_as_large_as_published():
    recipe = recipes.ncsn_cifar10()
    assert (recipe.steps, recipe.network) == (200_000, RefineNet(channels=128, levels=10))
    assert recipe.optimizer == Adam(learning_rate=1e-3)


def test_levels_of_the_network_are_those_of_its_column():
    recipe = replace(recipes.ncsn_digits(), network=RefineNet(levels=10))
    for column, known in ((VE(), False), (NCSN(count=11), False), (NCSN(last=0.01), True)):
        with (
            contextlib.nullcontext()
            if known
            else pytest.raises(
                SettingError,
                match=r"network\.levels 10 of network refinenet needs column ncsn with",
            )
        ):
            replace(recipe, column=column)


def test_sliced_score_matching_is_not_compiled():
    recipe = replace(recipes.ncsn_digits(), method=SlicedScoreMatching())
    assert recipe.own_sampler().repeats == 100
    with pytest.raises(SettingError, match="compile does not go with method ssm"):
        replace(recipe, compile=True)


@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [
        ("ve_cifar10", 4, 62_758_915),
        ("ve_cifar10", 8, 107_587_075),
        ("vp_cifar10", 4, 61_804_419),
        ("vp_cifar10", 8, 106_632_579),
        ("subvp_cifar10", 8, 106_632_579),
    ],
)
def test_networks_and_deep_ones_of_the_sdes_have_so_many_parameters(name, blocks, count):
    with torch.device("meta"):
        network = UNet(replace(recipes.named(name).network, blocks=blocks), (3, 32, 32), 0)
    assert sum(each.numel() for each in network.parameters()) == count


def test_the_levels_of_digits_follow_from_the_techniques():
    images = torch.from_numpy(load_digits().images) / 8 - 1
    recipe = recipes.ncsnv2_digits()
    assert recipe.noise.t_max == pytest.approx(largest_distance(images), abs=0.005)
    count = number_of_levels(recipe.noise.t_max, recipe.noise.t_min, level_ratio(64))
    assert recipe.method.times.count == count == 22
    assert recipe.own_sampler() == Langevin(22, 5)
