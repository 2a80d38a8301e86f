"""Settings of the command that serves a model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import Precision
from cm_ray.own_code import CodeSettings
from cm_ray.recipes.measuring import ActorSettings


@dataclass(frozen=True, kw_only=True)
class Serving(CodeSettings):
    """Serve a model over HTTP by Ray Serve: cm-ray serve models:/cm_ray-digits@champion

    POST /sample and /edit take JSON and answer with PNG or npz; GET /model, /health and /metrics tell. It
    needs Ray Serve: pip install 'cm_ray[serve]'. It listens on 127.0.0.1 unless --host names another address.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, file of weights or directory of diffusers."""
    host: str = "127.0.0.1"
    """Address to listen at. Nobody is asked for a password: on 0.0.0.0 everyone who reaches it may use it."""
    host_names: tuple[str, ...] = ()
    """Names that it is asked by, beside localhost and addresses; others are refused."""
    port: int = 8000
    """Port to listen at."""
    batch_size: int = 0
    """Images of a network evaluation, of one request or of many; 0: 64 on GPUs and 16 on CPUs, or as many as
    fit into the memory."""
    batch_wait_ms: float = 2.0
    """Milliseconds that a request waits for others to be made with; 0: not at all."""
    most_samples: int = 64
    """Images that a request may ask for."""
    most_steps: int = 100
    """Network evaluations that an image may take."""
    most_mib: int = 32
    """MiB that a request may have."""
    most_waiting: int = 256
    """Requests that may wait, beside those that replicas work on; others are answered with status 503."""
    precision: Precision = "float32"
    """Arithmetic of the network; all but float32 are faster on GPUs."""
    actors: ActorSettings = field(default_factory=ActorSettings)
    """The replicas."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""

    def __post_init__(self) -> None:
        """Raise UserError on a number that is out of range."""
        if not 0 < self.port < 65536:
            raise UserError(f"--port must be 1 to 65535, not {self.port}.")
        if not 0 <= self.batch_wait_ms < math.inf:
            raise UserError(f"--batch-wait-ms must be 0 or more, not {self.batch_wait_ms:g}.")
        for name in ("most_samples", "most_steps", "most_mib", "most_waiting"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}.")
        if self.batch_size < 0:
            raise UserError(f"--batch-size must be at least 1, or 0 for its default, not {self.batch_size}.")
