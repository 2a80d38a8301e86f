"""Units of images as Arrow blocks, for the read tasks of Ray Data.

The module imports little, so that the processes of read tasks start fast.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa

from cm_ray.data.order import Unit, read_unit
from cm_ray.data.shards import Shape


def read_block(folder: Path, unit: Unit, shape: Shape) -> list[pa.Table]:
    """Read a unit as one table: ``image``, fixed-size binary (c*h*w), and ``label``, int64.

    Raises UserError naming a shard that is missing or corrupt.
    """
    images, labels = read_unit(folder, unit, shape)
    pixels = pa.py_buffer(np.ascontiguousarray(images))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(math.prod(shape)), len(labels), [None, pixels])
    return [pa.table({"image": column, "label": pa.array(labels)})]
