"""Runs at addresses on Ray: kills of workers and drivers, and hosts that share nothing but the store."""

import json
import signal
from pathlib import Path

import pytest

from cm_ray.command_line.main import run as command
from cm_ray.core.diffusion import Diffusion
from cm_ray.data.shards.manifest import MANIFEST, Manifest, check_shards
from cm_ray.remote.mirror import Mirror
from cm_ray.remote.objects import Objects
from cm_ray.runs.remote_run import ORDER
from cm_ray.sampling.samplers import Heun
from cm_ray.tracking import RunGroup
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
from tests.cluster.tiny import save_tiny
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


@pytest.fixture
def tiny(tmp_path):
    """A tiny diffusion model of digits."""
    diffusion = Diffusion(boundary="none", t_min=0.05, t_max=5.0)
    return save_tiny(tmp_path / "model", diffusion=diffusion, sampler=Heun(steps=2))


def at_both(store, tmp_path, words):
    """Return the folders that a command leaves on a disk, and at an address after a kill and a repetition."""
    address = f"{store.bucket()}/results"
    assert command([*words, "--run-dir", str(tmp_path / "results")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunGroup, "log", kill)
        assert command([*words, "--run-dir", address]) == 130
    assert command([*words, "--run-dir", address]) == 0
    return tmp_path / "results", copied(address, tmp_path / "copied")


def kill(*_, **__):
    raise KeyboardInterrupt


LIKE = ["--data", "digits", "--tracking-uri", "none", "--actors.count", "1", "--actors.cpus-each", "0.5"]


def test_likelihoods_are_kept_at_an_address(store, ray_cluster, tmp_path, tiny, capsys):
    words = ["likelihood", str(tiny), *LIKE, "--images", "20", "--rtol", "0.05", "--atol", "0.05"]
    here, there = at_both(store, tmp_path, words)
    for name in ("likelihood.json", "likelihood.csv", "samples/extremes.png"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert "/results/likelihood.csv" in capsys.readouterr().out


def test_scores_are_kept_at_an_address(store, ray_cluster, tmp_path, tiny, capsys):
    words = ["score", str(tiny), *LIKE, "--extractor", "digits", "--samples", "64", "--grid", "2"]
    here, there = at_both(store, tmp_path, words)
    rows = [json.loads((folder / "scores.json").read_text()) for folder in (here, there)]
    assert [row["value"] for row in rows[0]] == [row["value"] for row in rows[1]]
    assert not (there / "evaluation-work").exists()
    assert sorted(each.name for each in (here / "samples").iterdir()) == sorted(
        each.name for each in (there / "samples").iterdir()
    )
