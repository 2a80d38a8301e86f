"""Samples and features on Ray do not depend on who makes them, nor on who dies meanwhile."""

import dataclasses
import os
import signal
import threading
from functools import partial

import numpy as np
import pytest
import torch

from cm_ray.cluster.pool import supervisor
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import Actors, plan_actors
from cm_ray.cluster.runtime.plan import Shortage
from cm_ray.data.shards.manifest import Manifest, load_all
from cm_ray.data.shards.shard_file import write_shard
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.runs.resources import Resources
from tests.cluster.tiny import save_tiny

OPENER = partial(open_extractor, "digits")
ALL = frozenset(["images", "features", "statistics"])
HALF_CORE = Actors(count=1, cpus=0.5)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


def request(model_folder, sampler="multistep@2.0", **changes):
    sampler = sampler_of(load_model(model_folder).spec, sampler)
    return Request(**({"count": 100, "seed": 3, "sampler": sampler, "unit": 16} | changes))


def same(a, b):
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.features, b.features)
        and np.array_equal(a.statistics.outer, b.statistics.outer)
        and np.array_equal(a.statistics.total, b.statistics.total)
    )


@pytest.mark.ray
def test_actors_that_find_no_room_hold_nothing_up(ray_cluster, model_folder, monkeypatch, capsys):
    """The first of this file: `two_actors` would hold the room."""

    @ray_cluster.remote(num_cpus=1)
    class Other:
        def there(self):
            pass

    other = Other.remote()
    ray_cluster.get(other.there.remote())
    with SamplerPool(OPENER, Actors(count=2, cpus=1)) as pool:  # of two cores, one is taken
        result = pool.generate(pool.put(model_folder), request(model_folder), ALL)
        assert result.count == 100
        assert sum(place.ready for place in pool._supervisor._places) == 1
    monkeypatch.setattr(supervisor, "_PATIENCE_S", 0.5)
    with SamplerPool(OPENER, Actors(count=1, cpus=1.5)) as pool:
        threading.Timer(3, ray_cluster.kill, [other]).start()
        assert pool.generate(pool.put(model_folder), request(model_folder), ALL).count == 100
    assert "waiting for resources for 1 actors" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_actors(ray_cluster):
    """A pool for all tests that do not look at how it starts."""
    with SamplerPool(OPENER, dataclasses.replace(HALF_CORE, count=2)) as pool:
        yield pool


@pytest.mark.ray
def test_one_actor_and_two_make_the_same_bits(two_actors, model_folder):
    with SamplerPool(OPENER, HALF_CORE) as one_actor:
        made = [
            pool.generate(pool.put(model_folder), request(model_folder), ALL)
            for pool in (one_actor, two_actors)
        ]
    assert same(*made)
    images, _ = sample_all(load_model(model_folder), request(model_folder))
    assert torch.equal(made[0].images, images)
    assert made[0].count == 100
    assert made[0].seconds_per_1000 > 0
    whole = statistics_of(OPENER("cpu"), images)
    np.testing.assert_allclose(made[0].statistics.outer, whole.outer, rtol=1e-6)
    np.testing.assert_allclose(made[0].features.sum(0), whole.total, rtol=1e-5)


@pytest.mark.ray
def test_only_what_is_wanted_travels(two_actors, model_folder):
    put = two_actors.put(model_folder)
    result = two_actors.generate(put, request(model_folder), frozenset(["statistics"]))
    assert result.images is result.features is None
    assert result.statistics.n == 100
    with SamplerPool(None, HALF_CORE) as pool:
        result = pool.generate(pool.put(model_folder), request(model_folder), frozenset(["images"]))
    assert result.features is result.statistics is None
    assert result.images.shape == (100, 1, 8, 8)


@pytest.mark.ray
def test_images_of_shards_are_read_in_order(two_actors, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5000, 1, 8, 8)).astype(np.uint8)
    shards = [
        write_shard(tmp_path / f"shard-{i}.parquet", part, np.full(len(part), -1))
        for i, part in enumerate((images[:4500], images[4500:]))
    ]
    manifest = Manifest(
        shape=(1, 8, 8), class_names=(), source="x", recipe="x", skipped=0, shards=tuple(shards)
    )
    manifest.save(tmp_path)
    (result,) = two_actors.read(tmp_path, manifest, ALL)
    parts = two_actors.read(tmp_path, manifest, ALL, groups=3)
    assert [part.count for part in parts] == [1667, 1667, 1666]
    assert torch.equal(torch.cat([part.images for part in parts]), result.images)
    assert torch.equal(result.images, torch.from_numpy(load_all(tmp_path)[0]))
    assert result.statistics.n == 5000
    np.testing.assert_allclose(result.features.sum(0), result.statistics.total, rtol=1e-5)


@pytest.mark.ray
def test_an_actor_that_is_killed_changes_no_bit(ray_cluster, two_actors, model_folder):
    requests = [request(model_folder, "multistep:8", first=first, count=400) for first in (0, 400, 800)]
    pool = two_actors
    model = pool.put(model_folder)
    calm = dict(pool.generate_all(model, requests, ALL))
    pids = [ray_cluster.get(actor.__ray_call__.remote(lambda self: os.getpid())) for actor in pool.actors]
    done = []

    def progress(count, total):
        if len(done) == 5:
            os.kill(pids[0], signal.SIGKILL)
        done.append(count)

    killed = dict(pool.generate_all(model, requests, ALL, progress))
    after = ray_cluster.get(pool.actors[0].__ray_call__.remote(lambda self: os.getpid()))
    assert after != pids[0]
    assert done[-1] == 1200
    assert set(calm) == set(killed) == {0, 1, 2}
    assert all(same(calm[place], killed[place]) for place in calm)


@pytest.mark.ray
def test_errors_of_actors_are_the_users(ray_cluster, model_folder):
    with (
        SamplerPool(partial(open_extractor, "cifar-resnet20", weights="/nowhere"), HALF_CORE) as pool,
        pytest.raises(UserError, match="SHA-256"),
    ):
        pool.generate(pool.put(model_folder), request(model_folder), ALL)


@pytest.mark.ray
def test_an_actor_that_dies_for_ever_is_given_up(ray_cluster, model_folder):
    with (
        SamplerPool(lambda device: os._exit(1), HALF_CORE) as pool,
        pytest.raises(UserError, match="Actors died 4 times"),
    ):
        pool.generate(pool.put(model_folder), request(model_folder), ALL)


GPU_NODE, CPU_NODE = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0}


@pytest.mark.parametrize(
    ("config", "nodes", "expected"),
    [
        (ActorSettings(), [CPU_NODE], Actors(count=2, cpus=1)),
        (ActorSettings(), [GPU_NODE, CPU_NODE], Actors(count=2, cpus=1, gpus=1.0)),
        (ActorSettings(gpus_each=0.5), [GPU_NODE], Actors(count=4, cpus=1, gpus=0.5)),
        (
            ActorSettings(gpus_each=0.4),
            [GPU_NODE],
            Actors(count=4, cpus=1, gpus=0.4),
        ),  # two to a GPU, not five
        (ActorSettings(use_gpu="no"), [GPU_NODE], Actors(count=8, cpus=1)),
        (ActorSettings(count=3, cpus_each=2), [GPU_NODE | {"GPU": 0}], Actors(count=3, cpus=2, threads=2)),
    ],
)
def test_actors_fit_the_cluster(config, nodes, expected):
    assert plan_actors(config, nodes) == expected


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (ActorSettings(count=3), "3 actors with 1 CPUs and 0 GPUs each .* has room for 2"),
        (ActorSettings(cpus_each=4), "1 actor with 4 CPUs .* has room for 0"),
        (ActorSettings(use_gpu="yes"), "1 actor with 1 CPUs and 1 GPUs each .* has room for 0"),
        (ActorSettings(gpus_each=2), "actors.gpus_each must be in"),
        (ActorSettings(count=-1), "must not be negative"),
    ],
)
def test_actors_that_do_not_fit(config, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_actors(config, [CPU_NODE])


def test_actors_stay_on_the_device_that_their_work_began_on():
    on_gpus, on_cpus = Resources(device="cuda"), Resources(device="cpu")
    with pytest.raises(Shortage, match=r"The work was begun on GPUs: 1 actor .*wait_for_nodes") as lack:
        plan_actors(ActorSettings(), [CPU_NODE], on_gpus)
    assert lack.value.bundles == [{"CPU": 1.0, "GPU": 1.0}]
    assert plan_actors(ActorSettings(), [GPU_NODE], on_gpus).device == "cuda"
    assert plan_actors(ActorSettings(), [GPU_NODE], on_cpus).device == "cpu"
    assert plan_actors(ActorSettings(use_gpu="yes"), [GPU_NODE], on_cpus).device == "cuda"
    assert plan_actors(ActorSettings(use_gpu="no"), [CPU_NODE], on_gpus).device == "cpu"


def test_actors_say_what_they_are():
    assert str(Actors(count=1, cpus=1)) == "1 actor on a CPU core"
    assert str(Actors(count=2, cpus=2, threads=2)) == "2 actors on 2 CPU cores each"
    assert str(Actors(count=4, cpus=1, gpus=0.5)) == "4 actors on 0.5 of a GPU each"
