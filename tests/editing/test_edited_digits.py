"""Edits are better than doing without a model, even by a model that was trained for some seconds.

`benchmarks/editing.py` prints the same figures for a model that was trained as it should be.
"""

import pytest
import torch

from cm_ray import recipes
from cm_ray.core.noise import Purpose, normal
from cm_ray.editing.model_edits import edited
from cm_ray.editing.replacement import patch_means, super_resolution
from cm_ray.editing.tasks import plan_edit
from cm_ray.metrics.extractors.digits_classifier import load_digits_images
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.networks.model import from_uint8, to_uint8
from cm_ray.settings.tree import override
from tests.training.test_distilled_digits import trained

EDITED = 600
"""Digits that are edited; far fewer would not do for a Fréchet distance of 64 features."""


class Digits:
    def __init__(self):
        images, self.labels = load_digits_images()
        config = override(recipes.ict_digits(), {"steps": 60, "batch_size": 96, "optimizer.warmup_steps": 10})
        self.model = trained(config, (images, self.labels))
        self.extractor = open_extractor("digits")
        self.reference = statistics_of(self.extractor, images)
        images, self.labels = images[:EDITED], self.labels[:EDITED]
        self.true, self.indices = from_uint8(images), torch.arange(EDITED)
        self.mask = torch.zeros(len(images), 1, 8, 8, dtype=torch.bool)
        self.mask[..., :4] = True
        free = {"sampler": self.model.spec.sampler, "labels": self.labels}
        self.free = self.model.sample(self.indices, seed=0, **free)

    def edited(self, task, images, **settings):
        edit = plan_edit(task, self.model.spec.diffusion, self.model.spec.shape, **settings)
        arguments = {"indices": self.indices, "seed": 0, "mask": self.mask, "labels": self.labels}
        return edited(self.model, edit, images, **arguments)

    def distance(self, images):
        return frechet_distance(statistics_of(self.extractor, to_uint8(images)), self.reference)

    def l2(self, images):
        return (images - self.true).flatten(1).norm(dim=1).mean()


@pytest.fixture(scope="module")
def digits():
    return Digits()


def test_inpainting_half_of_the_image(digits):
    result = digits.edited("inpaint", digits.true, steps=3)
    mean = torch.where(digits.mask, digits.true, digits.true.mean(0))
    assert digits.distance(result) < 0.9 * digits.distance(mean)
    assert digits.l2(result) < 0.9 * digits.l2(digits.free)
    assert torch.equal(result[..., :4], digits.true[..., :4])


def test_twice_the_size(digits):
    result = digits.edited("upscale", digits.true, steps=3)
    nearest = super_resolution(digits.true, 2).alone()
    assert digits.distance(result) < 0.9 * digits.distance(nearest)
    assert digits.l2(result) < 0.9 * digits.l2(digits.free)
    torch.testing.assert_close(patch_means(result, 2), patch_means(digits.true, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5, 2.0, 10.0, 80.0])
def test_denoising_at_every_level(sigma, digits):
    noisy = digits.true + sigma * normal(0, 0, digits.indices, Purpose.NOISE, (1, 8, 8))
    assert digits.l2(digits.edited("denoise", noisy, sigma=sigma)) < digits.l2(noisy)
