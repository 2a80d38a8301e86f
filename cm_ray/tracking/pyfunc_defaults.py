"""Parameters of a request to a served model, with their defaults."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "task": "sample",
    "seed": 0,
    "steps": 0,
    "label": "",
    "to_seed": 1,
    "taus": [],
    "factor": 0,
    "sigma": 0.0,
    "resize": False,
}
"""Names and default values; see `pyfunc_model.ConsistencyPyfunc.predict`."""
