"""Nodes come and go under a training with a range of workers: it ends with the bits of an undisturbed one."""

import itertools
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch

from cm_ray.cluster.data.stream import rebatched
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import possible_plans
from cm_ray.cluster.training import elastic
from cm_ray.cluster.training.elastic import growing, roomiest
from cm_ray.cluster.training.fit import fit
from cm_ray.cluster.training.workers import RayWorkers
from cm_ray.data.shards.manifest import Manifest
from cm_ray.data.shards.order import read_unit, stream_units
from cm_ray.errors import UserError
from cm_ray.own_code import allow
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine
from cm_ray.training.ordered_sum import OrderedMean
from tests.cluster.hosts import Host, host, occupied
from tests.cluster.test_preemption import task_of
from tests.cluster.test_trainer import SMALL
from tests.slow_network import SlowNetwork
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

SLOW = "tests.slow_network:SlowNetwork"
RANGE = {name: value for name, value in SMALL.items() if not name.startswith("network.")} | {
    "network": "custom",
    "network.path": SLOW,
    "steps": 60,
    "batch_size": 128,
    "log_every": 1,
    "checkpoint.every": 10,
    "evaluation.every": 0,
    "data.cache": "stream",
    "cluster.num_workers": "1:2",
}
"""A training of a minute with short epochs, of 14 batches each."""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(elastic, "EVERY_S", 0.2)
    allow(SLOW)


def plans_now():
    return possible_plans(ClusterSettings(num_workers="1:2", threads=1), node_resources())


def test_as_many_workers_start_as_there_is_room_for(ray_cluster, capsys):
    assert roomiest(plans_now(), 10).num_workers == 2
    with occupied(ray_cluster, 0.7):
        assert [plan.num_workers for plan in plans_now()] == [2, 1], "the nodes would have room for two"
        assert roomiest(plans_now(), 10).num_workers == 1
    with occupied(ray_cluster, 2), pytest.raises(UserError, match="Other jobs of the cluster have used"):
        roomiest(plans_now(), 0.1)
    assert "waiting for 1 x 1.25 CPU, which other jobs of the cluster use" in capsys.readouterr().err


def test_workers_hear_of_room_when_a_node_comes(ray_cluster, tmp_path):
    with occupied(ray_cluster, 0.7):
        task = task_of(tmp_path, RANGE)
        task = replace(task, plan=roomiest(plans_now(), 10))
        with growing(task) as grown:
            rank_0 = RayWorkers(Share(), torch.device("cpu"), wish=grown.wish)
            rank_0.broadcast = lambda value: value
            assert not rank_0.has_room()
            with host(ray_cluster, CPU=1):
                wait_for(rank_0.has_room, "the wish for more workers")
        wait_for(lambda: not rank_0.has_room(), "the end of the wish with its attempt")
        with growing(replace(task, plan=plans_now()[0])) as whole:
            assert whole.wish is None, "there cannot be more"


def undisturbed(task):
    """Return the state at the end of the same training in one engine that reads what two workers would."""
    config, manifest = task.config, Manifest.load(task.shards)

    def rows(rank):
        units = stream_units(manifest, seed=config.seed, rank=rank, world=2, batch_per_worker=64)
        read = (map(torch.from_numpy, read_unit(task.shards, unit, manifest.shape)) for unit in units)
        return rebatched((Batch(images, labels.long()) for images, labels in read), 64)

    share = Share(0, 1, most=2)
    ordered = partial(OrderedMean, workers=WorkerRange(1, 2), accumulate=1, share=share, total=None)
    made = Engine(config, task.spec, share=share, ordered=ordered)
    SlowNetwork.seconds = 0.0  # in this process
    for parts in itertools.islice(zip(rows(0), rows(1), strict=True), config.steps):
        images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        made.one_step(Batch(images, labels))
    return made.checkpoint().tensors


@pytest.mark.slow
def test_a_training_grows_and_shrinks_to_the_same_bits(ray_cluster, tmp_path, capsys):
    """One node; another one comes; the first one dies; its place stays empty to the end."""
    task, hosts, plans = task_of(tmp_path, RANGE), [], []
    training = threading.Thread(target=lambda: plans.append(fit(task)))

    def last():
        return max((row["step"] for row in task.run.read_metrics()), default=0)

    with occupied(ray_cluster, 2):
        try:
            hosts.append(Host(ray_cluster, CPU=1))
            training.start()
            wait_for(last, "the first step")
            hosts.append(Host(ray_cluster, CPU=1))
            wait_for(lambda: said(capsys, "starting 2 workers"), "two workers")
            grown = last()
            wait_for(lambda: last() > grown + 5, "steps of two workers")
            hosts[0].kill()
            training.join()
        finally:
            task.run.stop_file.touch()
            for each in hosts:
                each.kill()
    assert plans[0].num_workers == 1
    text = said(capsys, "")
    assert "there is room for more workers; the training goes on from step" in text
    assert text.index("starting 2 workers") < text.index("workers died") < text.rindex("starting 1 worker;")
    found, expected = CheckpointStore(task.run.checkpoints, 2).load(60).tensors, undisturbed(task)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [row["step"] for row in task.run.read_metrics() if "loss" in row] == list(range(1, 61))


SAID = []


def said(capsys, text):
    """Return what the training has said since the test began, if a text is in it."""
    SAID.append(capsys.readouterr().err)
    everything = "".join(SAID)
    return everything if text in everything else ""
