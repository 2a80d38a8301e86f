"""Nodes that a cloud takes back, after a notice; and failures, which count since the last checkpoint."""

import contextlib
import threading
import time
from dataclasses import replace

import pytest
import torch
from ray.train import PreemptionInfo
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cm_ray import recipes
from cm_ray.cluster.runtime.nodes import live_nodes, node_resources
from cm_ray.cluster.runtime.plan import plan_workers
from cm_ray.cluster.training import fit as fits
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.cluster.training.workers import RayWorkers, TrainingTask
from cm_ray.errors import UserError
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.training.batch import Share
from cm_ray.training.specification import model_spec
from tests.cluster.hosts import Host, host, occupied
from tests.cluster.light_actors import Worker
from tests.cluster.test_trainer import SMALL
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

ENDLESS = SMALL | {
    "steps": 1_000_000,
    "log_every": 1,
    "checkpoint.every": 1_000_000,
    "evaluation.every": 0,
    "cluster.max_failures": 0,
}
"""A training that makes no checkpoint by itself."""


def task_of(folder, changes):
    config = override(recipes.ict_digits(), changes)
    shards, manifest = prepare_shards(config.data)
    run = RunDirectory(folder)
    run.root.mkdir(exist_ok=True)
    plan = plan_workers(config.cluster, node_resources())
    return TrainingTask(
        config=config, spec=model_spec(config, manifest), plan=plan, run=run, shards=shards, stoppable=True
    )


def drain(ray, node, seconds):
    """Announce the end of a node, as a cluster's autoscaler does when a cloud gives notice."""
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    accepted, reason = client.drain_node(
        node,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "a test",
        time.time_ns() // 1_000_000 + seconds * 1000,
    )
    assert accepted, reason


def test_plans_leave_out_a_node_that_will_be_taken_away(ray_cluster):
    """An actor keeps it from ending at once, as an idle node does."""
    kind = ray_cluster.remote(num_cpus=1, max_restarts=0)(Worker)
    with host(ray_cluster, CPU=1) as leaving:
        there = NodeAffinitySchedulingStrategy(leaving.id, soft=False)
        actor = kind.options(scheduling_strategy=there).remote()
        assert ray_cluster.get(actor.started.remote()) == leaving.id
        assert leaving.id in live_nodes()
        drain(ray_cluster, leaving.id, seconds=600)
        wait_for(lambda: leaving.id not in live_nodes(), "the notice")
        assert ray_cluster.get(actor.started.remote()) == leaving.id, "it lives"


def test_workers_hear_which_nodes_leave(monkeypatch):
    workers = RayWorkers(Share(), torch.device("cpu"))
    infos = iter([None, PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"b": [1], "a": [0]})])
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: next(infos))
    assert [workers.leaving_nodes() for _ in range(2)] == [frozenset(), frozenset("ab")]


@pytest.mark.slow
def test_a_node_that_is_taken_back_loses_no_step_before_its_notice(
    ray_cluster, tmp_path, monkeypatch, capsys
):
    """One training on Ray Train that starts twice; the quick form is tests/training/test_notices.py."""
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")
    task = task_of(tmp_path, ENDLESS)
    store, steps = CheckpointStore(task.run.checkpoints, 2), []
    hosts = [Host(ray_cluster, CPU=2)]
    training = threading.Thread(target=fits.fit, args=(task,))
    with occupied(ray_cluster, 2):
        try:
            training.start()
            wait_for(task.run.read_metrics, "the first step")
            drain(ray_cluster, hosts[0].id, seconds=20)
            hosts.append(Host(ray_cluster, CPU=2))
            wait_for(store.steps, "a checkpoint")
            steps += store.steps()
            hosts[0].kill()
            wait_for(lambda: "the training goes on" in capsys.readouterr().err, "another start")
            task.run.stop_file.touch()
            training.join()
        finally:
            task.run.stop_file.touch()
            for host in hosts:
                host.kill()
    assert 1 <= steps[0] < ENDLESS["steps"]
    rows = [row["step"] for row in task.run.read_metrics()]
    assert rows == list(range(1, rows[-1] + 1)), "what came after the checkpoint was repeated"
    assert rows[-1] > steps[0]


def test_failures_count_since_the_last_checkpoint(ray_cluster, tmp_path, monkeypatch):
    """One allowed failure means any number with a checkpoint in between, but no two without."""
    task, attempts = task_of(tmp_path, SMALL | {"cluster.max_failures": 1}), []
    progress = {1: 10, 2: 20, 3: 30}

    def attempt(task):
        attempts.append(task)
        with contextlib.suppress(KeyError):
            reached.append(progress[len(attempts)])
        raise WorkerGroupError("died", {0: RuntimeError("a broken worker")})

    reached = [0]
    monkeypatch.setattr(fits, "_attempt", attempt)
    monkeypatch.setattr(fits, "_last_step", lambda task: reached[-1])
    with pytest.raises(UserError, match=r"failed 2 times without a new checkpoint.*resume from step 30"):
        fits.fit(replace(task, stoppable=False))
    assert len(attempts) == 4
