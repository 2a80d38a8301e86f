"""Units of images as Arrow blocks, for the read tasks of Ray Data.

The module imports little, so that the processes of read tasks start fast.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cm_ray.data.interface.arrow import pa
from cm_ray.data.shards.manifest import Shape
from cm_ray.data.shards.order import Unit, read_unit
from cm_ray.remote.witness import Witness


def read_block(folder: Path, unit: Unit, shape: Shape, seen: Witness) -> list[pa.Table]:
    """Read a unit as one table: ``image``, fixed-size binary (c*h*w), and ``label``, int64.

    seen: a file of the folder. Raises UserError naming a shard that is missing or corrupt, or a node on which
    the folder is another one.
    """
    seen.check()
    images, labels = read_unit(folder, unit, shape)
    pixels = pa.py_buffer(np.ascontiguousarray(images))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(math.prod(shape)), len(labels), [None, pixels])
    return [pa.table({"image": column, "label": pa.array(labels)})]
