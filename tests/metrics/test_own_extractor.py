"""A user's own extractor by import path."""

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.own_code import allow, is_name

MODULE = """
class Pixels:
    name, dim, weights_sha256, preprocess = "pixels", 4, "", "none"

    def __init__(self, device):
        self.device = device

    def features(self, images):
        return images.float().flatten(1)

class Impostor(Pixels):
    name = "inception-2015"

def nothing(device):
    return object()

text = "no factory"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_pixels.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_pixels"


def test_a_factory_makes_the_extractor(module):
    allow(f"{module}:Pixels")
    extractor = open_extractor(f"{module}:Pixels", "cpu")
    assert (extractor.name, extractor.device) == ("pixels", "cpu")
    assert statistics_of(extractor, torch.ones(3, 1, 2, 2, dtype=torch.uint8)).n == 3


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_package.x:y", "cannot be imported"),
        ("own_pixels:missing", "cannot be imported"),
        (":", "was not imported"),
        (".relative:y", "was not imported"),
        ("own_pixels:text", "is not callable"),
        ("own_pixels:nothing", "lacks name, dim, weights_sha256, preprocess, features"),
        ("own_pixels:Impostor", "name of a built-in one, inception-2015"),
    ],
)
def test_what_is_no_extractor_is_refused(path, said, module):
    if is_name(path):
        allow(path)
    with pytest.raises(UserError, match=said):
        open_extractor(path)
