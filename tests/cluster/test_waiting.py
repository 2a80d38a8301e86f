"""Nodes that are missing are asked for and waited for; work never goes on on another device meanwhile."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cm_ray import recipes
from cm_ray.cluster.editing.edit_files import edit
from cm_ray.cluster.evaluation.evaluate import evaluate
from cm_ray.cluster.pool.sizing import actors_for
from cm_ray.cluster.runtime import waiting
from cm_ray.cluster.runtime.plan import Shortage
from cm_ray.cluster.runtime.waiting import planned_when_nodes_suffice, reserved, span
from cm_ray.cluster.sweeps.run_sweep import sweep
from cm_ray.cluster.time_points.find import find_time_points
from cm_ray.cluster.training.fit import plan_training
from cm_ray.cluster.training.run import train
from cm_ray.command_line.settings.edit import Editing
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.errors import UserError
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.runs.resources import Resources
from cm_ray.settings.tree import override
from cm_ray.sweeps.options import Sweep
from tests.api.conftest import TINY
from tests.cluster.hosts import Host, occupied
from tests.cluster.tiny import make_tiny_run
from tests.cluster.tiny_spaces import GRID, write_space
from tests.waiting import wait_for

ON_GPUS = Resources(device="cuda", workers=1, threads=1)


def demands(ray):
    """Return the bundles of all placement groups that wait."""
    groups = ray.util.placement_group_table().values()
    return [bundle for group in groups if group["state"] == "PENDING" for bundle in group["bundles"].values()]


def test_times_in_sentences():
    assert [span(each) for each in (0.4, 90, 1800)] == ["0 s", "90 s", "30 min"]


@pytest.mark.ray
def test_a_run_that_began_on_gpus_waits_for_them(ray_cluster, tmp_path, capsys):
    """Clusters that start nodes on demand see the request; a node with a GPU ends the wait."""
    cluster = ClusterSettings(wait_for_nodes="10m")
    with pytest.raises(Shortage, match="The run began on GPUs"):
        plan_training(replace(cluster, wait_for_nodes="0"), ON_GPUS)
    assert not demands(ray_cluster), "what is refused is not asked for"
    plans, hosts = [], []
    thread = threading.Thread(target=lambda: plans.append(plan_training(cluster, ON_GPUS)))
    thread.start()
    try:
        wait_for(lambda: demands(ray_cluster), "a request for a GPU")
        assert demands(ray_cluster) == [{"CPU": 1.0, "GPU": 1.0}]
        hosts.append(Host(ray_cluster, CPU=2, GPU=1))
        thread.join()
        assert plans[0].use_gpu
        assert actors_for(ActorSettings(), tmp_path / "a").device == "cuda"
        assert Resources.load(tmp_path / "a").device == "cuda"
    finally:
        for host in hosts:
            host.kill()
    wait_for(lambda: not hosts[0].is_alive(), "the end of the node")
    with pytest.raises(UserError, match="The work was begun on GPUs"):
        actors_for(ActorSettings(), tmp_path / "a")
    assert actors_for(ActorSettings(use_gpu="no"), tmp_path / "a").device == "cpu", "if it is said"
    said = capsys.readouterr().err
    assert "waiting for nodes, up to 10 min more: The run began on GPUs: 1 workers need a GPU each" in said
    assert "is done again on CPUs" in said


@pytest.mark.ray
def test_a_wait_for_nodes_ends_with_a_sentence(ray_cluster, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "EVERY_S", 0.6)

    def plan():
        raise Shortage("99 workers need a CPU core each and the cluster has 2", "lower it", [{"CPU": 99}])

    with pytest.raises(UserError, match="cluster has 2, 2 s later, too; add nodes and run the same command"):
        planned_when_nodes_suffice(plan, 2.0)
    said = capsys.readouterr().err.splitlines()
    assert "waiting for nodes, up to 2 s more: 99 workers" in said[0]
    assert len(said) > 1, "it is repeated"
    assert not demands(ray_cluster)


@pytest.mark.ray
def test_resources_that_others_use_are_waited_for(ray_cluster, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "SOON_S", 0.2)
    monkeypatch.setattr(waiting, "EVERY_S", 0.5)
    bundles, entered = [{"CPU": 0.75}, {"CPU": 0.75}], threading.Event()

    def enter():
        with reserved(bundles, "SPREAD"):
            entered.set()

    with occupied(ray_cluster, 1.5):
        with pytest.raises(UserError, match=r"Other jobs of the cluster have used 2 x 0.75 CPU for 1 s"):
            reserved(bundles, "SPREAD", 1.0).__enter__()
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(1.0)
    assert entered.wait(60)
    thread.join()
    assert "waiting for 2 x 0.75 CPU, which other jobs of the cluster use" in capsys.readouterr().err


def score(run, place):
    evaluate(Evaluation(source=str(run.root), run_dir=str(place), tracking_uri="none", samples=40))


def search(run, place):
    find_time_points(TimePointSearch(model=str(run.root), run_dir=str(place), tracking_uri="none"))


def edits(run, place):
    images = place.parent / "images"
    images.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(images / "a.png")
    edit(Editing(task="upscale", model=str(run.root), image=str(images), out=place))


def training(run, place):
    train(override(recipes.ict_digits(), {**TINY, "steps": 2, "run_dir": str(place)}))


def swept(run, place):
    space = write_space(place.parent, GRID)
    sweep(Sweep(space=str(space), run_dir=str(place), tracking_uri="none", scheduler="none"), {})


@pytest.mark.ray
@pytest.mark.parametrize(
    ("job", "where"),
    [
        (score, "evaluation-work"),
        (search, "search-work"),
        (edits, "editing-work"),
        (training, "."),
        (swept, "."),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_no_job_that_began_on_gpus_goes_on_on_cpus(job, where, ray_cluster, tmp_path):
    """The rest of a job that was interrupted on a cluster with GPUs meets a cluster without."""
    run = make_tiny_run(tmp_path / "tiny")
    place = tmp_path / "jobs" / "place"
    ON_GPUS.save(place / where)
    with pytest.raises(UserError, match=r"beg[au]n on GPUs: .* wait_for_nodes|wait for nodes with"):
        job(run, place)
    assert Resources.load(place / where) == ON_GPUS
    assert os.listdir(place / where), "nothing of it is forgotten"
