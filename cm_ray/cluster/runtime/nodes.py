"""The nodes of the cluster: which live, what they have, and whether they share a folder."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cm_ray.cluster.runtime.connect import user_error
from cm_ray.cluster.runtime.internals import draining_nodes
from cm_ray.remote.witness import Witness


def live_nodes() -> dict[str, dict[str, float]]:
    """Return the resources of every live node by its id, ``{"3f…": {"CPU": 8, "GPU": 1}, …}``.

    Nodes that will be taken away are left out.
    """
    leaving = draining_nodes()
    return {
        node["NodeID"]: node["Resources"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    }


def node_resources() -> list[dict[str, float]]:
    """Return the resources of every live node of the cluster, ``[{"CPU": 8, "GPU": 1}, …]``."""
    return list(live_nodes().values())


def check_on_nodes(seen: Witness) -> None:
    """Raise UserError, naming the node, when a node that can work does not see a file of this process."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node, resources in live_nodes().items() if node != here and resources.get("CPU")]
    check: Any = ray.remote(num_cpus=0, max_retries=0)(Witness.check)
    for reference in [check.options(scheduling_strategy=_on(node)).remote(seen) for node in others]:
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise user_error(error) or error from None
        except RayError:
            pass  # the node has died since


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)
