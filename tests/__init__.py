"""The tests of cm_ray, in the rooms of the package."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""Threads of PyTorch, here and in all that is started, wait without spinning: on two cores, two programs that
spin slow each other down a hundredfold. PyTorch reads this when it is imported."""
