"""One small run of digits, trained by the front door, that the tests of the front door share."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import cm_ray as cm

TINY = {
    "batch_size": 16,
    "averages": "constant",
    "averages.decays": (0.4,),
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "checkpoint.every": 2,
    "evaluation.every": 4,
    "evaluation.samples": 100,
    "evaluation.grid": 3,
    "log_every": 1,
    "tracking.uri": "none",
}


@pytest.fixture(scope="session")
def digits():
    """uint8 (n, 8, 8, 1) and labels of 300 digits."""
    found = load_digits()
    return (found.images[:300] * 255 / 16).round().astype(np.uint8)[..., None], found.target[:300]


@pytest.fixture(scope="session")
def photos(tmp_path_factory, digits):
    """The digits as a folder of files, a folder a class."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (image, label) in enumerate(zip(*digits, strict=True)):
        place = folder / f"digit {label}"
        place.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of four steps."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    return cm.train("ict_digits", out=out, steps=4, changes=TINY, quiet=True)


@pytest.fixture(scope="session")
def shaken(run):
    """The run's model with weights that are not zero anywhere: its samples differ by class."""
    model = cm.load(run.save(run.directory.root.parent / "shaken"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.torch_model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model
