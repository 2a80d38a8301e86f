"""PyArrow for the modules of this room; where it is not installed, an error that names the extra."""

from cm_ray.extras import needs

needs("pyarrow", extra="train")

import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

__all__ = ["pa", "pc", "pq"]
