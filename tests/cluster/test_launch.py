"""The plan of resources fits the cluster, or says in a sentence why it cannot."""

import pytest

from cm_ray.cluster.runtime.plan import DATA_CPUS, Shortage, changes_of, plan_workers, possible_plans
from cm_ray.errors import UserError
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.runs.resources import Resources


@pytest.mark.parametrize("cpus", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("gpus", [0, 64])
def test_ray_data_always_has_its_share(cpus, workers, gpus):
    if workers > cpus:
        with pytest.raises(UserError, match=f"{workers} workers need a CPU core each and the cluster has"):
            plan_workers(ClusterSettings(num_workers=workers), [{"CPU": float(cpus), "GPU": gpus}])
        return
    made = plan_workers(ClusterSettings(num_workers=workers), [{"CPU": float(cpus), "GPU": gpus}])
    assert made.use_gpu == bool(gpus)
    assert made.cpus_per_worker > 0
    assert workers * (made.cpus_per_worker + DATA_CPUS) <= cpus
    assert made.whole_bundle["CPU"] == made.cpus_per_worker + DATA_CPUS
    assert 1 <= made.threads <= cpus


def test_two_cores_one_or_two_workers():
    one = plan_workers(ClusterSettings(), [{"CPU": 2.0}])
    assert (one.cpus_per_worker, one.threads) == (1.0, 2)
    two = plan_workers(ClusterSettings(num_workers=2), [{"CPU": 2.0}])
    assert (two.cpus_per_worker, two.threads) == (0.5, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClusterSettings(use_gpu="yes"), "1 workers need a GPU each and the cluster has 0"),
        (ClusterSettings(num_workers=2, cpus_per_worker=1), "leave too little of a node's CPUs to Ray Data"),
        (ClusterSettings(num_workers=3), "lower cluster.num_workers"),
    ],
)
def test_impossible_plans(config, message):
    with pytest.raises(UserError, match=message):
        plan_workers(config, [{"CPU": 2.0}])


def test_a_missing_gpu_never_makes_a_run_on_cpus():
    """Neither at the first start, where the cluster has GPUs but too few, nor later, where it has none."""
    with pytest.raises(
        Shortage, match=r"2 workers need a GPU each and the cluster has 1; .*wait_for_nodes"
    ) as few:
        plan_workers(ClusterSettings(num_workers=2), [{"CPU": 8.0, "GPU": 1}])
    assert few.value.bundles == [{"CPU": 1.0, "GPU": 1.0}] * 2
    before = Resources(device="cuda", workers=1, threads=8)
    with pytest.raises(
        Shortage, match="The run began on GPUs: 1 workers need a GPU each and the cluster has 0"
    ):
        plan_workers(ClusterSettings(), [{"CPU": 8.0}], before)
    there = plan_workers(ClusterSettings(), [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 2}], before)
    assert there.resources.device == "cuda"


def test_a_run_goes_on_as_it_began_unless_the_settings_say_otherwise():
    before, nodes = Resources(device="cpu", workers=1, threads=3), [{"CPU": 8.0, "GPU": 4}]
    same = plan_workers(ClusterSettings(), nodes, before)
    assert same.resources == before
    assert changes_of(before, same.resources) == ""
    other = plan_workers(ClusterSettings(use_gpu="yes", num_workers=2), nodes, before)
    assert changes_of(before, other.resources) == "GPUs instead of CPUs, 2 workers instead of 1"
    threads = plan_workers(ClusterSettings(threads=5), nodes, before)
    assert changes_of(before, threads.resources) == "5 threads a worker instead of 3"
    back = plan_workers(ClusterSettings(use_gpu="no"), [{"CPU": 8.0}], Resources(device="cuda"))
    assert not back.use_gpu


def test_a_range_of_workers_takes_as_many_as_fit():
    config, nodes = ClusterSettings(num_workers="2:8"), [{"CPU": 2.0}] * 3
    plan = plan_workers(config, nodes)
    assert [each.num_workers for each in possible_plans(config, nodes)] == [4, 2]
    assert (plan.num_workers, plan.resources.workers, plan.resources.least) == (4, 8, 2)
    assert str(plan).startswith("4 workers of 2, 4 or 8 (CPU, 1 threads each")
    alone = plan_workers(config, [{"CPU": 16.0}, {"CPU": 16.0}], plan.resources)
    assert (alone.num_workers, alone.threads) == (8, 1), "threads stay, too"
    assert changes_of(plan.resources, alone.resources) == ""
    with pytest.raises(Shortage, match="2 workers need a CPU core each and the cluster has 1") as few:
        plan_workers(config, [{"CPU": 1.0}])
    assert few.value.bundles == [{"CPU": 1.0}] * 2, "the fewest are asked for"
    fixed = plan_workers(ClusterSettings(num_workers=8), [{"CPU": 8.0}], plan.resources)
    assert changes_of(plan.resources, fixed.resources) == "8 workers instead of 2 to 8 workers"


def test_workers_are_spread_over_nodes_where_one_could_take_too_many():
    """They share as few nodes as they can on GPUs, since these talk faster among themselves."""
    assert plan_workers(ClusterSettings(num_workers=2), [{"CPU": 1.0}] * 2).strategy == "SPREAD"
    assert plan_workers(ClusterSettings(num_workers=4), [{"CPU": 16.0, "GPU": 8}] * 2).strategy == "PACK"
    few_cores = [{"CPU": 2.0, "GPU": 8}] * 2
    assert plan_workers(ClusterSettings(num_workers=4), few_cores).strategy == "SPREAD"


def test_every_node_keeps_a_share_for_ray_data():
    eight = plan_workers(ClusterSettings(num_workers=8), [{"CPU": 4.0, "GPU": 1}] * 8)
    assert (eight.use_gpu, eight.cpus_per_worker) == (True, 3.0)
    one = plan_workers(ClusterSettings(), [{"CPU": 8.0}] * 4)
    assert one.threads == 8, "the node's cores, not the cluster's"
    single = plan_workers(ClusterSettings(num_workers=3), [{"CPU": 1.0}] * 3)
    assert single.cpus_per_worker == 0.5
    with pytest.raises(UserError, match="4 workers need a CPU core each"):
        plan_workers(ClusterSettings(num_workers=4), [{"CPU": 1.0}] * 3)
