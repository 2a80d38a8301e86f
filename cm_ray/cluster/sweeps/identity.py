"""The settings by which two calls belong to the same sweep."""

from __future__ import annotations

import secrets
from typing import Any

from cm_ray.errors import UserError
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.settings.tree import flatten
from cm_ray.storage.files import read_json
from cm_ray.storage.shapes import Shape
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space import Sampler, Space
from cm_ray.sweeps.study import shown_storage

_FREE = (
    "name",
    "run_dir",
    "log_every",
    "data.cache",
    "data.on_bad_image",
    "data.most_pixels",
    "checkpoint.",
    "cluster.",
    "tracking.",
)
"""Settings of the base that may change from call to call: operational ones that no score depends on."""

SWEEP: Shape = {
    "space": {str: str},
    "minimize": [str],
    "seeds": int,
    **dict.fromkeys(("sampler", "study", "storage", "id"), str),
    str: str,
}
"""The shape of sweep.json: what `identity_of` returns, and the id of the sweep."""


def identity_of(settings: Sweep, space: Space, sampler: Sampler, seeds: int) -> dict[str, Any]:
    """Return the settings, as JSON values, that must be equal when a sweep is continued."""
    base = {
        f"base.{path}": repr(value)
        for path, value in flatten(space.base).items()
        if not path.startswith(_FREE)
    }
    return {
        "space": {name: repr(entry) for name, entry in space.space.items()},
        "minimize": list(space.minimize),
        "seeds": seeds,
        "sampler": sampler,
        "study": settings.study,
        "storage": shown_storage(settings.storage) if settings.storage else "",
        **base,
    }


def id_of_sweep(run: RunDirectory, identity: dict[str, Any]) -> str:
    """Return the id of the sweep in a directory, which is new for a new sweep.

    Raises UserError, with the settings that differ, when the directory holds another sweep.
    """
    found = read_json(run.sweep_file, SWEEP) if run.sweep_file.is_file() else identity
    if others := [name for name in identity if found.get(name) != identity[name]]:
        raise UserError(
            f"{run.root} holds a sweep with other settings ({', '.join(others)}): repeat its settings to "
            f"continue it, or choose {ANOTHER_DIRECTORY}."
        )
    return str(found.get("id") or secrets.token_hex(8))
