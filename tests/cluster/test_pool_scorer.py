"""A pool scores what this process does, and repeats nothing that is on the disk."""

from functools import partial

import numpy as np
import pytest
import torch

from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import prepare_statistics, reference_set
from cm_ray.cluster.pool.scorer import PoolScorer
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.data.image_set import ImageSet
from cm_ray.data.shards.manifest import Manifest, load_all, read_rows
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request
from cm_ray.errors import UserError
from cm_ray.evaluation.reference import Shards
from cm_ray.evaluation.scorer import LocalScorer
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import GROUPS
from cm_ray.networks.formats.reading import load_model
from tests.cluster.tiny import digits_shards, save_tiny
from tests.hungry import HungryExtractor, open_hungry

pytestmark = pytest.mark.ray
OPENER = partial(open_extractor, "digits")
ACTORS = Actors(count=2, cpus=0.5)


@pytest.fixture(scope="module")
def pool(ray_cluster):
    with SamplerPool(OPENER, ACTORS) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def request_of_70(folder):
    sampler = sampler_of(load_model(folder).spec, "one-step")
    return Request(count=70, seed=3, sampler=sampler, unit=16)


@pytest.fixture
def scorer(pool, tmp_path):
    return PoolScorer(pool, OPENER("cpu"), tmp_path / "work")


def alike(ours, theirs):
    assert ours.n == theirs.n
    np.testing.assert_allclose(ours.outer, theirs.outer, rtol=1e-6)
    np.testing.assert_allclose(ours.total, theirs.total, rtol=1e-6)


def test_it_measures_what_this_process_does(scorer, folder, request_of_70):
    here = LocalScorer(torch.device("cpu"), OPENER("cpu"))
    ours, theirs = (each.sampled(folder, request_of_70) for each in (scorer, here))
    assert len(ours.groups) == len(theirs.groups) == GROUPS
    for pair in zip(ours.groups, theirs.groups, strict=True):
        alike(*pair)
    assert ours.classes.tolist() == theirs.classes.tolist()
    assert ours.classes.sum() == 70
    pictures = [each.pictures(folder, request_of_70) for each in (scorer, here)]
    assert torch.equal(*pictures)


def test_finished_groups_are_not_repeated(scorer, folder, request_of_70, monkeypatch):
    first = scorer.sampled(folder, request_of_70)
    files = sorted(scorer.work.iterdir())
    assert len(files) == GROUPS
    files[4].unlink()
    asked, original = [], scorer.pool.generate_all

    def counting(model, requests, *rest):
        asked.extend(requests)
        return original(model, requests, *rest)

    monkeypatch.setattr(scorer.pool, "generate_all", counting)
    again = scorer.sampled(folder, request_of_70)
    assert len(asked) == 1
    assert again.classes.tolist() == first.classes.tolist()
    for one, other in zip(first.groups, again.groups, strict=True):
        assert np.array_equal(one.outer, other.outer)


def test_noise_and_images_are_measured_on_actors_once(scorer, monkeypatch, tmp_path):
    shards = Shards.open(digits_shards())
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    there = [scorer.noise((1, 8, 8), 1100), scorer.reference(shards)]
    monkeypatch.setattr(scorer.pool, "noise", lambda *_: pytest.fail("made twice"))
    monkeypatch.setattr(scorer.pool, "read", lambda *_: pytest.fail("read twice"))
    again = [scorer.noise((1, 8, 8), 1100), scorer.reference(shards)]
    for one, other in zip(there, again, strict=True):
        assert np.array_equal(one.outer, other.outer)
    prepare_statistics(OPENER, ACTORS, shards.folder, shards.manifest)
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "another"))
    here = LocalScorer(torch.device("cpu"), OPENER("cpu"))
    alike(there[0], here.noise((1, 8, 8), 1100))
    alike(there[1], here.reference(shards))


def test_a_pool_reads_shards_alone(scorer):
    one = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match="reads folders of shards, not ImageSet"):
        scorer.reference(ImageSet(one, torch.zeros(1, dtype=torch.int64), (), "", ""))


def test_of_a_large_reference_pairs_are_made_with_a_part(pool, monkeypatch, tmp_path):
    """Statistics are of all images; features and pixels of the first rows, which lie in a random order."""
    folder, extractor = digits_shards(), OPENER("cpu")
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr("cm_ray.cluster.pool.reference.MOST_SAMPLES", 300)
    manifest = Manifest.load(folder)
    found = reference_set(pool, folder, manifest, extractor, {"statistics", "features", "images"})
    rows, _ = read_rows(folder / manifest.shards[0].file, 0, 300, manifest.shape)
    rows = torch.from_numpy(rows.copy())
    assert found.drawn_from == found.groups[0].n == 1797
    assert torch.equal(found.images, rows)
    torch.testing.assert_close(found.features, extractor.features(rows).float(), rtol=1e-5, atol=1e-5)
    labels = load_all(folder, manifest)[1][manifest.places()[:300]]
    assert len(set(labels.tolist())) == 10
    again = reference_set(pool, folder, manifest, extractor, {"features"})
    assert torch.equal(again.features, found.features)


def test_too_little_memory_of_an_actor_is_told_once(ray_cluster, folder, request_of_70, tmp_path):
    with SamplerPool(open_hungry, Actors(count=1, cpus=0.5)) as pool:
        scorer = PoolScorer(pool, HungryExtractor(), tmp_path / "work")
        with pytest.raises(UserError, match=r"features of \d+ images at a time need more memory .*lower"):
            scorer.sampled(folder, request_of_70)
