"""Jobs as users run them, in processes of their own, and how to kill parts of them."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.waiting import LIMIT_S, wait_for

ROOT = Path(__file__).parents[2]

SMALL = [
    *("--batch-size", "32"),
    *("--network.channels", "8", "--network.head-channels", "8", "--network.norm-groups", "4"),
    *("--network.blocks", "1"),
    *("--evaluation.extractor", "none", "--evaluation.grid", "3"),
    *("--cluster.threads", "1"),
    *("--tracking-uri", "none"),
]
"""Options that make training a matter of milliseconds a step."""

LEAN = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less: no cloud takes a node of a test back
    "RAY_worker_niceness": "0",  # what else runs on this machine should not make tests time out
    "RAY_health_check_period_ms": "300",  # a killed node is known in seconds; a slow one has as long as ever
}
"""The environment of Ray in tests: fewer processes, and no lower priority."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def job(name, *options):
    """Return the command line of a job."""
    return [sys.executable, str(ROOT / "jobs" / name), *map(str, options)]


def module_of_tests(name, *options):
    """Return the command line of a module of these tests that is a program."""
    return [sys.executable, "-m", name, *map(str, options)]


def environment(**more):
    """Return the environment for a job: a short temporary folder for its Ray, no cluster but its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | LEAN | {"PYTHONPATH": python_path} | more


def run(command, expect=0, **more):
    """Run a command to its end and return what it said."""
    with ray_folder() as folder:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(RAY_TMPDIR=folder, **more),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def in_turn(*commands):
    """Return the command line of jobs that one process and one cluster do, one after the other."""
    return module_of_tests("tests.cluster.in_turn", json.dumps([words[1:] for words in commands]))


@contextlib.contextmanager
def started(command):
    """Start a command; on leaving, see that nothing of it is left."""
    with ray_folder() as folder, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(RAY_TMPDIR=folder),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process.pid)
            process.wait()


@contextlib.contextmanager
def ray_folder():
    """A folder whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="cmr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


def descendants(pid):
    """Return the live processes that `pid` started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def workers(pid):
    """Return the training workers of a driver's own cluster."""
    found = []
    for process in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def end(pid):
    """Kill a driver with everything it started."""
    family = descendants(pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        family.append(psutil.Process(pid))
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=LIMIT_S)


def reap(family):
    """Wait until the processes of a killed driver have noticed and ended; end Ray's agents, which linger."""

    def lingering():
        return [process for process in family if (line := cmdline(process)) and line[0] not in AGENTS]

    try:
        wait_for(lambda: not lingering(), "the end of what a killed driver started")
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def cmdline(process):
    """Return a process's command line, empty when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def rows(run_dir):
    """Return the whole rows of a run's log."""
    file = Path(run_dir) / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
