"""A run at an address, killed and gone on with in another empty folder, ends with the bits of a local run."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

import cm_ray as cm
from cm_ray.remote import lease as lease_module
from cm_ray.remote.mirror import Mirror
from cm_ray.remote.objects import Objects
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.remote_run import ORDER
from tests.waiting import LIMIT_S, wait_for

TINY = {
    "steps": 6,
    "batch_size": 8,
    "averages": "power",
    "averages.snapshots": 3,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "checkpoint.every": 2,
    "checkpoint.keep": 1,
    "evaluation.every": 4,
    "evaluation.samples": 40,
    "evaluation.grid": 2,
    "log_every": 1,
    "tracking.uri": "none",
}
SPEEDS = ("images_per_s", "seconds")


def recipe(**changes):
    return cm.override(cm.recipes.ict_digits(), TINY | changes)


def bits(folder):
    """Return everything of a finished run that must not depend on interruptions."""
    run = RunDirectory(folder)
    files = [*folder.glob("checkpoints/*/state.safetensors"), *folder.glob("snapshots/*")]
    files += [*folder.glob("model/*"), *folder.glob("samples/*")]
    found = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    log = [{name: row[name] for name in row if name not in SPEEDS} for row in run.read_metrics()]
    best = (folder / "checkpoints/best.json").read_text() if run.result()["scores"] else ""
    return found, log, best, run.result()["scores"]


def copied(address, folder):
    Mirror(Objects(address), folder, ORDER).pull(lambda key: True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    cm.Trainer(recipe(), out=folder, quiet=True).train()
    return bits(folder)


def test_a_run_at_an_address_is_the_local_run(store, undisturbed, tmp_path):
    address = f"{store.bucket()}/runs/x"
    trainer = cm.Trainer(recipe(), out=address, quiet=True).train()
    assert [score.value for score in trainer.scores] == [row["value"] for row in undisturbed[3]]
    assert bits(copied(address, tmp_path / "there")) == undisturbed
    wrote = [path for path in store.requests("PUT") if "safetensors" in path]
    assert len(wrote) == len(set(wrote)), "a checkpoint, a snapshot or a model was written twice"
    assert cm.Trainer(recipe(), out=address, quiet=True).train().scores
    assert [path for path in store.requests("PUT") if "safetensors" in path] == wrote


@pytest.mark.parametrize("place", ["step-00000004/state", "step-00000004/meta", "best.json", "snapshots"])
def test_interrupted_at_a_write_it_goes_on_elsewhere(place, store, undisturbed, tmp_path):
    """The store refuses everything from one write on, as if the process had been killed there."""
    address, dead = f"{store.bucket()}/run", []

    def fault(method, path):
        if method == "PUT" and place in path:
            dead.append(path)
        return 403 if dead and ".lease" not in path else None

    with store.faults(fault), pytest.raises(cm.UserError, match="refuses these credentials"):
        cm.Trainer(recipe(), out=address, quiet=True).train()
    assert dead
    first, *_ = [step.number for step in cm.Trainer(recipe(), out=address, quiet=True)]
    assert first == {"step-00000004/state": 3, "step-00000004/meta": 3, "snapshots": 1}.get(place, 5)
    assert bits(copied(address, tmp_path / "there")) == undisturbed


def test_passing_faults_are_not_noticed(store, undisturbed, tmp_path):
    address, count = f"{store.bucket()}/run", iter(range(100_000))
    kinds = {0: 503, 3: ("lost", 500), 6: 500}
    with store.faults(lambda method, path: kinds.get(next(count) % 10)):
        cm.Trainer(recipe(), out=address, quiet=True).train()
    assert bits(copied(address, tmp_path / "there")) == undisturbed


PROGRAM = """
import sys
import cm_ray as cm
from cm_ray.remote import lease
from tests.remote.test_remote_training import recipe
lease.LEASE_S = 3.0
cm.Trainer(recipe(), out=sys.argv[1], quiet=True).train()
"""


def started(address, cache, store):
    environment = os.environ | store.environment | {"CM_RAY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, address], env=environment)


def test_a_killed_process_is_followed_by_one_that_shares_nothing_but_the_store(store, undisturbed, tmp_path):
    """SIGKILL between the part and the marker of the second checkpoint: that one alone is lost."""
    address = f"{store.bucket()}/run"
    part, marker = "step-00000004/state.safetensors", "step-00000004/meta.json"
    killed = []

    def kill(method, path):
        if method == "PUT" and marker in path and not killed:
            killed.append(path)
            first.send_signal(signal.SIGKILL)
            return 403
        return None

    with store.faults(kill):
        first = started(address, tmp_path / "host1", store)
        assert first.wait(LIMIT_S) == -signal.SIGKILL
    keys = Objects(address).list()
    assert any(part in key for key in keys)
    assert not any(marker in key for key in keys)
    assert any((tmp_path / "host1" / "scratch").iterdir()), "the killed process had no time to tidy up"
    second = started(address, tmp_path / "host2", store)
    assert second.wait(LIMIT_S) == 0
    assert not any((tmp_path / "host2" / "scratch").iterdir())
    assert bits(copied(address, tmp_path / "there")) == undisturbed


def test_two_processes_do_not_work_in_one_run(store, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)
    address = f"{store.bucket()}/run"
    steps = iter(cm.Trainer(recipe(), out=address, quiet=True))
    next(steps)
    other = cm.Trainer(recipe(), out=address, quiet=True)
    with pytest.raises(cm.UserError, match="Another process is working in s3://"):
        other.train()
    steps.close()
    assert other.train().scores


def test_an_orphan_writes_nothing_after_its_run_has_gone_on_elsewhere(
    store, undisturbed, tmp_path, monkeypatch
):
    """The first process stops renewing its lease, as a machine that was asleep; then it wakes up."""
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)
    address = f"{store.bucket()}/run"
    trainer = cm.Trainer(recipe(), out=address, quiet=True)
    steps = iter(trainer)
    next(steps)
    trainer.run.copied.lease._ended.set()
    cm.Trainer(recipe(), out=address, quiet=True).train()
    with pytest.raises(cm.UserError, match="belongs to another command now"):
        for _ in steps:
            pass
    assert bits(copied(address, tmp_path / "there")) == undisturbed


def test_other_settings_and_other_jobs_are_refused_with_the_address(store):
    address = f"{store.bucket()}/run"
    for _ in cm.Trainer(recipe(), out=address, quiet=True):
        break
    with pytest.raises(cm.UserError, match=f"^{address} has a run with other settings: seed"):
        cm.Trainer(recipe(seed=3), out=address, quiet=True).train()


def test_runs_may_have_their_home_at_an_address(store, monkeypatch):
    address = store.bucket()
    monkeypatch.setenv("CM_RAY_RUNS", f"{address}/home")
    for _ in cm.Trainer(recipe(name="mine"), quiet=True):
        break
    wait_for(lambda: "home/mine/config.json" in Objects(address).list(), "the settings of the run")
