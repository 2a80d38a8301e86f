"""What is kept of samples does not grow with their number, and is the same whoever makes them."""

import numpy as np
import pytest
import torch

from cm_ray.core.noise import Purpose, normal
from cm_ray.data.load_images import load_images
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.evaluation import score_here
from cm_ray.evaluation.score_here import score_images
from cm_ray.evaluation.scorer import (
    MOST_SAMPLES,
    LocalScorer,
    class_counts,
    noise_batches,
    sample_count,
    summed,
)
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import GROUPS
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import to_uint8

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor():
    return open_extractor("digits")


@pytest.fixture(scope="module")
def request_of_83(averaged_run):
    spec = load_model(averaged_run.model).spec
    return Request(count=83, seed=3, sampler=sampler_of(spec, "one-step"), unit=16)


def test_a_score_has_50_000_samples_at_most_unless_more_are_asked_for():
    assert sample_count(0, 1797) == 1797
    assert sample_count(0, 1_281_167) == MOST_SAMPLES == 50_000
    assert sample_count(60_000, 1797) == 60_000


def test_groups_are_those_of_the_samples(averaged_run, extractor, request_of_83):
    sampled = LocalScorer(CPU, extractor).sampled(averaged_run.model, request_of_83)
    images = sample_all(load_model(averaged_run.model), request_of_83)[0]
    assert [group.n for group in sampled.groups] == [
        83 * (i + 1) // GROUPS - 83 * i // GROUPS for i in range(GROUPS)
    ]
    whole = FeatureStatistics.of(extractor.features(images))
    np.testing.assert_allclose(sum(group.total for group in sampled.groups), whole.total, rtol=1e-6)
    np.testing.assert_allclose(sum(group.outer for group in sampled.groups), whole.outer, rtol=1e-6)
    assert sampled.classes.tolist() == torch.bincount(extractor.predict(images), minlength=10).tolist()
    assert sampled.seconds_per_1000 > 0


def test_pictures_are_the_first_samples(averaged_run, extractor, request_of_83):
    images = LocalScorer(CPU, extractor).pictures(averaged_run.model, request_of_83)
    assert torch.equal(images, sample_all(load_model(averaged_run.model), request_of_83)[0])


def test_noise_is_clipped_noise_of_the_samples_indices(extractor, monkeypatch):
    shape, indices = (1, 8, 8), torch.arange(1500)
    noise = to_uint8(normal(0, 0, indices, Purpose.SAMPLE, shape).clamp(-1, 1))
    assert torch.equal(torch.cat(list(noise_batches(shape, 0, 1500))), noise)
    assert torch.equal(torch.cat(list(noise_batches(shape, 700, 800))), noise[700:])
    scorer, direct = LocalScorer(CPU, extractor), FeatureStatistics.of(extractor.features(noise))
    found = scorer.noise(shape, 1500)
    assert found.n == 1500
    np.testing.assert_allclose(found.outer, direct.outer, rtol=1e-6)
    monkeypatch.setattr("cm_ray.evaluation.scorer.noise_batches", lambda *_: pytest.fail("made twice"))
    assert np.array_equal(scorer.noise(shape, 1500).outer, found.outer)


def test_counts_of_classes_of_unlike_lengths_are_added():
    assert summed([torch.tensor([1, 2]), None, torch.tensor([0, 1, 5])]).tolist() == [1, 3, 5]
    assert summed([None, None]) is None
    assert class_counts(object(), torch.zeros(2, 1, 8, 8)) is None


def test_statistics_need_an_extractor(averaged_run, request_of_83):
    with pytest.raises(ValueError, match="need an extractor"):
        LocalScorer(CPU, None).sampled(averaged_run.model, request_of_83)


def test_pairwise_scores_of_a_large_reference_name_their_part(extractor, monkeypatch):
    """Of 1,797 images 300 are taken at random; the Fréchet distance still has all of them."""
    digits = load_images("digits")
    images = digits.images[torch.randperm(1797, generator=torch.Generator().manual_seed(0))[:500]]
    kinds = ("FD", "KID", "SWD", "precision", "recall")

    def scores():
        return score_images(lambda: [images], 500, digits, extractor, kinds, seed=1)

    whole = scores()
    monkeypatch.setattr(score_here, "MOST_SAMPLES", 300)
    part = scores()
    assert part["FD"].value == pytest.approx(whole["FD"].value, rel=1e-9)
    assert "reference_images" not in part["FD"].settings
    for kind in kinds[1:]:
        assert part[kind].settings["reference_images"] == 300
        assert "reference_images" not in whole[kind].settings
    assert abs(part["KID"].value - whole["KID"].value) < 5 * part["KID"].error
    labels = [digits.labels[i].item() for i in _places(digits, score_here._random_part(digits))]
    assert len(set(labels)) == 10, "a part of sorted images would lack classes"


def _places(data, blocks):
    """Return the place of each image of the blocks among the images."""
    places = {image.numpy().tobytes(): place for place, image in enumerate(data.images)}
    return [places[image.numpy().tobytes()] for block in blocks for image in block]
