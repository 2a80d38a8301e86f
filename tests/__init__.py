"""The tests of cm_ray, in the rooms of the package."""

import os

from cm_ray.spinning import SPIN_COUNT

os.environ.setdefault(*SPIN_COUNT)
"""It holds for all that is started, too; PyTorch reads it when it is imported."""
