"""LPIPS keeps a distance's promises, resizes as OpenAI does, and never goes without its weights."""

import dataclasses

import pytest
import torch

from cm_ray.config import DistanceConfig
from cm_ray.errors import UserError
from cm_ray.networks import perceptual
from cm_ray.networks.perceptual import lpips_distance
from cm_ray.networks.vision import torchvision
from tests.core.test_functions import DistanceContract

SMALL = DistanceConfig(name="lpips", lpips_net="squeeze", lpips_size=64)


class TestLPIPS(DistanceContract):
    """With a random trunk: the weights cannot be in the repository."""

    torch.manual_seed(0)
    distance = lpips_distance(SMALL, random_trunk=True)


def test_small_images_are_resized_and_grey_ones_repeated():
    seen = []

    class Metric(torch.nn.Module):
        def forward(self, a, b):
            seen.append(a.shape)
            return (a - b).flatten(1).mean(1)

    distance = perceptual.LPIPS(Metric(), 32)
    distance(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    distance(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64))
    assert seen == [(2, 3, 32, 32), (2, 3, 64, 64)]


def test_the_papers_default_is_vgg_at_224():
    assert (DistanceConfig().lpips_net, DistanceConfig().lpips_size) == ("vgg", 224)


def test_a_trunk_loads_from_its_published_names(tmp_path, monkeypatch):
    """A file as torchvision publishes it, with other numbers, gives the distance those numbers give."""
    torch.manual_seed(1)
    state = torchvision().models.squeezenet1_1(weights=None).state_dict()
    file = tmp_path / "squeezenet.pth"
    torch.save(state, file)
    digest = perceptual.sha256_of(file)
    monkeypatch.setitem(perceptual._TRUNKS, "squeeze", ("https://example.org/squeezenet.pth", digest))
    distance = lpips_distance(dataclasses.replace(SMALL, lpips_weights=str(file)))
    trunk = distance.metric.net.state_dict()
    assert len(trunk) > 20
    for name, tensor in trunk.items():
        assert torch.equal(tensor, state["features." + name.split(".", 1)[1]])


def test_other_weights_are_refused(tmp_path):
    file = tmp_path / "vgg16.pth"
    file.write_bytes(b"something else")
    config = DistanceConfig(lpips_weights=str(file))
    with pytest.raises(UserError, match=r"is not the file from https://.* with SHA-256 397923af"):
        lpips_distance(config)


def test_missing_weights_say_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path))
    address = "http://127.0.0.1:9/vgg16.pth"  # nobody answers there
    monkeypatch.setitem(perceptual._TRUNKS, "vgg", (address, "0" * 64))
    with pytest.raises(UserError, match=r"Could not download .* put it at .*vgg16.pth"):
        lpips_distance(DistanceConfig())
