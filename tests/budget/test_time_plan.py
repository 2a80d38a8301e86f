"""Settings that are chosen for images and a time: by values, from given speeds of networks."""

import pytest

from cm_ray.budget import time_plan
from cm_ray.budget.speed import measured_speed, spec_of
from cm_ray.budget.time_plan import plan_for, reserve_s
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.formats.diffusers_config import config_of
from cm_ray.recipes.automatic import DataFacts, networks_for, student_for, with_changes
from cm_ray.settings.choices import word_of

DIGITS = DataFacts(path="digits", count=1797, shape=(1, 8, 8), classes=10, sigma_data=0.748)
PHOTOS = DataFacts(path="photos", count=6000, shape=(3, 64, 64), classes=0, sigma_data=0.5)
CIFAR = DataFacts(path="cifar10", count=50_000, shape=(3, 32, 32), classes=10, sigma_data=0.5)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Let there be 80 GiB, and count no activations, which takes seconds for each network."""
    monkeypatch.setattr(time_plan, "free_memory", lambda device: 80 * 2**30)
    monkeypatch.setattr(time_plan, "most_rows", lambda recipe, spec, budget, device: 256)


def costing(seconds):
    """Return speeds in proportion to channels squared and blocks; a step of a student takes twice as long."""

    def speed(recipe, data):
        cost = (recipe.network.channels / 32) ** 2 * recipe.network.blocks * recipe.batch_size / 128
        return seconds * cost * (2 if recipe.method.needs_teacher else 1)

    return speed


def methods(plan):
    return [word_of(stage.recipe.method) for stage in plan.stages]


def test_minutes_on_two_cores_for_digits():
    plan = plan_for(DIGITS, lambda: 20 * 60, costing(0.15), {})
    assert methods(plan) == ["edm", "cd"]
    assert [stage.recipe.network.channels for stage in plan.stages] == [32, 32]
    left = 20 * 60 - reserve_s(20 * 60, 2)
    assert sum(stage.seconds for stage in plan.stages) == pytest.approx(left, rel=0.01)
    teacher, student = plan.stages
    assert teacher.recipe.steps == int(0.45 * left / 0.15)
    assert student.recipe.steps == int(0.55 * left / 0.3)
    assert student.recipe.evaluation.extractor == "digits"
    assert student.recipe.init_from.model == "teacher"
    assert student.recipe.column.sigma_data == 0.748
    assert len(plan.tried) == 2, "the next network was measured, and would see too little"


def test_two_hours_on_two_cores_for_photos():
    plan = plan_for(PHOTOS, lambda: 2 * 3600, costing(4.0), {})
    assert methods(plan) == ["ct"], "steps of 4 s are too slow for two stages"
    assert plan.stages[0].recipe.network.channel_mult == (1, 2, 2, 2)
    assert not plan.stages[0].recipe.network.conditional
    assert plan.stages[0].recipe.evaluation.extractor == "scattering"


def test_hours_on_a_gpu_get_a_large_network_and_batch():
    plan = plan_for(CIFAR, lambda: 3 * 3600, costing(0.0005), {}, "cuda")
    assert methods(plan) == ["edm", "cd"]
    network = plan.stages[1].recipe.network
    assert (network.channels, network.blocks, network.channel_mult) == (128, 2, (1, 2, 2))
    assert [stage.recipe.batch_size for stage in plan.stages] == [512, 512]
    assert [stage.recipe.accumulate for stage in plan.stages] == [2, 2], "256 images fit at a time"
    assert plan.stages[1].recipe.optimizer.learning_rate == pytest.approx(0.064 / 128 / 2)


def test_every_network_is_whole_and_can_be_exported_for_diffusers():
    for data in (DIGITS, PHOTOS, CIFAR):
        for network in networks_for(data):
            recipe = student_for(data, network, 128)
            assert config_of(spec_of(recipe, data))


def test_what_is_given_is_not_chosen():
    changes = {"network.channels": 64, "batch_size": 128, "seed": 3, "steps": 70, "distance": "l2"}
    plan = plan_for(DIGITS, lambda: 1200, costing(0.01), changes)
    teacher, student = plan.stages
    assert [stage.recipe.network.channels for stage in plan.stages] == [64, 64]
    assert (teacher.recipe.seed, student.recipe.seed) == (3, 3)
    assert word_of(student.recipe.method.distance) == "l2"
    assert student.recipe.steps == 70
    assert teacher.recipe.steps > 1000
    with pytest.raises(SettingError, match="times"):
        with_changes(student.recipe, {"times.scales.nowhere": 3})


def test_the_table_says_what_was_chosen_and_why():
    text = str(plan_for(DIGITS, lambda: 1200, costing(0.15), {}))
    assert "1,797 of 8x8x1, 10 classes, sigma_data 0.748" in text
    assert "enough" in text
    assert "fewer than" in text
    for word in ("teacher ", "distillation ", "beside steps", "in all        20.0 min"):
        assert word in text


def test_a_time_that_is_too_short_and_images_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"hours 0.04 is too little: 0.05 are needed"):
        plan_for(DIGITS, lambda: 144, costing(0.1), {})
    with pytest.raises(UserError, match="are 30x30: sides of 8 pixels"):
        DataFacts(path="x", count=1, shape=(3, 30, 30), classes=0, sigma_data=0.5)


def test_a_step_is_measured_with_a_teacher():
    small = DataFacts(path="digits", count=10, shape=(1, 8, 8), classes=0, sigma_data=0.5)
    assert 0 < measured_speed(student_for(small, networks_for(small)[0], 4), small) < 60
