"""The tests of cm_ray, in the rooms of the package."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
"""Threads of PyTorch, here and in all that is started, sleep soon while they wait: on two cores, two programs
that spin slow each other down a hundredfold. PyTorch reads this when it is imported."""
