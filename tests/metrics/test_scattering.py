"""The scattering features: of images of any kind, sensitive to what a score should see."""

import math

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.extractors.scattering import Scattering, ScatteringExtractor
from cm_ray.metrics.frechet import frechet_distance


@pytest.fixture(scope="module")
def extractor():
    return open_extractor("scattering")


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def stripes(period, angle=0.0, side=64):
    """Return an image (1, 1, side, side) whose grey levels vary along one direction."""
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period
    return (127.5 + 100 * phase.sin()).round().to(torch.uint8)[None, None]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 96, 72), (1, 200, 200)])
def test_images_of_any_size_have_all_features(extractor, shape):
    features = extractor.features(noise(3, *shape))
    assert features.shape == (3, extractor.dim)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_the_features_of_an_image_do_not_depend_on_its_batch(extractor):
    images = noise(70, 3, 16, 16)
    whole = extractor.features(images)
    torch.testing.assert_close(extractor.features(images[66:68]), whole[66:68], rtol=1e-5, atol=1e-5)


def test_wavelets_have_no_mean_and_norm_one():
    wavelets = Scattering().wavelets
    complex_ones = torch.complex(*wavelets.squeeze(1).chunk(2))
    assert complex_ones.sum((1, 2)).abs().max() < 1e-6
    torch.testing.assert_close(complex_ones.abs().square().sum((1, 2)), torch.ones(4))


def test_an_even_image_has_its_level_and_no_texture(extractor):
    (features,) = extractor.features(torch.full((1, 1, 32, 32), 191, dtype=torch.uint8))
    grey = (191 / 127.5 - 1) * 3**0.5
    torch.testing.assert_close(features[:16], torch.full((16,), grey))
    torch.testing.assert_close(features[16:48], torch.zeros(32), rtol=0, atol=1e-6)
    torch.testing.assert_close(features[48:], torch.full((280,), math.log(1 / 64)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("angle", "place"), [(0.0, 0), (math.pi / 4, 1), (math.pi / 2, 2)])
@pytest.mark.parametrize(("period", "octave"), [(2.67, 0), (10.67, 1), (16.0, 2)])
def test_stripes_are_seen_in_their_octave_and_direction(extractor, angle, place, period, octave):
    (features,) = extractor.features(stripes(period, angle))
    of_octave, first = [], 48
    for number in range(5):
        of_octave.append(features[first : first + 16].view(4, 4).mean(1))  # orientations, quarters
        first += 16 + 8 + 16 * (4 - number)
    found = torch.stack(of_octave)
    assert first == extractor.dim
    assert divmod(int(found.argmax()), 4) == (octave, place)


def distance(extractor, a, b):
    return float(frechet_distance(*(statistics_of(extractor, each) for each in (a, b))))


def test_real_images_are_near_one_another_and_far_from_spoilt_ones(extractor, cifar_images):
    """Blur, noise, missing colour, half of the classes, and copies of few images are all seen, more than
    the spread of the test images themselves."""
    train, (images, labels) = cifar_images("train", 1000)[0], cifar_images("test", 1000)
    floor = distance(extractor, images, train)
    generator = torch.Generator().manual_seed(0)
    loud = images.float() + 16 * torch.randn(images.shape, generator=generator)
    small = torch.nn.functional.avg_pool2d(images.float(), 2)
    spoilt = {
        "noise": loud.round().clamp(0, 255).byte(),
        "blur": torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear").round().byte(),
        "grey": images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1).round().byte(),
        "few": images[torch.arange(1000) % 50],
        "one class": images[labels == 3][torch.arange(1000) % 100],
        "upside down": images.flip(2),
    }
    found = {name: distance(extractor, each, train) / floor for name, each in spoilt.items()}
    assert all(ratio > 1.3 for ratio in found.values()), found


def test_a_number_of_the_transform_is_in_the_key(extractor, monkeypatch):
    before = extractor.weights_sha256
    assert before == ScatteringExtractor.open().weights_sha256
    monkeypatch.setattr("cm_ray.metrics.extractors.scattering._OFFSET", 1 / 32)
    assert extractor.weights_sha256 != before


def test_other_channels_are_refused(extractor):
    with pytest.raises(UserError, match="1 or 3"):
        extractor.features(noise(2, 4, 16, 16))
