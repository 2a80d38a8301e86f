"""Runs at addresses on Ray: kills of workers and drivers, and hosts that share nothing but the store."""

import signal
from pathlib import Path

import pytest

from cm_ray.command_line.main import run as command
from cm_ray.data.shards.manifest import MANIFEST, Manifest, check_shards
from cm_ray.remote.mirror import Mirror
from cm_ray.remote.objects import Objects
from cm_ray.runs.remote_run import ORDER
from tests.cluster.processes import (
    SMALL,
    descendants,
    job,
    module_of_tests,
    reap,
    run,
    started,
    workers,
)
from tests.cluster.test_kills import outcome
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.ray

STEPS = 120
OPTIONS = [*SMALL, "--steps", STEPS, "--log-every", 5, "--checkpoint.every", 10, "--evaluation.every", 20]
OPTIONS += ["--num-workers", 2]


def training(address, *more):
    words = ["train", "ct_digits", *OPTIONS, "--run-dir", address, *more]
    return module_of_tests("tests.cluster.remote_training", *words)


def copied(address, folder):
    Mirror(Objects(address), folder, ORDER).pull(lambda key: True)
    return folder


def checkpoint_at(address, step, process):
    """Wait until the checkpoint of a step is complete at the address."""
    marker = f"checkpoints/step-{step:08d}/meta.json"
    wait_for(lambda: marker in Objects(address).list("checkpoints"), marker, process)


@pytest.mark.slow  # tests/remote has the quick form, of a trainer without Ray
def test_kills_of_a_worker_and_of_the_driver_change_no_bit(store, tmp_path, monkeypatch):
    """The hosts share nothing but the store: shards and the run are there, and their caches are apart."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    run(job("ct_digits.py", *OPTIONS, "--data.cache", "stream", "--run-dir", tmp_path / "local"))
    address, shards = f"{store.bucket()}/runs/digits", Objects(f"{store.bucket()}/shards")
    for file in (tmp_path / "cache").glob("shards/digits-*/*.*"):
        shards.write(file.name, file)
    data = ["--data", shards.address, "--data.cache", "stream"]
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "host1"))
    with started(training(address, *data)) as process:
        checkpoint_at(address, 20, process)
        workers(process.pid)[0].send_signal(signal.SIGKILL)
        checkpoint_at(address, 40, process)
        family = descendants(process.pid)
        process.kill()
        process.wait()
        reap(family)
    assert "result.json" not in Objects(address).list()
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "host2"))
    done = run(training(address, *data))
    assert not list(tmp_path.glob("host*/shards"))
    assert "resuming from step" in done.stderr
    assert f"finished: {address}/result.json" in done.stderr
    assert "scratch" not in done.stderr
    assert outcome(copied(address, tmp_path / "remote"), STEPS) == outcome(tmp_path / "local", STEPS)
    wrote = [path for path in store.requests("PUT") if f"checkpoints/step-{STEPS:08d}" in path]
    assert len(wrote) == len(set(wrote)) == 2


@pytest.mark.slow  # tests/remote has the quick form, of a trainer without Ray
def test_workers_of_a_dead_driver_write_nothing_after_the_run_has_gone_on(store, tmp_path, monkeypatch):
    """The driver and its cluster hang as a stopped host does, and wake up when another one has finished."""
    address = f"{store.bucket()}/runs/digits"
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "host1"))
    with started(training(address)) as process:
        checkpoint_at(address, 20, process)
        hung = [process, *descendants(process.pid)]
        for each in hung:
            each.send_signal(signal.SIGSTOP)
        monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "host2"))
        run(training(address))
        before = Objects(address).list()
        for each in hung:
            each.send_signal(signal.SIGCONT)
        assert process.wait(LIMIT_S) != 0
    assert Objects(address).list() == before


def test_shards_are_made_at_an_address_once(store, ray_cluster, capsys):
    address = f"{store.bucket()}/digits"
    assert command(["shards", "digits", "--out", address]) == 0
    assert f"{address}: 1797 images" in capsys.readouterr().out
    check_shards(Path(address), Manifest.load(Path(address)))
    assert [path for path in store.requests("PUT") if address[4:] in path][-1].endswith(MANIFEST)
    assert command(["shards", "digits", "--out", address]) == 2
    assert f"{address} holds shards already" in capsys.readouterr().err
