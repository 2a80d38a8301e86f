"""clean-fid as an extractor, against its own pipeline and against our Inception, without NVIDIA's file.

The files of TorchScript here have the interface of NVIDIA's: `layers`, from resized images to features, and a
`forward` that resizes before them.
"""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cm_ray.errors import UserError
from cm_ray.metrics.extractors import clean_fid
from cm_ray.metrics.extractors.extractor import Classifier, features_of
from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.extractors.published_weights import TORCHSCRIPT_INCEPTION
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.extractors.resizing import RESIZINGS
from cm_ray.metrics.score import Score, score_key
from cm_ray.networks.vision import torchvision
from cm_ray.storage.files import sha256_of

NOWHERE = "http://127.0.0.1:9/inception-2015-12-05.pt"  # nobody answers there
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Scripted(nn.Module):
    """NVIDIA's file, around its layers, shifts by half a pixel as TensorFlow 1, and scales."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x, return_features: bool = False):
        assert return_features
        height, width = x.shape[2], x.shape[3]
        theta = torch.eye(2, 3)
        theta[0, 2] += 1.0 / width - 1.0 / 299
        theta[1, 2] += 1.0 / height - 1.0 / 299
        grid = nn.functional.affine_grid(
            theta.unsqueeze(0).repeat(x.shape[0], 1, 1), [x.shape[0], 3, 299, 299], align_corners=False
        )
        x = nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return self.layers((x - 128) / 128)


def saved(layers, folder):
    """Write TorchScript by its published name, and return the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch would have us compile
        torch.jit.script(Scripted(layers)).save(folder / TORCHSCRIPT_INCEPTION.file_name)
    return folder / TORCHSCRIPT_INCEPTION.file_name


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A small network of 2048 features, those of neighbouring places of the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 7, stride=6), nn.ReLU(), nn.AdaptiveAvgPool2d(16), nn.Flatten()]
        return saved(nn.Sequential(*layers), tmp_path_factory.mktemp("small"))


@pytest.fixture
def publish(monkeypatch):
    """A function: take this file for the published one, at an address where nobody answers."""

    def publish(file):
        published = dataclasses.replace(TORCHSCRIPT_INCEPTION, url=NOWHERE, sha256=sha256_of(file))
        monkeypatch.setattr(clean_fid, "TORCHSCRIPT_INCEPTION", published)
        return published

    return publish


@pytest.fixture
def published(small_file, publish, tmp_path, monkeypatch):
    """The small file, published; the cache is empty."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(TORCHSCRIPT_INCEPTION.variable, raising=False)
    return publish(small_file)


@pytest.fixture
def never_loaded(monkeypatch):
    def load(*_, **__):
        pytest.fail("a file was loaded that is not the published one")

    monkeypatch.setattr(torch.jit, "load", load)


def images(count, size=(32, 32), channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, *size), generator=generator, dtype=torch.uint8)


def by_clean_fid(images, resizing, file, folder, monkeypatch):
    """Features by clean-fid from PNGs on the disk; only the place of its file is changed."""
    torchvision()  # must be mended before clean-fid imports it
    from cleanfid import features, fid

    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(folder / f"{index}.png")

    def found_there(path, download, resize_inside):
        return wrapper(str(file.parent), download=False, resize_inside=resize_inside)

    wrapper = features.InceptionV3W
    monkeypatch.setattr(features, "InceptionV3W", found_there)
    cpu = torch.device("cpu")
    model = features.build_feature_extractor(resizing, device=cpu, use_dataparallel=False)
    return fid.get_folder_features(
        str(folder), model=model, num_workers=0, device=cpu, mode=resizing, verbose=False
    )


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (3, (40, 24)), (3, (310, 301)), (1, (28, 28))])
@pytest.mark.parametrize("resizing", RESIZINGS)
def test_features_are_those_of_clean_fids_pipeline(
    resizing, channels, size, small_file, published, tmp_path, monkeypatch
):
    x = images(4, size, channels)
    ours = open_extractor("clean-fid", weights=small_file, resizing=resizing).features(x)
    theirs = by_clean_fid(x, resizing, small_file, tmp_path, monkeypatch)
    assert ours.dtype == torch.float32
    assert theirs.shape == (4, 2048)
    assert theirs.std() > 1e-2
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def inception_file(random_inception, tmp_path_factory):
    """Our Inception, with random weights, as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(random_inception.network, torch.zeros(1, 3, 299, 299), check_trace=False)
    return saved(traced, tmp_path_factory.mktemp("inception"))


@pytest.mark.parametrize("resizing", RESIZINGS)
def test_it_confirms_our_inception(resizing, random_inception, inception_file, publish):
    """The same weights in both give the same features."""
    publish(inception_file)
    x = images(2)
    theirs = open_extractor("clean-fid", weights=inception_file, resizing=resizing).features(x)
    ours = InceptionExtractor(random_inception.network, "", "x", resizing).features(x)
    torch.testing.assert_close(theirs, ours, **CLOSE)
    assert (ours[0] - ours[1]).abs().max() > 1e-1


@pytest.mark.parametrize("resizing", RESIZINGS)
def test_features_do_not_depend_on_the_batch_or_the_surroundings(resizing, small_file, published):
    extractor = open_extractor("clean-fid", weights=small_file, resizing=resizing)
    x = images(67)  # more than go through the network at once
    together = extractor.features(x)
    assert together.shape == (67, 2048)
    torch.testing.assert_close(features_of(extractor, x, batch_size=5), together, **CLOSE)
    with torch.autocast("cpu", torch.bfloat16):
        alone = extractor.features(x[66:])
    torch.testing.assert_close(alone, together[66:], **CLOSE)
    assert (together[65] - together[66]).abs().max() > 1e-2
    assert extractor.features(x[:0]).shape == (0, 2048)


def test_grey_images_are_repeated_and_others_refused(small_file, published):
    extractor = open_extractor("clean-fid", weights=small_file)
    grey = images(2, channels=1)
    torch.testing.assert_close(extractor.features(grey), extractor.features(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(UserError, match=r"clean-fid needs uint8 images \(b, 1 or 3, h, w\), not float32"):
        extractor.features(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"not uint8 \(1, 2, 32, 32\)"):
        extractor.features(images(1, channels=2))


@pytest.mark.parametrize("resizing", RESIZINGS)
def test_it_says_what_it_is_and_is_never_called_fid(resizing, small_file, published):
    extractor = open_extractor("clean-fid", weights=small_file, resizing=resizing)
    assert (extractor.name, extractor.dim) == ("clean-fid", 2048)
    assert extractor.weights_sha256 == published.sha256
    assert extractor.preprocess.startswith(f"{resizing}: 299x299 ")
    assert "by clean-fid 0." in extractor.preprocess
    assert not isinstance(extractor, Classifier)
    key = {"seed": 0, "reference": "cd" * 32, "labels": "none", "sampler": "one-step", "nfe": 1}
    score = Score(value=1.0, key=score_key(extractor, n=50_000, **key))
    assert (score.name, score.is_fid) == ("FD-clean-fid-50000", False)


def test_the_file_may_have_any_name_and_no_other_is_taken(small_file, published, tmp_path, monkeypatch):
    renamed = tmp_path / "renamed.pt"
    renamed.write_bytes(small_file.read_bytes())
    (tmp_path / published.file_name).write_bytes(b"something else")
    expected = open_extractor("clean-fid", weights=small_file.parent).features(images(1))
    assert torch.equal(open_extractor("clean-fid", weights=renamed).features(images(1)), expected)
    monkeypatch.setenv(published.variable, str(renamed))
    assert torch.equal(open_extractor("clean-fid").features(images(1)), expected)


def test_another_file_is_refused_before_it_is_loaded(small_file, published, tmp_path, never_loaded):
    other = tmp_path / "other.pt"
    other.write_bytes(small_file.read_bytes() + b" ")
    with pytest.raises(UserError, match="given as the weights, has the SHA-256") as error:
        open_extractor("clean-fid", weights=other)
    for part in (str(other), NOWHERE, f"SHA-256 {published.sha256}", "CM_RAY_CLEAN_FID_WEIGHTS"):
        assert part in str(error.value)


@pytest.mark.parametrize("by", ["path", "variable", "cache"])
def test_a_missing_file_is_said_where_to_get_and_to_put(by, published, tmp_path, monkeypatch, never_loaded):
    place = tmp_path / "missing.pt"
    if by == "variable":
        monkeypatch.setenv(published.variable, str(place))
    with pytest.raises(UserError) as error:
        open_extractor("clean-fid", weights=place if by == "path" else "")
    if by == "cache":
        place = tmp_path / "cache" / "weights" / published.file_name
    for part in (str(place), NOWHERE, f"SHA-256 {published.sha256}", "CM_RAY_CLEAN_FID_WEIGHTS"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_resizing_is_refused_before_anything_is_fetched(published):
    with pytest.raises(UserError, match="no resizing 'cleen': did you mean 'clean'"):
        open_extractor("clean-fid", resizing="cleen")


def test_the_published_file_is_the_one_that_clean_fid_fetches():
    from cleanfid.downloads_helper import inception_url

    assert inception_url == TORCHSCRIPT_INCEPTION.url
    assert len(TORCHSCRIPT_INCEPTION.sha256) == 64
