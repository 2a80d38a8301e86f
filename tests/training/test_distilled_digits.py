"""Distillation does what it is for: one evaluation of the student is worth many of its teacher.

Ten minutes; the quick form, which always runs, is the tiny table of tests/cluster/test_paper_table.py.
"""

import pytest
import torch
from sklearn.datasets import load_digits

from cm_ray import recipes
from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import ModelSpec, to_uint8
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine


def batches(images, labels, size):
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(images), generator=generator)
        for index in order[: len(order) // size * size].split(size):
            yield Batch(images[index], labels[index])


def trained(config, data, teacher=None):
    spec = ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=(1, 8, 8),
        class_names=tuple("0123456789"),
        sampler=config.own_sampler(),
    )
    initial = teacher.network.state_dict() if teacher else None
    engine = Engine(config, spec, teacher=teacher, initial=initial)
    for _ in engine.train(batches(*data, config.batch_size)):
        pass
    return engine.averaged_model()


class Scores:
    """Fréchet distances of as many samples as there are digits, in shares of clipped noise's."""

    def __init__(self, images):
        self.extractor, self.count = open_extractor("digits"), len(images)
        self.reference = statistics_of(self.extractor, images)
        noise = normal(0, 0, torch.arange(self.count), Purpose.SAMPLE, (1, 8, 8)).clamp(-1, 1)
        self.noise = frechet_distance(statistics_of(self.extractor, to_uint8(noise)), self.reference)

    def of(self, model, sampler):
        total = FeatureStatistics.zero(self.extractor.dim)
        for index in torch.arange(self.count).split(256):
            images = model.sample(index, seed=1, sampler=sampler_of(model.spec, sampler))
            total = total + FeatureStatistics.of(self.extractor.features(to_uint8(images)))
        return frechet_distance(total, self.reference) / self.noise


@pytest.fixture
def digits():
    table = load_digits()
    images = torch.from_numpy((table.images * (255 / 16)).round()).to(torch.uint8)[:, None]
    return images, torch.from_numpy(table.target)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipes_reach_their_figures(digits):
    """One evaluation leaves at most 1 % of noise; two, at most 2.5 times the teacher at 35."""
    teacher = trained(recipes.edm_digits(), digits)
    student = trained(override(recipes.cd_digits(), {"teacher.model": "given"}), digits, teacher)
    scores = Scores(digits[0])
    assert scores.of(student, "one-step") <= 0.01
    assert scores.of(student, "multistep:2") <= 2.5 * scores.of(teacher, "heun:18")
