"""The plan of resources fits the cluster, or says in a sentence why it cannot."""

import pytest

from cm_ray.cluster.runtime.connect import DATA_CPUS, plan_workers
from cm_ray.errors import UserError
from cm_ray.recipes.sections import ClusterSettings


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
    assert workers * made.cpus_per_worker + DATA_CPUS <= cpus
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
        (ClusterSettings(num_workers=2, cpus_per_worker=1), "leave nothing of a node's CPUs to Ray Data"),
        (ClusterSettings(num_workers=3), "lower cluster.num_workers"),
    ],
)
def test_impossible_plans(config, message):
    with pytest.raises(UserError, match=message):
        plan_workers(config, [{"CPU": 2.0}])


def test_a_few_gpus_are_not_taken_for_all():
    assert not plan_workers(ClusterSettings(num_workers=2), [{"CPU": 8.0, "GPU": 1}]).use_gpu


def test_every_node_keeps_a_share_for_ray_data():
    eight = plan_workers(ClusterSettings(num_workers=8), [{"CPU": 4.0, "GPU": 1}] * 8)
    assert (eight.use_gpu, eight.cpus_per_worker) == (True, 3.0)
    one = plan_workers(ClusterSettings(), [{"CPU": 8.0}] * 4)
    assert one.threads == 8, "the node's cores, not the cluster's"
    single = plan_workers(ClusterSettings(num_workers=3), [{"CPU": 1.0}] * 3)
    assert single.cpus_per_worker == 0.5
    with pytest.raises(UserError, match="4 workers need a CPU core each"):
        plan_workers(ClusterSettings(num_workers=4), [{"CPU": 1.0}] * 3)
