"""Tracking: send the contents of run directories to MLflow, and read models from its registry.

Training only writes files; a tracker reads them and sends what is new, see `tracker`. Nothing in this room
trains, samples or scores.
"""

from cm_ray.tracking.fetch import fetch_model
from cm_ray.tracking.group import RunGroup
from cm_ray.tracking.status import Registered, status_of
from cm_ray.tracking.tracker import NullTracker, Tracker, open_tracker, resend

__all__ = [
    "NullTracker",
    "Registered",
    "RunGroup",
    "Tracker",
    "fetch_model",
    "open_tracker",
    "resend",
    "status_of",
]
