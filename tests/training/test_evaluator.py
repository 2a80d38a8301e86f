"""The workers of a training share the samples of a score; one, two and three of them make the same."""

import threading

import numpy as np
import pytest
import torch

from cm_ray.data.load_images import load_images
from cm_ray.evaluation.reference import kept_statistics, reference_statistics
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.formats.reading import load_model
from cm_ray.settings.tree import override
from cm_ray.training.batch import Share
from cm_ray.training.communication import SingleWorker
from cm_ray.training.evaluator import Evaluator

CPU = torch.device("cpu")


class Threads:
    """Communication between workers that are threads of this process."""

    def __init__(self, world):
        self.world, self.gate, self.given = world, threading.Barrier(world, timeout=60), {}

    def worker(self, rank):
        return _Worker(self, rank)


class _Worker(SingleWorker):
    def __init__(self, threads, rank):
        self.threads, self.rank = threads, rank

    def _all(self, value):
        self.threads.given[self.rank] = value
        self.threads.gate.wait()
        everyone = [self.threads.given[rank] for rank in range(self.threads.world)]
        self.threads.gate.wait()
        return everyone

    def broadcast(self, value):
        return self._all(value)[0]

    def sum(self, value):
        return torch.stack(self._all(value)).sum(0, dtype=value.dtype)


def on_workers(world, work):
    """Return what `work(share, communication)` returns on each of the workers."""
    threads, found = Threads(world), {}

    def run(rank):
        try:
            found[rank] = work(Share(rank, world), threads.worker(rank))
        except BaseException:
            threads.gate.abort()
            raise

    each = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    return [found[rank] for rank in range(world)]


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def recipe(averaged_run):
    changes = {"samples": 90, "grid": 3, "batch_size": 16, "samplers": ("one-step", "multistep@0.8")}
    return override(averaged_run.config(), {f"evaluation.{name}": value for name, value in changes.items()})


def evaluated(recipe, digits, model, folder, world):
    def work(share, communication):
        evaluator = Evaluator(recipe, digits, CPU, share, communication)
        return evaluator.evaluate(load_model(model), 7, folder / str(share.world))

    return on_workers(world, work)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_score_what_one_does(world, recipe, digits, averaged_run, tmp_path):
    reference_statistics(digits, open_extractor("digits"))  # shared by the tests of this run
    (alone,) = evaluated(recipe, digits, averaged_run.model, tmp_path, 1)
    first, *others = evaluated(recipe, digits, averaged_run.model, tmp_path, world)
    assert others == [[]] * (world - 1), "rank 0 alone has the scores"
    assert [score.key for score in first] == [score.key for score in alone]
    assert [score.key["n"] for score in alone] == [90, 90]
    for ours, theirs in zip(first, alone, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    grids = [(tmp_path / str(each) / "step-00000007.png").read_bytes() for each in (1, world)]
    assert grids[0] == grids[1]


def test_every_worker_makes_its_share(recipe, digits, averaged_run, tmp_path, monkeypatch):
    made, lock = {}, threading.Lock()

    def counting(model, request, first, count):
        with lock:
            mine = made.setdefault(threading.current_thread().name, [])
            mine.append((request.count, first, count))
        return original(model, request, first, count)

    from cm_ray.training import evaluator

    original = evaluator.sample_unit
    monkeypatch.setattr(evaluator, "sample_unit", counting)
    evaluated(recipe, digits, averaged_run.model, tmp_path, 2)
    samples = [sum(count for n, _, count in units if n == 90) for units in made.values()]
    assert sorted(samples) == [2 * 42, 2 * 48], "units of 16 of 90, for two samplers"
    assert [sum(count for n, _, count in units if n == 9) for units in made.values()] in ([5, 4], [4, 5])


def test_the_reference_is_shared_and_kept(digits, recipe, monkeypatch, tmp_path):
    """Each worker reads every second block; the sum is that of all images, and is in the cache."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path))
    extractor = open_extractor("digits")
    monkeypatch.setattr("cm_ray.data.image_set.rows_per_group", lambda shape: 200)

    def work(share, communication):
        return Evaluator(recipe, digits, CPU, share, communication).reference

    first, second = on_workers(2, work)
    assert second is None
    kept = kept_statistics(digits, extractor)
    assert kept.n == first.n == 1797
    assert np.array_equal(kept.outer, first.outer)
    whole = extractor.features(digits.images).double()
    np.testing.assert_allclose(first.outer, (whole.T @ whole).numpy(), rtol=1e-6)
