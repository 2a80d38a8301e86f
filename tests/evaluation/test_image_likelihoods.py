"""Likelihoods of 8-bit images under a network, against an integration by SciPy of one image at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.ode import Tolerance
from cm_ray.errors import UserError
from cm_ray.evaluation.likelihood import (
    LikelihoodRequest,
    check_density,
    class_numbers,
    csv_lines,
    likelihoods,
)
from cm_ray.networks.formats.reading import load_model
from cm_ray.sampling.samplers import Heun
from tests.cluster.tiny import NETWORK, save_tiny

DENOISER = Diffusion(boundary="none", t_min=0.05, t_max=5.0)
REQUEST = LikelihoodRequest(seed=3, probes=0, batch=2, tolerance=Tolerance(rtol=1e-3, atol=1e-3))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    network = replace(NETWORK, conditional=True, channel_mult=(1,))
    folder = save_tiny(
        tmp_path_factory.mktemp("m") / "m",
        network=network,
        diffusion=DENOISER,
        shape=(1, 2, 2),
        class_names=("a", "b"),
        sampler=Heun(),
    )
    return load_model(folder)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, 2, 2), generator=generator, dtype=torch.uint8)


def measured(model, images, request, places=(0, 5, 9), labels=(0, 1, 1)):
    return likelihoods(model, images, torch.tensor(labels), torch.tensor(places), request)


def by_scipy(model, pixels, label, place):
    """Return bits per dimension from definitions: one image, RK45, the trace of the whole Jacobian."""
    noise = uniform(3, 0, torch.tensor([place]), Purpose.DEQUANTISATION, (1, 2, 2))[0].double()
    x = ((pixels.double() + noise - 0.5) / 127.5 - 1).flatten()
    labels = torch.tensor([label])

    def slope(t, state):
        def velocity(flat):
            x_t = flat.reshape(1, 1, 2, 2).float()
            clean = model(x_t, torch.tensor([t], dtype=torch.float32), labels)
            return (flat - clean.flatten().double()) / t

        flat = torch.tensor(state[:-1])
        jacobian = torch.autograd.functional.jacobian(velocity, flat)
        return np.append(velocity(flat).detach().numpy(), float(jacobian.trace()))

    span = (DENOISER.t_min, DENOISER.t_max)
    end = solve_ivp(slope, span, np.append(x.numpy(), 0.0), rtol=1e-4, atol=1e-6).y[:, -1]
    prior = -0.5 * float((end[:-1] ** 2 / 25 + math.log(2 * math.pi * 25)).sum())
    return -(prior + end[-1]) / (4 * math.log(2)) + math.log2(127.5)


def test_bits_are_those_of_a_plain_integration(model, images):
    request = replace(REQUEST, tolerance=Tolerance(rtol=1e-5, atol=1e-5))
    found = measured(model, images, request)
    assert found.bits[1] == pytest.approx(by_scipy(model, images[1], 1, 5), abs=2e-3)
    assert np.ptp(found.bits) > 0.05, "images must differ"


def test_an_image_has_its_likelihood_in_any_batch(model, images):
    request = replace(REQUEST, probes=1, tolerance=Tolerance(rtol=1e-5, atol=1e-5))
    together = measured(model, images, replace(request, batch=3))
    apart = measured(model, images.flip(0), replace(request, batch=1), (9, 5, 0), (1, 1, 0))
    np.testing.assert_array_equal(together.places, apart.places)
    np.testing.assert_allclose(together.bits, apart.bits, atol=1e-2)
    elsewhere = measured(model, images, request, (1, 2, 3))
    assert np.abs(elsewhere.bits - together.bits).max() > 3e-2, "the place decides the random numbers"


def test_the_class_of_an_image_matters(model, images):
    other = measured(model, images, REQUEST, labels=(1, 0, 0))
    assert (np.abs(other.bits - measured(model, images, REQUEST).bits) > 1e-3).all()


def test_probes_estimate_the_exact_trace(model, images):
    many = measured(model, images, replace(REQUEST, probes=32))
    np.testing.assert_allclose(many.bits, measured(model, images, REQUEST).bits, atol=0.15)


def test_a_mean_has_its_standard_error(model, images):
    found = measured(model, images, REQUEST)
    mean, error = found.mean
    assert mean == pytest.approx(found.bits.mean())
    assert error == pytest.approx(np.std(found.bits, ddof=1) / math.sqrt(3))


def test_a_row_names_the_image_and_its_class(model, images):
    head, first, *_ = csv_lines(measured(model, images, REQUEST), ('a "b", c', "d"))
    assert head.split(",") == ["image", "class", "bits_per_dim", "latent_rms", "evaluations\n"]
    assert first.startswith('0,"a ""b"", c",')


def test_what_has_no_likelihood_is_refused(model, tmp_path):
    consistency = load_model(save_tiny(tmp_path / "m"))
    with pytest.raises(UserError, match=r"demo is a consistency model, and likelihoods .* are of diffusion"):
        check_density(consistency.spec, "demo")
    check_density(model.spec, "demo")
    assert class_numbers(model.spec, "data", ("b", "a")) == (1, 0)
    with pytest.raises(UserError, match=r"data has images of the class 'c'"):
        class_numbers(model.spec, "data", ("b", "c"))
    with pytest.raises(UserError, match=r"data has no labels"):
        class_numbers(model.spec, "data", ())
