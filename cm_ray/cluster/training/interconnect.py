"""The network interface that gloo uses: the one of the address by which Ray knows the node.

Left alone, gloo looks up the host's own name, which on many hosts is unknown or stands for 127.0.1.1, so that
workers on several hosts do not find each other.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any

import ray
from ray.train.torch import TorchConfig

VARIABLE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface."""


def torch_config(use_gpu: bool) -> TorchConfig:
    """Return the settings of PyTorch's process group: NCCL on GPUs, else gloo on Ray's interface."""
    return TorchConfig(backend="nccl") if use_gpu else GlooConfig(backend="gloo")


class GlooConfig(TorchConfig):  # type: ignore[misc]
    """Settings of a process group whose workers first choose their interfaces."""

    @property
    def backend_cls(self) -> type:
        """Return the class that Ray Train starts the process group by."""
        return _GlooBackend


class _GlooBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Choose the interface on every worker, and start the process group."""
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """Set gloo's interface in this process, unless the user has set it."""
    if name := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault(VARIABLE, name)


def interface_of(address: str) -> str:
    """Return the name of the network interface with an IPv4 address; empty if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
