"""Settings of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from cm_ray.errors import UserError
from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class PageSettings(CodeSettings):
    """Show a page to try a model in the browser: cm-ray app models:/cm_ray-digits@champion

    The page samples, edits and shows every step. It needs Gradio: pip install 'cm_ray[app]'. It listens on
    127.0.0.1 unless --host names another address.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """models:/NAME@champion, models:/NAME/3, a run directory or a model's folder."""
    host: str = "127.0.0.1"
    """Address to listen at. The page asks for no password: on 0.0.0.0 everyone who reaches it may use it."""
    host_names: tuple[str, ...] = ()
    """Names that the page is opened by, beside localhost and addresses; others are refused."""
    port: int = 7860
    """Port to listen at."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""

    def __post_init__(self) -> None:
        """Raise UserError on a port that does not exist."""
        if not 0 < self.port < 65536:
            raise UserError(f"--port must be 1 to 65535, not {self.port}.")
