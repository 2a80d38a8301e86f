"""The digits extractor: good, deterministic, harmless to its surroundings, and of use for scoring."""

import pytest
import torch

from cm_ray.core.noise import Purpose, uniform
from cm_ray.errors import UserError
from cm_ray.metrics.extractors import digits_classifier as digits
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import frechet_distance

WEIGHTS_SHA256 = "b2a29fdcd97f4b914e0301f07d84cba29bbf521c9f0d60f60559044cad793ae3"


def test_the_classifier_reads_digits_that_it_has_not_seen():
    images, labels = digits.load_digits_images()
    order = uniform(5, 0, torch.arange(len(images)), Purpose.TIMES).argsort(stable=True)
    seen, unseen = order[:1500], order[1500:]
    weights = digits.train_classifier(images[seen], labels[seen])
    network = digits.build_network()
    network.load_state_dict({name: value.double() for name, value in weights.items()})
    held_out = digits.DigitsExtractor(network, digits.digest(weights))
    accuracy = (held_out.predict(images[unseen]) == labels[unseen]).double().mean()
    assert len(unseen) == 297
    assert accuracy > 0.95


def test_weights_are_the_same_on_every_machine(extractor):
    """Rounded to a grid far coarser than the differences between processors."""
    assert extractor.weights_sha256 == WEIGHTS_SHA256


def test_training_leaves_the_random_state_and_threads_alone(extractor, test_cache, tmp_path, monkeypatch):
    """It is trained as the cache is broken; a few steps are enough to see what training touches."""
    monkeypatch.setattr(digits, "_STEPS", 20)
    (cached,) = (test_cache / "extractors").glob("digits-*")
    (tmp_path / "extractors").mkdir()
    (tmp_path / "extractors" / cached.name).write_bytes(b"broken")
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path))
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        trained = open_extractor("digits").weights_sha256
    assert trained != WEIGHTS_SHA256
    assert torch.equal(before, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()
    monkeypatch.setattr(digits, "train_classifier", lambda *_: pytest.fail("it is not kept"))
    assert open_extractor("digits").weights_sha256 == trained


def test_features_do_not_depend_on_the_batch(extractor):
    images, labels = digits.load_digits_images()
    features = extractor.features(images)
    assert features.shape == (1797, extractor.dim) == (1797, 64)
    assert (features[100:107] - extractor.features(images[100:107])).abs().max() < 1e-12
    assert (extractor.predict(images) == labels).double().mean() > 0.99
    logits = extractor.logits_of(features.float())  # as they may have been kept
    assert torch.equal(logits.argmax(1), extractor.predict(images))


def test_the_distance_orders_samples_by_how_wrong_they_are(extractor):
    images, labels = digits.load_digits_images()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8)
    whole = statistics_of(extractor, images)

    def distance(samples):
        return frechet_distance(statistics_of(extractor, samples), whole)

    half = images[torch.randperm(1797, generator=generator)[:898]]
    threes = images[labels == 3]
    assert distance(half) < 1 < 10 < distance(noise) < distance(threes)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)])
def test_other_images_are_refused(extractor, bad):
    with pytest.raises(UserError, match=r"needs uint8 images \(b, 1, 8, 8\), not"):
        extractor.features(bad)


def test_unknown_extractors_are_refused():
    with pytest.raises(UserError, match="did you mean 'digits'"):
        open_extractor("digit")
    with pytest.raises(UserError, match=r"extractor is none"):
        open_extractor("none")
