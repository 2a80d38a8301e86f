"""A replica of Ray Serve: a model in memory, which makes what requests ask for, many at a time."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.metrics import Counter
from starlette.requests import Request
from starlette.responses import Response

from cm_ray.cluster.runtime.connect import check_cuda, node_name
from cm_ray.cluster.serving.answering import Service
from cm_ray.cluster.serving.asked import Limits
from cm_ray.cluster.serving.pieces import Made, Piece, images_of, made_together
from cm_ray.cluster.serving.row_counts import equal_counts
from cm_ray.cluster.serving.turns import Turns
from cm_ray.errors import UserError
from cm_ray.hosts import known_names
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.formats.reading import load_model, network_digest
from cm_ray.own_code import take
from cm_ray.tracking.locate import locate_model

_METRICS_S = 10.0
"""Seconds in which Ray's metrics are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Settings of the replicas, the same for all."""

    model: str
    """The model, as the user named it."""
    place: Path
    """Folder or file in which the command has found it."""
    digest: str
    """SHA-256 of the network and its weights; see `network_digest`."""
    tracking_uri: str
    device: str
    threads: int
    precision: Precision
    batch_size: int
    batch_wait_s: float
    limits: Limits
    host_names: tuple[str, ...]
    own_code: Mapping[str, Any]
    """Own code that the command has named; see `cm_ray.own_code.carried`."""


class Replica:
    """A model that answers requests over HTTP. Network calls are made by one thread, one after the other."""

    def __init__(self, order: Order) -> None:
        take(order.own_code)
        self._worker = ThreadPoolExecutor(1, "network", lambda: torch.set_num_threads(order.threads))
        self._worker.submit(self._load, order).result()
        self.together.set_max_batch_size(order.batch_size)
        self.together.set_batch_wait_timeout_s(order.batch_wait_s)
        counter = Counter(
            "cm_ray_images", description="Images that were made, by what for.", tag_keys=("task",)
        )
        self._turns = Turns()
        self._service = Service(
            name=order.model,
            spec=self._model.spec,
            limits=order.limits,
            most=order.batch_size,
            hosts=known_names(order.host_names),
            make=self.make,
            metrics=metrics_of_node,
            count=lambda task, images: counter.inc(images, tags={"task": task}),
        )

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        return await self._service.answer(request)

    async def make(self, piece: Piece) -> Made:
        """Return what a piece asks for, made with others that have come until the network is free."""
        await self._turns.wait()
        made: Made = await self.together(piece)
        return made

    @serve.batch(batch_size_fn=images_of)  # type: ignore[untyped-decorator]
    async def together(self, pieces: list[Piece]) -> Sequence[Made]:
        """Return what each piece asks for; Ray Serve calls it with pieces of many requests."""
        loop = asyncio.get_running_loop()
        with self._turns.working():
            return await loop.run_in_executor(self._worker, made_together, self._model, pieces, self._counts)

    def _load(self, order: Order) -> None:
        """Read the model, and find out in which batches its bits are equal. Raises UserError."""
        if order.device == "cuda":
            check_cuda()
        here = order.place.exists()
        place = order.place if here else locate_model(order.model, order.tracking_uri)
        if network_digest(place) != order.digest:
            raise UserError(
                f"{place} on node {node_name()} is not the model that the command has read; put it on "
                "storage that all nodes share, or in the registry."
            )
        self._model = load_model(place, order.device, check=False)
        self._model.precision = order.precision
        self._counts = equal_counts(self._model, order.batch_size)


def metrics_of_node() -> str:
    """Return the metrics that Ray exports on this node, as text of Prometheus. Raises OSError."""
    own = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == own)
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=_METRICS_S) as answer:
        text: str = answer.read().decode()
    return text
