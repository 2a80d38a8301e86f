"""The FID Inception against clean-fid's own network and pipeline, with random weights."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.errors import UserError
from cm_ray.metrics.extractors import inception
from cm_ray.metrics.extractors import published_weights as weights
from cm_ray.metrics.extractors.extractor import Classifier
from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.extractors.published_weights import PublishedWeights
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.vision import torchvision

RANDOM_SHA256 = "d883e7046ad1b45c6f1d1ccdaa1065f0f44b97959cf91b59242fc4ff19aa4b3d"


def images(count, size=32, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def clean_fid_network(random_inception):
    """clean-fid's module for the FID Inception, strictly filled with the state of ours."""
    torchvision()
    from cleanfid import inception_pytorch

    state = random_inception.network.state_dict()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # clean-fid speaks to torchvision as of old
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: state)
        return inception_pytorch.InceptionV3(resize_input=False, normalize_input=False).eval()


def test_features_are_those_of_clean_fids_network(random_inception, clean_fid_network):
    x = torch.randn(2, 3, 299, 299, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with torch.no_grad():
        expected = clean_fid_network(x)[0].flatten(1)
        ours = random_inception.network(x)
    assert ours.shape == (2, 2048)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_clean_fids_pipeline(random_inception, clean_fid_network, tmp_path):
    """The features come from files on the disk, through its reading, resizing and collecting."""
    from cleanfid.fid import get_folder_features

    x = images(3)
    for index, image in enumerate(x):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    theirs = get_folder_features(
        str(tmp_path),
        model=lambda batch: clean_fid_network((batch - 128) / 128)[0].flatten(1),
        num_workers=0,
        device=torch.device("cpu"),
        mode="clean",
        verbose=False,
    )
    extractor = InceptionExtractor(random_inception.network, "", "x", "clean")
    np.testing.assert_allclose(extractor.features(x), theirs, rtol=1e-4, atol=1e-5)


def test_the_state_is_that_of_the_published_file(random_inception):
    state = random_inception.network.state_dict()
    convolutions = [name for name in state if name.endswith("conv.weight")]
    assert len(convolutions) == 94
    assert len(state) == 94 * 6 + 2  # weight; scale, shift, mean, variance and counter; the classifier
    assert state["fc.weight"].shape == (1008, 2048)
    assert state["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert state["Mixed_6e.branch7x7dbl_5.conv.weight"].shape == (192, 192, 1, 7)
    assert state["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)
    parameters = sum(p.numel() for p in random_inception.network.parameters())
    assert parameters == 23_834_568 + 8 * 2049  # torchvision's with 1,000 classes, and eight classes more


def test_published_weights_are_loaded_with_or_without_counters(random_inception, tmp_path, monkeypatch):
    state = random_inception.network.state_dict()
    file = tmp_path / "weights.pth"
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, file)
    published = PublishedWeights(url="x/weights.pth", sha256=weights.sha256_of(file), variable="NO_SUCH")
    monkeypatch.setattr(inception, "INCEPTION_2015", published)
    loaded = open_extractor("inception-2015", weights=file)
    assert (loaded.name, loaded.weights_sha256, loaded.dim) == ("inception-2015", published.sha256, 2048)
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, state[name])


def test_random_weights_are_the_same_everywhere_and_say_so(random_inception):
    assert random_inception.name == "random-inception"
    assert random_inception.weights_sha256 == RANDOM_SHA256
    other = InceptionExtractor.random(seed=1)
    assert other.weights_sha256 != RANDOM_SHA256


def test_features_do_not_depend_on_the_batch_or_the_surroundings(random_inception):
    x = images(3)
    together = random_inception.features(x)
    assert torch.equal(together, random_inception.features(x))
    with torch.autocast("cpu", torch.bfloat16):
        alone = random_inception.features(x[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_the_resizing_is_part_of_the_preprocessing(random_inception):
    x = images(1)
    clean = InceptionExtractor(random_inception.network, "", "x", "clean")
    assert random_inception.preprocess.startswith("legacy_tensorflow: ")
    assert clean.preprocess.startswith("clean: ")
    assert (clean.features(x) - random_inception.features(x)).abs().max() > 1e-3
    with pytest.raises(UserError, match="no resizing 'cleen': did you mean 'clean'"):
        open_extractor("random-inception", resizing="cleen")


def test_grey_images_are_repeated_and_others_refused(random_inception):
    grey = images(1, channels=1)
    expected = random_inception.features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(random_inception.features(grey), expected)
    with pytest.raises(UserError, match=r"needs uint8 images \(b, 1 or 3, h, w\), not float32"):
        random_inception.features(torch.zeros(1, 3, 32, 32))


def test_logits_leave_the_bias_out(random_inception):
    assert isinstance(random_inception, Classifier)
    features = torch.randn(2, 2048, generator=torch.Generator().manual_seed(0))
    logits = random_inception.logits_of(features)
    torch.testing.assert_close(logits, features @ random_inception.network.fc.weight.T)
    assert logits.shape == (2, 1008)
    assert torch.equal(random_inception.logits_of(features.double()), logits)
