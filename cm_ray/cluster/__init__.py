"""All code that uses Ray: training, sampling, scoring, searches and sweeps on a cluster.

Each sub-package is named after its job. Code that works without Ray belongs in another package.
"""

from cm_ray.extras import needs

needs("ray", "pyarrow", "tqdm", extra="train")
