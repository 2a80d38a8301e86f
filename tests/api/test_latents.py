"""Likelihoods and latents by the Python interface."""

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import UserError
from cm_ray.sampling.samplers import Heun
from tests.cluster.tiny import NETWORK, save_tiny

SMALL = {"network": NETWORK, "shape": (1, 2, 2), "sampler": Heun()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    diffusion = Diffusion(boundary="none", t_min=0.05, t_max=5.0)
    loaded = cm.load(save_tiny(tmp_path_factory.mktemp("m") / "m", diffusion=diffusion, **SMALL))
    for tensor in loaded.torch_model.parameters():
        tensor.data.mul_(0.3)  # of a smooth network, whose ODE takes few steps
    return loaded


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)


def test_images_come_back_from_their_latents(model, images):
    latents = model.encode(images)
    assert latents.shape == (3, 1, 2, 2)
    back = np.asarray(model.decode(latents))
    assert np.abs(back.astype(int) - images).max() <= 1
    other = model.decode(torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert np.abs(np.asarray(other).astype(int) - images).max() > 5


def test_bits_do_not_depend_on_the_batch(model, images):
    together = model.bits_per_dim(images, rtol=1e-4)
    apart = model.bits_per_dim(list(images), rtol=1e-4, batch_size=1)
    np.testing.assert_allclose(together, apart, atol=0.02)
    assert np.ptp(together) > 0.01


def test_what_does_not_fit_is_refused(model, images, tmp_path):
    with pytest.raises(UserError, match=r"the model's images are 2x2: set resize"):
        model.encode(Image.new("L", (4, 4)))
    with pytest.raises(UserError, match=r"The latents must be \(n, 1, 2, 2\)"):
        model.decode(torch.zeros(1, 2, 2))
    with pytest.raises(UserError, match=r"without classes"):
        model.encode(images, "3")
    consistency = cm.load(save_tiny(tmp_path / "m", network=NETWORK))
    with pytest.raises(UserError, match=r"is a consistency model"):
        consistency.bits_per_dim(np.zeros((1, 8, 8, 1), np.uint8))
