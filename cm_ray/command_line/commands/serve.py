"""The command that serves a model over HTTP."""

from __future__ import annotations

from cm_ray.command_line.settings.serve import Serving
from cm_ray.extras import needs


def run(settings: Serving) -> None:
    """Serve until interrupted. Raises UserError when Ray Serve, the model or the address is not there."""
    needs("ray", "fastapi", "uvicorn", "watchfiles", extra="serve")
    from cm_ray.cluster.serving.serve_model import serve_model

    serve_model(settings)
