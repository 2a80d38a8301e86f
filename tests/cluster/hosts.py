"""More hosts for a Ray cluster: nodes with processes of their own on this machine, which can be killed.

python -m tests.cluster.hosts ADDRESS RESOURCES [FOLDER]    # a node that sees another FOLDER, until it ends
python -m tests.cluster.hosts "" RESOURCES                  # a head

When it has started, $RAY_TMPDIR/started-PID has the address of the cluster.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cm_ray.storage.files import written_aside
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]


def start_node(address, resources):
    """Start the processes of a node, or of a head if there is no address; return them and the address."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    parameters = RayParams(
        num_cpus=resources.get("CPU", 1),
        num_gpus=resources.get("GPU", 0),
        resources=others,
        object_store_memory=150 << 20,
        gcs_address=address or None,
        redis_address=address or None,
        node_manager_port=0,
        min_worker_port=0,
        max_worker_port=0,
        include_log_monitor=False,
        dashboard_host="127.0.0.1",
        temp_dir=None if address else os.environ.get("RAY_TMPDIR"),
    )
    parameters.dashboard_agent_listen_port = None  # any that is free
    node = Node(parameters, head=not address, shutdown_at_exit=False, spawn_reaper=False)
    processes = [each.process for several in node.all_processes.values() for each in several]
    return processes, node.gcs_address


class Host:
    """A node that has joined the cluster that this process is connected to."""

    def __init__(self, ray, hidden=None, **resources):
        """hidden: a folder in whose place the host has an empty one of its own."""
        self.ray = ray
        before = {node["NodeID"] for node in ray.nodes()}
        address = ray.get_runtime_context().gcs_address
        self.processes = (
            _elsewhere(address, resources, hidden) if hidden else start_node(address, resources)[0]
        )
        wait_for(lambda: self._joined(before), "another node")
        (self.id,) = self._joined(before)

    def _joined(self, before):
        return {node["NodeID"] for node in self.ray.nodes() if node["Alive"]} - before

    def kill(self):
        """Kill all processes of the host at once, as when its power fails."""
        family = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                family += [parent, *parent.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.processes:
            process.wait()

    def is_alive(self):
        """Tell whether Ray takes the host for alive."""
        return any(node["NodeID"] == self.id and node["Alive"] for node in self.ray.nodes())


def _elsewhere(address, resources, hidden):
    """Start a node in a mount namespace of its own; return its process, whose children are the node's."""
    line = [sys.executable, "-m", "tests.cluster.hosts", address, json.dumps(resources), str(hidden)]
    return [subprocess.Popen(["unshare", "--mount", *line], cwd=ROOT)]


def needs_namespaces():
    """Skip a test where processes cannot have a view of their own of the file system."""
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0:
            return
    pytest.skip("mount namespaces are not permitted here")


@contextlib.contextmanager
def host(ray, hidden=None, **resources):
    """Another host, until the block ends."""
    added = Host(ray, hidden, **resources)
    try:
        yield added
    finally:
        added.kill()


@contextlib.contextmanager
def occupied(ray, cpus):
    """Hold CPUs of the node of this process, until the block ends."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @ray.remote(num_cpus=cpus)
    class Occupant:
        def pid(self):
            return os.getpid()

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    occupant = Occupant.options(scheduling_strategy=here).remote()
    ray.get(occupant.pid.remote())
    try:
        yield
    finally:
        ray.kill(occupant)


if __name__ == "__main__":
    given, resources, *hidden = sys.argv[1:]
    for folder in hidden:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    _, address = start_node(given, json.loads(resources))
    if "RAY_TMPDIR" in os.environ:
        with written_aside(Path(os.environ["RAY_TMPDIR"]) / f"started-{os.getpid()}") as aside:
            aside.write_text(address)
    while True:
        time.sleep(60)
