"""Tracking: tells MLflow what a run directory holds. The run itself only writes files; see `tracker`."""

from cm_ray.tracking.fetch import fetch_model
from cm_ray.tracking.group import RunGroup
from cm_ray.tracking.status import Registered
from cm_ray.tracking.tracker import NullTracker, Tracker, open_tracker, resend

__all__ = ["NullTracker", "Registered", "RunGroup", "Tracker", "fetch_model", "open_tracker", "resend"]
