"""Extractors that all tests of the folder share, and the real images beside the checkout."""

import importlib
import io
import types

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.vision import torchvision
from tests.absent import shared

_ORACLES = ("fid", "inception", "kid")


@pytest.fixture(scope="session")
def extractor(test_cache):
    return open_extractor("digits")


@pytest.fixture(scope="session")
def random_inception():
    return InceptionExtractor.random()


@pytest.fixture(scope="session")
def image_metrics():
    """torchmetrics' modules fid, inception and kid: an oracle that is not installed everywhere."""
    torchvision()  # must be mended before torchmetrics imports it
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    modules = {name: importlib.import_module(f"torchmetrics.image.{name}") for name in _ORACLES}
    return types.SimpleNamespace(**modules)


@pytest.fixture(scope="session")
def cifar_images(cifar10):
    """A function: the first `count` images of a split, uint8 (n, 3, 32, 32), and their labels (n,)."""

    def load(split, count):
        file = sorted((cifar10 / split).glob("*.parquet"))[0]
        rows = pq.read_table(file).slice(0, count).to_pydict()
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(img["bytes"]))) for img in rows["img"]])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(rows["label"])

    return load


@pytest.fixture(scope="session")
def published_weights():
    """The folder of published weights beside the data."""
    return shared("weights", reason="the published weights are not beside this checkout")
