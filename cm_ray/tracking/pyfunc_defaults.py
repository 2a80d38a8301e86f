"""What a request to a served model may say besides its table, and what it means when it does not."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "task": "sample",
    "seed": 0,
    "steps": 0,
    "label": -1,
    "to_seed": 1,
    "taus": [],
    "factor": 0,
    "sigma": 0.0,
    "resize": False,
}
"""Names and defaults; see `pyfunc_model.ConsistencyPyfunc.predict`."""
