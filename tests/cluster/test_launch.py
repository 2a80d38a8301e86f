"""The plan of resources fits the cluster, or says in a sentence why it cannot."""

import pytest

from cm_ray.cluster.launch import DATA_CPUS, plan
from cm_ray.config import ClusterConfig
from cm_ray.errors import UserError


@pytest.mark.parametrize("cpus", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("gpus", [0, 64])
def test_ray_data_always_has_its_share(cpus, workers, gpus):
    if workers > cpus:
        with pytest.raises(UserError, match=f"{workers} workers need a CPU core each and the cluster has"):
            plan(ClusterConfig(num_workers=workers), {"CPU": float(cpus), "GPU": gpus})
        return
    made = plan(ClusterConfig(num_workers=workers), {"CPU": float(cpus), "GPU": gpus})
    assert made.use_gpu == bool(gpus)
    assert made.cpus_per_worker > 0
    assert workers * made.cpus_per_worker + DATA_CPUS <= cpus
    assert 1 <= made.threads <= cpus


def test_two_cores_one_or_two_workers():
    one = plan(ClusterConfig(), {"CPU": 2.0})
    assert (one.cpus_per_worker, one.threads) == (1.0, 2)
    two = plan(ClusterConfig(num_workers=2), {"CPU": 2.0})
    assert (two.cpus_per_worker, two.threads) == (0.5, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClusterConfig(use_gpu="yes"), "1 workers need a GPU each and the cluster has 0"),
        (ClusterConfig(num_workers=2, cpus_per_worker=1), "leave nothing of the cluster's 2 to Ray Data"),
        (ClusterConfig(num_workers=3), "lower --num-workers"),
    ],
)
def test_impossible_plans(config, message):
    with pytest.raises(UserError, match=message):
        plan(config, {"CPU": 2.0})


def test_a_few_gpus_are_not_taken_for_all():
    assert not plan(ClusterConfig(num_workers=2), {"CPU": 8.0, "GPU": 1}).use_gpu
