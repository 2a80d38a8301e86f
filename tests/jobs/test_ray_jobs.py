"""`ray job submit` for real: a cluster of its own with token authentication, and the README's command."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cm_ray.runs.lineage import code_digest
from tests.cluster.processes import SMALL, end, environment, ray_folder
from tests.cluster.tiny_spaces import GRID, write_space
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def head():
    """Start a Ray head in the foreground of a process of ours; end that process and its children alone."""
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = {name: free_port() for name in names}  # of the agent, too: another cluster may hold its default
    with ray_folder() as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        variables = environment(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_TMPDIR=folder,
            RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{ports['dashboard-port']}",
        )
        line = [RAY, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
        line += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        line += [f"--{name}={port}" for name, port in ports.items()]
        log = Path(folder) / "head.log"
        with log.open("w") as output:
            process = subprocess.Popen(line, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_up(variables["RAY_API_SERVER_ADDRESS"], process, log)
            yield variables
        finally:
            process.send_signal(signal.SIGINT)
            end(process.pid)
            process.wait()


def wait_until_up(address, process, log):
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=5)
            except urllib.error.HTTPError as error:
                if error.code != 401:  # up, and it wants the token
                    raise
            return
        time.sleep(0.25)
    raise AssertionError(f"the cluster did not come up: {log.read_text()}")


def submit(variables, *entrypoint, timeout=LIMIT_S, **given):
    """Submit a job; given: environment variables of the job."""
    line = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env-json", json.dumps({"env_vars": given})]
    line += ["--", *map(str, entrypoint)]
    return subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)


def some_of(folder, target, rows=300):
    """Write the first images of a folder with one Parquet file, with its schema, to a file of its own."""
    (file,) = folder.glob("*.parquet")
    pq.write_table(pq.read_table(file).slice(0, rows), target)
    return target


def test_submit_the_cifar_job(tmp_path, cifar10):
    run_dir, images = tmp_path / "run", some_of(cifar10 / "test", tmp_path / "some.parquet")
    job = [sys.executable, "jobs/ct_cifar.py", "--data", images, "--run-dir", run_dir]
    heads = SMALL.index("--network.head-channels")  # NCSN++ has one head and no such option
    small = SMALL[:heads] + SMALL[heads + 2 :]
    job += [*small, "--steps", 4, "--log-every", 2, "--checkpoint.every", 2, "--evaluation.every", 2]
    job += ["--distance", "l2", "--evaluation.extractor", "cifar-resnet20"]
    job += ["--evaluation.weights", cifar10.parents[1] / "weights", "--evaluation.samples", 100]
    with head() as variables:
        without_token = {name: value for name, value in variables.items() if "TOKEN" not in name}
        refused = submit(without_token | {"HOME": str(tmp_path)}, sys.executable, "-c", "pass")
        assert refused.returncode != 0
        done = submit(variables, *job, CM_RAY_REVISION="c0ffee-dirty")
        assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    result = json.loads((run_dir / "result.json").read_text())
    assert result["steps"] == 4
    assert result["scores"][0]["name"] == "FD-cifar-resnet20-100"
    assert (run_dir / "samples" / "final-one-step.png").exists()
    assert (run_dir / "samples" / "final-one-step.npz").exists()
    assert (run_dir / "checkpoints" / "step-00000004" / "state.safetensors").exists()
    assert os.listdir(run_dir / "model")
    lineage = json.loads((run_dir / "lineage.json").read_text())
    assert lineage["git.revision"] == "c0ffee-dirty", "it travels with the job, into which Ray copies no .git"
    assert lineage["code.sha256"] == code_digest(), (
        "the run can go on in this checkout, and it is the same code"
    )


@pytest.mark.slow
def test_submit_a_wrong_job_and_a_sweep(tmp_path):
    file, run_dir = write_space(tmp_path, GRID), tmp_path / "runs" / "swept"
    with head() as variables:
        wrong = submit(variables, sys.executable, "jobs/ct_cifar.py", "--batch-size", 0)
        assert wrong.returncode != 0
        assert "--batch-size must be at least 1" in wrong.stdout + wrong.stderr
        done = submit(variables, sys.executable, "jobs/sweep.py", file, "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials: 2 finished" in (run_dir / "report.md").read_text()
