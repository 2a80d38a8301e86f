"""Serve a model by Ray Serve until the command is interrupted."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from cm_ray.cluster.pool.sizing import Actors, memory_each, plan_actors
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.waiting import planned_when_nodes_suffice
from cm_ray.cluster.serving.asked import Limits
from cm_ray.cluster.serving.replica import Order, Replica
from cm_ray.command_line.settings.serve import Serving
from cm_ray.drawing.batches import fitting_batch
from cm_ray.errors import DEBUG_VARIABLE, UserError
from cm_ray.hosts import bound
from cm_ray.networks.formats.reading import network_digest, read_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import ModelSpec
from cm_ray.own_code import allow_given, carried
from cm_ray.phases import phase
from cm_ray.runs.console import say
from cm_ray.settings.duration import seconds_of
from cm_ray.tracking.locate import locate_model

APPLICATION = "cm_ray"
_ON_CPU, _ON_GPU = 16, 64
"""Images of a network call where none are given: more are hardly faster, and a single one waits for less."""
_POLL_S = 2.0
_SOON_S = 5.0
"""Seconds that a replica has to end what it is making."""


def serve_model(settings: Serving) -> None:
    """Serve until an interrupt or SIGTERM. Raises UserError without model, address or resources."""
    with served(settings) as (address, replicas):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # by which containers and jobs are ended
        print(f"{address} serves {settings.model} by {replicas}; press Ctrl+C to stop.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            watch()


@contextlib.contextmanager
def served(settings: Serving) -> Iterator[tuple[str, Actors]]:
    """Serve inside of the block: yield the address, and the replicas."""
    place = locate_model(settings.model, settings.tracking_uri)
    spec = _checked_spec(settings, place)
    with connected():
        if serve.status().proxies:
            raise UserError(
                "Ray Serve already runs in this cluster, and has one address; end it (serve shutdown), or "
                "use another cluster."
            )
        check_free(settings)
        replicas = planned_when_nodes_suffice(
            lambda: plan_actors(settings.actors, node_resources()),
            seconds_of(settings.actors.wait_for_nodes),
        )
        order = Order(
            model=settings.model,
            place=place.absolute(),
            digest=network_digest(place),
            tracking_uri=settings.tracking_uri,
            device=replicas.device,
            threads=replicas.threads,
            precision=settings.precision,
            batch_size=_batch(settings, spec, replicas),
            batch_wait_s=settings.batch_wait_ms / 1000,
            limits=Limits(samples=settings.most_samples, steps=settings.most_steps, mib=settings.most_mib),
            host_names=(settings.host, *settings.host_names),
            own_code=carried(),
        )
        try:
            _start(settings, order, replicas)
            at = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"http://{at}:{settings.port}", replicas
        finally:
            serve.shutdown()


def _checked_spec(settings: Serving, place: Path) -> ModelSpec:
    """Return what the model is. Raises UserError here, and not by a replica, when it cannot be read."""
    spec, _ = read_model(place)
    allow_given(spec)
    warn_of_initial_weights(spec, settings.model)
    return spec


def _batch(settings: Serving, spec: ModelSpec, replicas: Actors) -> int:
    """Return the images of a network call, where none are given: as many as fit, 16 on CPUs, 64 on GPUs."""
    if settings.batch_size:
        return settings.batch_size
    most = _ON_GPU if replicas.gpus else _ON_CPU
    return min(most, fitting_batch(spec, settings.precision, replicas.device, memory_each(replicas)))


def check_free(settings: Serving) -> None:
    """Raise UserError when another program listens at the address here; a cluster's may be elsewhere."""
    if os.environ.get("RAY_ADDRESS"):
        return
    with bound(settings.host, settings.port):
        pass


def _start(settings: Serving, order: Order, replicas: Actors) -> None:
    """Start Ray Serve and the replicas. Raises UserError, with a replica's sentence, when they cannot."""
    phase("starting Ray Serve")
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    logging.getLogger("ray.serve").setLevel(logging.INFO if debug else logging.CRITICAL)
    log = LoggingConfig(log_level="INFO" if debug else "WARNING", enable_access_log=debug)
    deployment = serve.deployment(
        Replica,
        name="model",
        num_replicas=replicas.count,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=2 * order.batch_size,
        max_queued_requests=settings.most_waiting,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=_SOON_S,
        max_constructor_retry_count=1,
        logging_config=log,
    )
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port), logging_config=log)
        phase(f"loading the model on {replicas}")
        serve.run(deployment.bind(order), name=APPLICATION, logging_config=log)
    except (RuntimeError, RayError, TimeoutError) as error:
        raise UserError(f"The replicas could not be started: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return a replica's sentence in the message of an error of Ray Serve, else the end of that message."""
    texts = [str(error)]
    with contextlib.suppress(RayError, KeyError):
        texts += [each.message for each in serve.status().applications[APPLICATION].deployments.values()]
    for text in reversed(texts):
        _, found, sentence = text.rpartition("UserError: ")
        if found:
            return sentence.splitlines()[0]
    return [line.strip() for line in texts[-1].splitlines() if line.strip()][-1]


def watch() -> None:
    """Say when replicas have died and are started again, until an interrupt."""
    before = ""
    while True:
        time.sleep(_POLL_S)
        application = serve.status().applications[APPLICATION]
        states = {each.status.value for each in application.deployments.values()}
        now = ", ".join(sorted(states))
        if now != before and (before or now != "HEALTHY"):
            say(f"The replicas are {now.lower().replace('_', ' ')}.")
        before = now
