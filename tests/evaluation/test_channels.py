"""Grey images and RGB images are compared when it is said how, and refused in one sentence otherwise."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.api.trained_model import TrainedModel
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.drawing.requests import Request, in_channels, sample_all
from cm_ray.errors import UserError
from cm_ray.networks.model import Model
from cm_ray.sampling.samplers import OneStep
from tests.tracking.tracked_runs import tiny_model, tiny_spec

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 1), np.uint8)
HOW = "set channels to 1 to compare both as grey, or to 3 to compare both as RGB"


class Means:
    """Features of any images, with as many dimensions as there are channels and a few more."""

    name, weights_sha256, preprocess, dim, classes = "means", "0" * 64, "none", 4, None

    def features(self, images):
        flat = images.flatten(2).double()
        first, last = flat[:, 0], flat[:, -1]
        return torch.stack([first.mean(1), last.mean(1), first.std(1), last.amax(1)], 1)


def test_samples_become_grey_as_images_do():
    every = np.random.default_rng(2).integers(0, 256, (1, 256, 256, 3), np.uint8)
    found = in_channels(torch.from_numpy(every.transpose(0, 3, 1, 2)), 1)
    assert np.array_equal(found[0, 0], np.asarray(Image.fromarray(every[0]).convert("L")))
    again = in_channels(found, 3)
    assert again.shape == (1, 3, 256, 256)
    assert (again == found).all()
    assert in_channels(found, 0) is in_channels(found, 1) is found


def test_a_request_says_the_channels():
    model, request = tiny_model(), Request(count=3, seed=0, sampler=OneStep())
    plain, _ = sample_all(model, request)
    colour, _ = sample_all(model, dataclasses.replace(request, channels=3))
    assert torch.equal(colour, plain.expand(-1, 3, -1, -1))


def test_images_of_other_channels():
    with pytest.raises(UserError, match=f"^The scored images are grey, and those of array are RGB; {HOW}.$"):
        cm.score(GREY, COLOURS, extractor=Means())
    as_grey = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in COLOURS])[..., None]
    as_rgb = GREY.repeat(3, -1)
    for channels, scored, reference in ((1, GREY, as_grey), (3, as_rgb, COLOURS)):
        found = cm.score(GREY, COLOURS, extractor=Means(), channels=channels)["FD"]
        wanted = cm.score(scored, reference, extractor=Means())["FD"]
        assert found.value == wanted.value
        assert found.key == wanted.key


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_other_channels(channels):
    grey = TrainedModel(tiny_model())
    colour = TrainedModel(Model(dataclasses.replace(tiny_spec(), shape=(3, 8, 8))).eval())
    for model, other in ((grey, COLOURS), (colour, GREY)):
        with pytest.raises(UserError, match=HOW):
            cm.score(model, other, extractor=Means(), n=8)
        samples = model.sample(8, seed=1)
        found = cm.score(model, other, extractor=Means(), n=8, channels=channels)["FD"]
        wanted = cm.score(np.asarray(samples), other, extractor=Means(), channels=channels)["FD"]
        assert found.value == pytest.approx(wanted.value)


def test_the_size_is_said_before_the_channels():
    with pytest.raises(UserError, match="are 8x8, and those of array are 4x4; set size, or give"):
        cm.score(GREY, COLOURS[:, :4, :4], extractor=Means())
    with pytest.raises(UserError, match=r"^A are 8x6, and B are 9x6; do this.$"):
        check_comparable("A", (1, 6, 8), "B", (3, 6, 9), size="do this", channels="do that")
    with pytest.raises(UserError, match=r"^A are grey, and B are RGB; do that.$"):
        check_comparable("A", (1, 6, 8), "B", (3, 6, 8), size="do this", channels="do that")


def test_transparent_references_are_on_the_background_that_is_said(tmp_path):
    for index, level in enumerate((10, 200, 90)):
        sprite = Image.new("RGBA", (8, 8), (level, level, level, 255))
        sprite.paste((0, 0, 0, 0), (0, 0, 8, 4))
        sprite.save(tmp_path / f"{index}.png")
    black = cm.load_images(tmp_path, background="black")
    found = cm.score(COLOURS, tmp_path, extractor=Means(), background="black")["FD"]
    assert found.key["reference"] == black.fingerprint
    assert found.key["reference"] != cm.score(COLOURS, tmp_path, extractor=Means())["FD"].key["reference"]
