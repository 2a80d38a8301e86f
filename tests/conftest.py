"""The tests share one Ray cluster, a cache of their own, the data beside the checkout."""

import os
import shutil
import tempfile

import pytest
import torch

from cm_ray.own_code import forgotten_afterwards
from tests.absent import shared


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the tests marked slow and exhaustive, too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all"):
        chosen, others = [], []
        for item in items:
            (others if {"slow", "exhaustive"} & set(item.keywords) else chosen).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = chosen
    for item in items:
        if "ray_cluster" in item.fixturenames:
            item.add_marker("ray")
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))
    # Tests with clusters of their own come first: the shared one, once started, stays to the end.
    items.sort(key=lambda item: "ray_cluster" in item.fixturenames)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests are repeatable and leave the other core to Ray."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_code_is_forgotten():
    """Code of one's own that a test names is not named in the next one."""
    with forgotten_afterwards():
        yield


@pytest.fixture(scope="session", autouse=True)
def test_cache(tmp_path_factory):
    """A cache for the test run: the classifier of digits is trained once, nothing of the user's is used."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the one that all workers share
    folder = folder / "test-cache"
    before = os.environ.get("CM_RAY_CACHE")
    os.environ["CM_RAY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["CM_RAY_CACHE"]
    else:
        os.environ["CM_RAY_CACHE"] = before


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster of two CPUs in this process's hands, with a short temporary folder of its own."""
    ray = pytest.importorskip("ray")
    from cm_ray.cluster.runtime.connect import connected
    from tests.cluster.processes import LEAN

    folder = tempfile.mkdtemp(prefix="cmr", dir="/tmp")
    os.environ.update(LEAN, RAY_TMPDIR=folder)
    os.environ.pop("RAY_ADDRESS", None)
    with connected():
        yield ray
    os.environ.pop("RAY_TMPDIR")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def trains_here(monkeypatch):
    """Let the worker of a training on Ray be this process, for tests that need what a training leaves."""
    from cm_ray.cluster.training import fit
    from tests.cluster.training_here import scaling_here

    monkeypatch.setattr(fit, "ScalingConfig", scaling_here)
    yield
    torch.set_num_threads(1)  # the worker has set as many as its plan says


@pytest.fixture(scope="session")
def cifar10():
    """The folder of the real CIFAR-10, in the Parquet layout of the Hugging Face hub."""
    return shared("data", "cifar10", reason="the real CIFAR-10 is not beside this checkout")


@pytest.fixture(scope="session")
def averaged_run(tmp_path_factory):
    """The directory of a run of 24 steps with power-function averages; do not write to it."""
    from tests.averaged import train_averaged

    return train_averaged(tmp_path_factory.mktemp("averaged") / "run")


@pytest.fixture(scope="session")
def store_server():
    """An S3-compatible server on the loopback."""
    pytest.importorskip("moto")
    from tests.remote.store_server import StoreServer

    server = StoreServer()
    yield server
    server.stop()


@pytest.fixture
def store(store_server, monkeypatch):
    """The server, with its credentials in the environment."""
    for name, value in store_server.environment.items():
        monkeypatch.setenv(name, value)
    return store_server
