"""Settings of the command that sends a run to MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class Track(CodeSettings):
    """Send to MLflow what it does not have yet of a run, after the server was away: cm-ray track runs/demo"""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run directory; its config.json has the address of the server."""
