"""Everything that touches Ray, and the only place that does.

The rooms below it are named by what runs on the cluster. Code that works without Ray belongs in another room.
"""

from cm_ray.extras import needs

needs("ray", "pyarrow", "tqdm", extra="train")
