"""Gloo finds its interface by Ray's address of the node, also where the host's own name is unknown."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cm_ray.cluster.training.interconnect import interface_of
from tests.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import torch.distributed as dist
from cm_ray.cluster.training import interconnect

if sys.argv[1] == "chosen":
    interconnect.ray.util.get_node_ip_address = lambda: "127.0.0.1"
    interconnect.choose_interface()
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
print("connected")
"""


def test_interfaces_by_their_addresses():
    assert interface_of("127.0.0.1") in {name for _, name in socket.if_nameindex()}
    assert interface_of("127.0.0.1") == "lo"
    own = ray.util.get_node_ip_address()
    assert interface_of(own), f"the interface of {own}"
    assert interface_of("203.0.113.7") == ""
    assert interface_of("::1") == ""


@pytest.mark.parametrize("interface", ["chosen", pytest.param("left", marks=pytest.mark.slow)])
def test_a_host_with_an_unknown_name(interface):
    """Gloo, without the choice, falls back to 127.0.0.1, where workers on other hosts do not find it."""
    line = "hostname a-name-that-nobody-knows && exec " + f"{sys.executable} -c '{PROGRAM}' {interface}"
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode:
        pytest.skip("host names of one's own are not permitted here")
    done = subprocess.run(
        ["unshare", "--uts", "sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert "connected" in done.stdout, done.stderr
    assert ("Unable to resolve hostname" in done.stderr) == (interface == "left")
