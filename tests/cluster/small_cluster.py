"""A Ray cluster of several hosts on this machine, in processes that can be killed: a head and nodes."""

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.cluster.processes import ROOT, environment
from tests.waiting import LIMIT_S, wait_for

IDLE = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray that do none of the work."""


class SmallCluster:
    """A head without CPUs, where commands run, and nodes of two CPUs each."""

    def __init__(self, nodes=3):
        self.folder = Path(tempfile.mkdtemp(prefix="cmr", dir="/tmp"))
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = environment(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_TMPDIR=str(self.folder)
        )
        self.head = self._start("head", {"CPU": 0})
        self.environment["RAY_ADDRESS"] = (self.folder / f"started-{self.head.pid}").read_text()
        self.nodes = [self.add() for _ in range(nodes)]

    def add(self, cpus=2):
        """Add a node; return its process."""
        return self._start("node", {"CPU": cpus}, self.environment["RAY_ADDRESS"])

    def _start(self, kind, resources, address=""):
        line = [sys.executable, "-m", "tests.cluster.hosts", address, json.dumps(resources)]
        log = self.folder / f"{kind}.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                line, cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_for((self.folder / f"started-{process.pid}").exists, f"a {kind}", process, log)
        return process  # several that start at once fail now and then

    def run(self, command, log):
        """Start a command on the cluster; its output goes to a file."""
        with log.open("a") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def workers(self):
        """Return the processes on the nodes that do some work."""
        found = []
        for process in [each for node in self.nodes for each in family(node.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                title = (process.cmdline() or [""])[0]
                if title.startswith("ray::") and not title.startswith(IDLE):
                    found.append(process)
        return found

    def end(self):
        """Kill all processes of the cluster, and remove its files."""
        for process in [*self.nodes, self.head]:
            kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def family(pid):
    """Return a process with all that it has started, as far as they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def kill(process):
    """Kill a process with all that it has started, at once."""
    members = family(process.pid)
    for each in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(members, timeout=LIMIT_S)


def left_behind(before):
    """Return the processes of Ray that are there and were not before, with their titles."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if process.pid not in before and ("ray::" in title or "raylet" in title):
            found.append(title[:80])
    return found


def processes():
    """Return the ids of all processes."""
    return {process.pid for process in psutil.process_iter()}
