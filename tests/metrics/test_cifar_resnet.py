"""The CIFAR-10 networks: as accurate as published on the real test set, and of use for scoring."""

import pytest
import torch

from cm_ray.data.named import cifar10
from cm_ray.errors import UserError
from cm_ray.metrics.extractors import cifar_resnet
from cm_ray.metrics.extractors.cifar_resnet import CifarResNet, CifarResNetExtractor
from cm_ray.metrics.extractors.extractor import Classifier, features_of, statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import FrechetReference, frechet_distance
from cm_ray.metrics.inception_score import inception_score
from cm_ray.metrics.kernel import kernel_distance
from cm_ray.metrics.manifold import precision_and_recall
from cm_ray.metrics.statistics import FeatureStatistics

PUBLISHED = {20: 0.9173, 56: 0.9339}  # test accuracy of these files
FIRST = {(20, 1000): 0.923, (56, 200): 0.91, (56, 1000): 0.933}  # so many of the file's order; measured


@pytest.fixture(params=[20, 56])
def opened(request, published_weights):
    return request.param, open_extractor(f"cifar-resnet{request.param}", weights=published_weights)


@pytest.mark.parametrize(
    ("opened", "count"),
    [(20, 1000), (56, 200), pytest.param(56, 1000, marks=pytest.mark.exhaustive)],
    indirect=["opened"],
)
def test_the_first_test_images_are_classified_as_published(opened, count, cifar_images):
    depth, extractor = opened
    images, labels = cifar_images("test", count)
    accuracy = (extractor.predict(images) == labels).double().mean()
    assert accuracy == pytest.approx(FIRST[depth, count], abs=1e-3)
    assert accuracy == pytest.approx(PUBLISHED[depth], abs=0.8 / count**0.5)  # 3 standard errors


@pytest.mark.slow
def test_all_test_images_are_classified_as_published(opened, cifar_images):
    depth, extractor = opened
    images, labels = cifar_images("test", 10_000)
    assert len(images) == 10_000
    accuracy = (extractor.predict(images) == labels).double().mean()
    assert accuracy == pytest.approx(PUBLISHED[depth], abs=1e-4)


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_the_networks_have_the_published_parameters(depth, parameters):
    with torch.random.fork_rng(devices=[]):
        network = CifarResNet(depth)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.fixture
def resnet20(published_weights):
    return open_extractor("cifar-resnet20", weights=published_weights)


def test_scores_tell_real_images_from_noise(resnet20, cifar_images):
    train, test = cifar_images("train", 500)[0], cifar_images("test", 500)[0]
    noise = torch.randint(
        0, 256, (500, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    real, held_out, wrong = (features_of(resnet20, images) for images in (train, test, noise))
    reference = FrechetReference.of(FeatureStatistics.of(real))
    near, far = (reference.distance(FeatureStatistics.of(x)) for x in (held_out, wrong))
    assert near * 20 < far
    assert kernel_distance(held_out, real).value * 20 < kernel_distance(wrong, real).value
    assert precision_and_recall(held_out, real)[0].value > 0.6
    assert precision_and_recall(wrong, real)[1].value < 0.1
    scores = [inception_score(resnet20.logits_of(x), splits=2) for x in (held_out, wrong)]
    assert scores[0].value > 7 > 3 > scores[1].value


def test_batches_and_repetition_change_nothing(resnet20, cifar_images):
    images, _ = cifar_images("test", 20)
    features = resnet20.features(images)
    assert features.shape == (20, resnet20.dim) == (20, 64)
    assert torch.equal(features, resnet20.features(images))
    torch.testing.assert_close(resnet20.features(images[5:6]), features[5:6], rtol=1e-5, atol=1e-5)
    logits = resnet20.logits_of(features.double())  # as they may have been kept
    assert torch.equal(logits.argmax(1), resnet20.predict(images))
    assert frechet_distance(*2 * [statistics_of(resnet20, images)]) < 1e-6


def test_its_classes_are_called_as_those_of_the_data():
    assert cifar_resnet.CLASS_NAMES == cifar10.CLASS_NAMES


def test_it_is_a_classifier_of_32_pixel_colour_images():
    extractor = CifarResNetExtractor(CifarResNet(20).eval().requires_grad_(False), "", "cifar-resnet20")
    assert isinstance(extractor, Classifier)
    with pytest.raises(UserError, match=r"cifar-resnet20 needs uint8 images \(b, 3, 32, 32\), not"):
        extractor.features(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
